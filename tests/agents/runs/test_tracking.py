from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agents.config import RunConfig, config_hash
from agents.runs import workspace
from agents.runs.tracking import Trackers, open_trackers, resolve_wandb_mode
from agents.runs.workspace import comparison_workspace


def run_of(**tracking: object) -> RunConfig:
    return RunConfig.model_validate({"seed": 3, "tracking": tracking})


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_DIR", "WANDB_DATA_DIR", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def test_an_offline_run_holds_the_curves_and_its_names(tmp_path: Path) -> None:
    said: list[str] = []
    config, folder = run_of(tags=("quick",)), tmp_path / "marec-mappo-seed3-x"
    folder.mkdir()
    trackers = open_trackers(config, folder, said.append)
    for step in (10, 20, 30):
        curves = {"evaluation/clicks": step + 0.5, "evaluation/clicks/static": 7.0}
        trackers.log(
            {"env_steps": step, "team_reward": step / 100, "episode/clicks": None, **curves}
        )
    trackers.summary({"compare/team_reward": 0.5, "compare/none": float("nan")})
    trackers.table("comparison", ["policy", "clicks"], [["trained team", 42.5], ["random", None]])
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "policy.json").write_text("{}")
    trackers.artifact("checkpoint", [tmp_path / "trainer", tmp_path / "missing"])
    trackers.close()
    assert not (tmp_path / "home" / ".local").exists()  # all to be sent lies in the run's folder
    assert said == [
        "W&B: offline into the run's folder, no account is logged in; 'wandb login' for online"
    ]
    [log] = (folder / "wandb").glob("offline-run-*/*.wandb")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(log)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    records = [json.loads(line) for line in done.stdout.splitlines()]
    [run] = [record["run"] for record in records if record["type"] == "run"]
    assert run["run_group"] == f"mappo-marec-{config_hash(config)[:8]}"
    assert run["job_type"] == "train"
    settings = run["config"]["update"]
    assert (settings["algo"], settings["preset"], settings["seed"]) == ("mappo", "marec", 3)
    assert settings["group"] == run["run_group"]
    history = [record["history"]["item"] for record in records if "history" in record]
    curve = [row for row in history if "comparison.path" not in row]
    [shown] = [row for row in history if "comparison.path" in row]
    assert shown["env_steps"] == 30
    [kept] = (log.parent / "files").glob(f"**/{Path(shown['comparison.path']).name}")
    assert json.loads(kept.read_text())["data"] == [["trained team", 42.5], ["random", None]]
    [artifact] = [
        record["artifact"] for record in records
        if record.get("artifact", {}).get("type") == "checkpoint"
    ]  # fmt: skip
    assert artifact["name"] == "marec-mappo-seed3-x-checkpoint"
    assert [entry["path"] for entry in artifact["manifest"]["contents"]] == ["trainer/policy.json"]
    assert [(row["env_steps"], row["team_reward"]) for row in curve] == [
        (10, 0.1), (20, 0.2), (30, 0.3)
    ]  # fmt: skip
    evaluated = [(row["evaluation/clicks"], row["evaluation/clicks/static"]) for row in curve]
    assert evaluated == [(10.5, 7.0), (20.5, 7.0), (30.5, 7.0)]

    final: dict[str, float] = {}
    for record in records:
        final |= record.get("summary", {}).get("update", {})
    assert final["compare/team_reward"] == 0.5
    assert "compare/none" not in final


def test_the_workspace_compares_algorithms() -> None:
    pytest.importorskip("wandb_workspaces")
    built = comparison_workspace("someone", "marec")
    model = built._to_model().model_dump(by_alias=True)
    [runs] = model["spec"]["section"]["runSets"]
    assert [group["name"] for group in runs["grouping"]] == ["algo.value", "preset.value"]
    sections = model["spec"]["section"]["panelBankConfig"]["sections"]
    curves, outcomes = sections[0]["panels"], sections[1]["panels"]
    assert {panel["config"]["xAxis"] for panel in curves} == {"env_steps"}
    assert {panel["config"]["groupBy"] for panel in [*curves, *outcomes]} == {"algo.value"}
    assert ["episode/clicks"] in [panel["config"]["metrics"] for panel in curves]
    assert ["compare/trained team/clicks"] in [panel["config"]["metrics"] for panel in outcomes]


def test_the_workspace_is_saved_once_for_each_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Built:
        saved = 0
        url = "the-dashboard/someone/marec"

        def save(self) -> None:
            Built.saved += 1

    monkeypatch.setattr(workspace, "comparison_workspace", lambda entity, project: Built())
    said: list[str] = []
    place = tmp_path / "saved.json"
    for project in ("marec", "marec", "other"):
        workspace.ensure_workspace("someone", project, place, said.append)
    assert Built.saved == 2
    assert said == [f"W&B: algorithms compared at {Built.url}"] * 2
    assert set(json.loads(place.read_text())) == {"someone/marec", "someone/other"}


