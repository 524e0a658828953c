"""Several seeds and configurations from one command: processes of their own, one comparison."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from agents.commands import train_set
from agents.comparison.runs import TRAINED
from agents.runs.metrics_log import append_metrics, last_metrics, read_metrics
from agents.runs.progress import Progressing, SetDisplay
from marec_env.errors import ConfigError
from tests.worlds import small_environment

SETTINGS = {
    "environment": small_environment(),
    "sampling": {"num_sessions": 8, "rollout_length": 8},
    "algorithm": {"epochs": 1},
    "training": {"env_steps": 128, "checkpoint_every": 64},
    "evaluation": {"sessions": 4, "every": 64, "baselines": ["static", "counted_plays:make"]},
    "tracking": {"wandb": "disabled"},
}
COUNTED = """
from pathlib import Path
from agents.baselines import build_baseline

class Counted:
    def __init__(self, team):
        self.team, self.fresh = team, False
    def reset(self):
        self.fresh = True
    def act(self, observations):
        if self.fresh:  # how many sessions begin
            self.fresh = False
            with open(Path(__file__).with_suffix(".txt"), "a") as file:
                file.write(f"{len(next(iter(observations.values())))} ")
        return self.team.act(observations)

def make(simulator, seed):
    return Counted(build_baseline("random", simulator, seed))
"""


def written(folder: Path, name: str, **sections: object) -> str:
    path = folder / f"{name}.yaml"
    content = {**SETTINGS, "output": str(folder / "runs"), "name": name, **sections}
    path.write_text(yaml.safe_dump(content))
    return str(path)


def clicks(run: Path, name: str) -> float:
    found = json.loads((run / "evaluation.json").read_text())["policies"]
    return found[name]["outcomes"]["clicks"]["mean"]


def test_configurations_train_apart_and_are_compared_on_one_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # code of a file in the working directory is trusted
    (tmp_path / "counted_plays.py").write_text(COUNTED)
    wrong = {**SETTINGS["evaluation"], "baselines": ["statik"]}
    paths = [
        written(tmp_path, "one"),
        written(tmp_path, "two", algorithm={"kind": "ippo", "epochs": 1}),
        written(tmp_path, "bad", algorithm={"epochs": 2}, evaluation=wrong),
    ]
    assert train_set.start_set(paths, "3", ["training.env_steps=192"], jobs=2) == 2
    said = capfd.readouterr()
    one, two = sorted((tmp_path / "runs").iterdir())
    stamp = one.name.rpartition("-")[2]
    assert [one.name, two.name] == [f"one-mappo-seed3-{stamp}", f"two-ippo-seed3-{stamp}"]
    assert [len(read_metrics(run / "metrics.jsonl")) for run in (one, two)] == [3, 3]
    assert clicks(one, TRAINED) != clicks(two, TRAINED)
    assert clicks(one, "counted_plays:make") == clicks(two, "counted_plays:make")
    # Three evaluations of two runs; each run first tries what is the user's own on two sessions.
    assert (tmp_path / "counted_plays.txt").read_text().split().count("4") == 1

    [line] = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: bad-mappo-seed3-{stamp}: ")
    assert "statik" in line
    assert f"continue with: python train.py {paths[2]} --set training.env_steps=192" in line
    assert line.endswith("--set seed=3")
    assert "Traceback" not in said.err
    assert "Preparing" not in said.err
    page = tmp_path / f"comparison-{stamp}" / "comparison.html"
    assert (
        f"Next, with further runs behind it: python evaluate.py compare {tmp_path}/runs/*-{stamp}*"
        in said.out
    )
    found = json.loads(page.with_suffix(".json").read_text())
    assert list(found["experiments"]) == ["one mappo", "two ippo"]
    assert said.out.count("User outcomes") == 1


def test_a_signal_stops_all_and_each_is_told_how_to_go_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    evaluation = {"at_end": False}
    path = written(tmp_path, "one", evaluation=evaluation)

    def interrupt() -> None:
        while not list(tmp_path.glob("runs/*/metrics.jsonl")):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    steps = ["training.env_steps=100000000"]
    assert train_set.start_set([path], "5-6", steps, jobs=1) == train_set.INTERRUPTED
    [run] = (tmp_path / "runs").iterdir()
    at = int(last_metrics(run / "metrics.jsonl")["env_steps"] or 0)
    assert (run / "checkpoints" / f"env_steps-{at:012d}").is_dir()
    assert "group: mappo-marec-" in (run / "config.yaml").read_text()
    lines = capfd.readouterr().err.splitlines()
    assert lines[-2] == f"stopped: {run.name}; continue with: python train.py --resume {run}"
    assert lines[-1].startswith(f"not begun: {run.name.replace('seed5', 'seed6')}; begin it with: ")
    assert lines[-1].endswith(f"python train.py {path} --set {steps[0]} --set seed=6")


def test_configurations_that_say_the_same_are_refused(tmp_path: Path) -> None:
    plain = {"evaluation": {"at_end": False}}
    paths = [written(tmp_path, "one", **plain), written(tmp_path, "two", **plain)]
    with pytest.raises(ConfigError, match="one experiment"):
        train_set.start_set(paths, None, [], jobs=1)
    with pytest.raises(ConfigError, match="one experiment"):
        train_set.start_set(paths[:1] * 2, None, [], jobs=1)
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def runs(tmp_path: Path) -> list[Progressing]:
    """One that trains, one that compares, one that waits."""
    found = [Progressing(tmp_path / f"{name}-mappo-seed0", 400) for name in "abc"]
    for run, steps in zip(found, (100, 400), strict=False):
        run.place.mkdir()
        row = {"env_steps": steps, "team_reward": 0.25, "time/elapsed_seconds": 50.0}
        append_metrics(run.place / "metrics.jsonl", row)
        run.state = "preparing"
        run.look()
    return found


def test_rows_say_how_far_runs_are(runs: list[Progressing]) -> None:
    assert [run.cells()[1:] for run in runs] == [
        ["training", "100/400", "0.250", "2", "2:30"],
        ["comparing", "400/400", "0.250", "8", ""],
        ["waiting", "0/400", "", "", ""],
    ]
    with open(runs[0].place / "metrics.jsonl", "a") as file:
        file.write('{"env_steps": 20')  # a line that is not finished yet
    assert last_metrics(runs[0].place / "metrics.jsonl")["env_steps"] == 100


def test_plain_lines_of_several_runs(runs: list[Progressing]) -> None:
    out, now = io.StringIO(), iter([0.0, 10.0, 31.0, 31.0, 32.0, 33.0])
    console = Console(file=out, width=20)
    with SetDisplay(runs, console, lambda: next(now)) as display:
        display.update()
        display.update()
        runs[1].end("done")
        display.say_once("warning: few")
        display.say_once("warning: few")
    assert out.getvalue().splitlines() == [
        "0 of 3 done, 1 comparing; a-mappo-seed0 100/400, F/request 0.250, 2 steps/s, 2:30 left",
        "warning: few",
        "done: b-mappo-seed0 (1 of 3 done)",
    ]


def test_a_terminal_shows_a_table_of_those_that_it_has_room_for(runs: list[Progressing]) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, height=9)
    with SetDisplay(runs, console):
        runs[1].end("failed")
    shown = out.getvalue()
    assert "2:30" in shown.rpartition("left")[2]  # the last picture: who trains and who failed
    assert "c-mappo" not in shown
    assert "0 of 3 done, 1 failed" in shown
