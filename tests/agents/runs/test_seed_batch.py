"""Several seeds as one batch of this process, which is how CUDA trains them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import yaml

from agents.commands import evaluate, train, train_set
from agents.commands.cohort import EvaluationCohort
from agents.comparison.runs import TRAINED
from agents.runs.metrics_log import TIME_PREFIX, Metrics, read_metrics
from agents.runs.tracking import Trackers
from tests.worlds import small_environment

SETTINGS = {
    "environment": small_environment(),
    "sampling": {"num_sessions": 8, "rollout_length": 8},
    "algorithm": {"epochs": 1},
    "training": {"env_steps": 256, "checkpoint_every": 128},
    "evaluation": {"sessions": 4, "baselines": ["static"]},
    "tracking": {"wandb": "offline"},
}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(train_set, "side_by_side", lambda config: True)
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**SETTINGS, "output": str(tmp_path / "runs")}))
    return str(path)


def curve(folder: Path) -> list[Metrics]:
    return [
        {name: value for name, value in row.items() if not name.startswith(TIME_PREFIX)}
        for row in read_metrics(folder / "metrics.jsonl")
    ]


def assert_same(one: list[Metrics], two: list[Metrics]) -> None:
    assert len(one) == len(two)
    for first, second in zip(one, two, strict=True):
        assert first == pytest.approx(second, rel=2e-3, abs=2e-4)


def runs(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "runs").iterdir(), key=lambda path: path.name)


def test_each_seed_has_a_run_as_if_it_had_trained_alone(config: str, tmp_path: Path) -> None:
    assert train_set.start_set([config], "3,7-8", [], jobs=1) == 0
    seeds = [path.name.partition("seed")[2][:2] for path in runs(tmp_path)]
    assert seeds == ["3-", "7-", "8-"]
    for path in runs(tmp_path):
        assert (path / "report.html").exists() and (path / "evaluation.json").exists()
        assert len(list((path / "wandb").glob("offline-run-*"))) == 1
    assert train.start_run(config, ["seed=7"], tmp_path / "alone") == 0
    assert_same(curve(runs(tmp_path)[1]), curve(tmp_path / "alone"))
    assert curve(runs(tmp_path)[0]) != curve(runs(tmp_path)[1])


def test_a_team_is_evaluated_as_it_trains_beside_baselines_that_play_once(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = []
    play = EvaluationCohort.play
    monkeypatch.setattr(
        EvaluationCohort, "play", lambda self, policy: played.append(policy) or play(self, policy)
    )
    assert train_set.start_set([config], "0-1", ["evaluation.every=128"], jobs=1) == 0
    assert len(played) == 1 + 2 * 3  # static once; each seed at 128, at 256, and at the end
    [page] = tmp_path.glob("comparison-*/comparison.html")
    assert "trained team (2 runs)" in page.read_text()
    one, two = (curve(path) for path in runs(tmp_path))
    assert [row["env_steps"] for row in one if "evaluation/clicks" in row] == [128, 256]
    found = json.loads((runs(tmp_path)[0] / "evaluation.json").read_text())["policies"]
    clicks = {name: policy["outcomes"]["clicks"]["mean"] for name, policy in found.items()}
    assert one[-1]["evaluation/clicks"] == pytest.approx(clicks[TRAINED])
    assert one[-1]["evaluation/clicks/static"] == pytest.approx(clicks["static"])
    assert two[1]["evaluation/clicks/static"] == one[-1]["evaluation/clicks/static"]
    first, last = (row["evaluation/clicks"] for row in (one[1], one[3]))
    best = 256 if last > first else 128
    kept = [path.name for path in (runs(tmp_path)[0] / "best").iterdir()]
    assert kept == [f"env_steps-{best:012d}"]
    assert "evaluation&#39;s cohort" in (runs(tmp_path)[0] / "report.html").read_text()
    evaluate.command([runs(tmp_path)[0]], best=True)
    again = json.loads((runs(tmp_path)[0] / "evaluation-best.json").read_text())
    assert again["env_steps"] == best
    mean = again["policies"][TRAINED]["outcomes"]["clicks"]["mean"]
    assert mean == pytest.approx(max(first, last))
    # Training goes as it does without.
    assert train.start_run(config, ["seed=0"], tmp_path / "plain") == 0
    plain = [
        {name: value for name, value in row.items() if not name.startswith("evaluation/")}
        for row in one
    ]
    assert_same(plain, curve(tmp_path / "plain"))


def test_all_stop_after_the_same_iteration_and_each_is_resumed(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train.start_run(config, ["seed=1"], tmp_path / "whole") == 0
    log, written = Trackers.log, []

    def interrupted(self: Trackers, metrics: Metrics) -> None:
        log(self, metrics)
        written.append(metrics)
        if len(written) == 5:  # the second of three seeds, in its second iteration
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Trackers, "log", interrupted)
    assert train_set.start_set([config], "0-2", [], jobs=1) == train_set.INTERRUPTED
    assert [len(curve(path)) for path in runs(tmp_path)] == [2, 2, 2]
    monkeypatch.setattr(Trackers, "log", log)
    assert train.continue_run(runs(tmp_path)[1], []) == 0
    assert_same(curve(runs(tmp_path)[1]), curve(tmp_path / "whole"))
