from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agents.runs.config import TrackingConfig
from agents.runs.tracking import RunIdentity, Trackers, open_trackers, resolve_wandb_mode

IDENTITY = RunIdentity("marec-mappo-seed3-x", "mappo", "marec", 3, "0123456789abcdef")


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_DIR", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def test_an_offline_run_holds_the_curves_and_its_names(tmp_path: Path) -> None:
    said: list[str] = []
    trackers = open_trackers(
        TrackingConfig(tags=("quick",)), IDENTITY, tmp_path, {"training": {"env_steps": 5}},
        said.append,
    )  # fmt: skip
    for step in (10, 20, 30):
        trackers.log({"env_steps": step, "team_reward": step / 100, "episode/clicks": None})
    trackers.summary({"compare/team_reward": 0.5, "compare/none": float("nan")})
    trackers.close()
    assert said == [
        "W&B: offline into the run's folder, no account is logged in; 'wandb login' for online"
    ]
    [log] = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(log)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    records = [json.loads(line) for line in done.stdout.splitlines()]
    [run] = [record["run"] for record in records if record["type"] == "run"]
    assert run["run_group"] == "mappo-marec-01234567"
    assert run["job_type"] == "train"
    settings = run["config"]["update"]
    assert (settings["algo"], settings["preset"], settings["seed"]) == ("mappo", "marec", 3)
    curve = [record["history"]["item"] for record in records if "history" in record]
    assert [(row["env_steps"], row["team_reward"]) for row in curve] == [
        (10, 0.1), (20, 0.2), (30, 0.3)
    ]  # fmt: skip

    final: dict[str, float] = {}
    for record in records:
        final |= record.get("summary", {}).get("update", {})
    assert final["compare/team_reward"] == 0.5
    assert "compare/none" not in final


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

    config = TrackingConfig(wandb="disabled", tensorboard=True)
    trackers = open_trackers(config, IDENTITY, tmp_path, {}, pytest.fail)
    trackers.log({"env_steps": 10, "team_reward": 0.25})
    trackers.log({"env_steps": 20, "team_reward": 0.5})
    trackers.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("team_reward")] == [(10, 0.25), (20, 0.5)]