def test_a_workspace_that_cannot_be_saved_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(entity: str, project: str) -> None:
        raise OSError("no network")

    monkeypatch.setattr(workspace, "comparison_workspace", fail)
    said: list[str] = []
    workspace.ensure_workspace("someone", "marec", tmp_path / "saved.json", said.append)
    assert said == ["W&B: the workspace was not saved: no network"]
    assert not (tmp_path / "saved.json").exists()


def test_mode_without_an_account() -> None:
    said: list[str] = []
    assert resolve_wandb_mode("auto", said.append) == "offline"
    assert len(said) == 1


@pytest.mark.parametrize("mode", ["online", "offline", "disabled"])
def test_mode_asked_for(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    assert resolve_wandb_mode(mode, pytest.fail) == mode
    monkeypatch.setenv("WANDB_MODE", mode)
    assert resolve_wandb_mode("auto", pytest.fail) == mode


def test_login_that_fails_means_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def fail(**_: object) -> bool:
        raise TimeoutError

    monkeypatch.setattr(wandb, "login", fail)
    said: list[str] = []
    assert resolve_wandb_mode("auto", said.append) == "offline"
    assert "no connection (TimeoutError)" in said[0]


def test_a_dashboard_that_fails_is_left_out_and_the_others_go_on() -> None:
    class Bad:
        def log(self, metrics: object) -> None:
            raise OSError("disk full")

        def summary(self, values: object) -> None: ...

        def close(self) -> None: ...

    class Good(Bad):
        count = 0

        def log(self, metrics: object) -> None:
            self.count += 1

    said: list[str] = []
    good = Good()
    trackers = Trackers({"bad": Bad(), "good": good}, said.append)
    trackers.log({"env_steps": 1})
    trackers.log({"env_steps": 2})
    assert good.count == 2
    assert said == ["bad failed and is left out from here on: disk full"]


def test_tensorboard_holds_the_curves(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    config = run_of(wandb="disabled", tensorboard=True)
    trackers = open_trackers(config, tmp_path, pytest.fail)
    trackers.log({"env_steps": 10, "team_reward": 0.25})
    trackers.log({"env_steps": 20, "team_reward": 0.5, "evaluation/clicks": 31.5})
    trackers.table("comparison", ["policy", "clicks"], [["random", 2.0], ["static", None]])
    trackers.artifact("config", [tmp_path])
    trackers.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("team_reward")] == [(10, 0.25), (20, 0.5)]
    [text] = events.Tensors("comparison/text_summary")
    assert "| random | 2 |\n| static |  |" in text.tensor_proto.string_val[0].decode()
    assert [(e.step, e.value) for e in events.Scalars("evaluation/clicks")] == [(20, 31.5)]
    [started] = [
        plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
        for name, content in events.PluginTagToContent("hparams").items()
        if name.endswith("session_start_info")
    ]
    told = {name: value.string_value or value.number_value for name, value in started.items()}
    group = f"mappo-marec-{config_hash(config)[:8]}"
    assert told == {"algo": "mappo", "preset": "marec", "seed": 3.0, "group": group}


READ = """
import json, sys, trackio
from trackio.sqlite_storage import SQLiteStorage as storage
name = sys.argv[1]
print(json.dumps([storage.get_logs("marec", name), storage.get_run_config("marec", name)]))
"""


def test_trackio_holds_the_curves(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    config, folder = run_of(wandb="disabled", trackio=True), tmp_path / "marec-mappo-seed3-x"
    code = f"""
import json, sys
from pathlib import Path
from agents.config import RunConfig
from agents.runs.tracking import open_trackers
config = RunConfig.model_validate_json(sys.stdin.read())
trackers = open_trackers(config, Path({str(folder)!r}), print)
for step in (10, 20):
    trackers.log({{"env_steps": step, "evaluation/clicks": step + 0.5, "episode/clicks": None}})
trackers.summary({{"compare/random/clicks": 2.0, "compare/none": float("nan")}})
trackers.artifact("config", [])
trackers.close()
"""

    def run(code: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], input=config.model_dump_json(),
            capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3],
            env={**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")},
        )  # fmt: skip
        return done.stdout

    assert run(code) == ""
    rows, known = json.loads(run(READ, folder.name))
    curve = [(row["env_steps"], row["evaluation/clicks"]) for row in rows if "env_steps" in row]
    assert curve == [(10, 10.5), (20, 20.5)]
    assert rows[-1]["compare/random/clicks"] == 2.0
    assert "compare/none" not in rows[-1]
    group = f"mappo-marec-{config_hash(config)[:8]}"
    told = {name: known[name] for name in ("algo", "preset", "seed", "group")}
    assert told == {"algo": "mappo", "preset": "marec", "seed": 3, "group": group}
