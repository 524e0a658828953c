"""A run's team outside the simulator recommends what it would have shown inside."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents import Recommender
from agents.cli import main
from agents.commands.train import start_run
from agents.service.past import _listed
from marec_env.config.loader import load_text
from marec_env.errors import ConfigError, DataError, RunError

CONFIG = """
environment:
  max_requests: 8
  embeddings: {encoder: hashing, cache: false}
  population: {sweeps: 1}
  knowledge: {sweeps: 1}
  users: {new_user_share: 0.0}
sampling: {num_sessions: 8, rollout_length: 8}
training: {env_steps: 64}
evaluation: {at_end: false}
tracking: {wandb: disabled}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("recommender")
    (place / "tiny.yaml").write_text(CONFIG)
    assert start_run(str(place / "tiny.yaml"), [], place / "run") == 0
    return place / "run"


@pytest.fixture(scope="module")
def recommender(run: Path) -> Recommender:
    return Recommender.load(run)


def test_equals_the_first_slate_that_the_simulator_shows(
    run: Path, recommender: Recommender
) -> None:
    from agents.config import RunConfig
    from agents.learners.policy import load_policy
    from marec_env.simulator import Simulator
    from marec_env.world import build_world

    environment = load_text((run / "config.yaml").read_text(), "config", RunConfig).environment
    world = build_world(environment)  # type: ignore[arg-type]
    [checkpoint] = (run / "checkpoints").iterdir()
    policy = load_policy(checkpoint / "trainer")
    for seed in range(3):
        simulator = Simulator(world, 1)
        step = simulator.reset(seed)
        simulator.step(policy.act(step.observations))
        assert simulator.last is not None
        shown = simulator.last.request.slate
        assert shown is not None
        user = int(simulator.users.user_index[0])
        past, liked = (row[0] for row in world.population.history.of(torch.tensor([user])))
        known = past >= 0
        result = recommender.recommend(
            [world.catalog.ids[i] for i in past[known].tolist()],
            feedback=liked[known].tolist(),
            group=world.population.group_names[int(world.population.groups[user])],
            seed=seed,
        )
        assert [r.item for r in result] == [world.catalog.ids[i] for i in shown[0].tolist()]
        request = simulator.last.request
        assert request.scores is not None and request.slate_slot is not None
        scores = request.scores.gather(1, request.slate_slot)[0]
        torch.testing.assert_close(torch.tensor([r.score for r in result]), scores)


def test_nothing_of_a_long_history_comes_back(recommender: Recommender) -> None:
    history = list(recommender.bundle.ids[:400])
    found = recommender.recommend(history, k=30)
    assert len({r.item for r in found}) == 30
    assert not {r.item for r in found} & set(history)


def test_feedback_is_heard_as_liking_or_as_ratings(recommender: Recommender) -> None:
    history = ["50", "181", "174", "1", "127"]
    liked = recommender.recommend(history, 5)
    assert liked == recommender.recommend(history, 5, [True] * 5)
    assert liked == recommender.recommend(history, 5, [4, 5, 4.0, 5, 4])
    disliked = recommender.recommend(history, 5, [False] * 5)
    assert disliked == recommender.recommend(history, 5, [1, 3, 2, 1, 3.5])
    # Numpy's booleans are no ratings of 1 and 0.
    assert liked == recommender.recommend(history, 5, list(np.ones(5, dtype=bool)))
    assert disliked != liked


def test_zeros_and_ones_are_dislikes_and_likes_unless_they_could_be_ratings(
    recommender: Recommender,
) -> None:
    history = ["50", "181", "174"]
    flags = recommender.recommend(history, 5, [True, False, True])
    for feedback in ([1, 0, 1], [1.0, 0.0, 1.0], np.array([1, 0, 1]), [True, 0, 1]):
        assert flags == recommender.recommend(history, 5, list(feedback))
    for feedback in ([1, 1, 1], [True, 1, 1]):  # MovieLens has ratings of 1
        with pytest.raises(
            DataError, match=r"ratings \(1 \.\.\. 5\) or likes; give True and False"
        ):
            recommender.recommend(history, 5, feedback)


@pytest.mark.parametrize("history", ["11", b"11", {"50"}, {"50": 5}, 50])
def test_what_is_no_list_is_refused(recommender: Recommender, history: Any) -> None:
    with pytest.raises(DataError, match=r"history is .*; give a list"):
        recommender.recommend(history)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "5", "liked"])
def test_feedback_that_says_nothing_is_refused(recommender: Recommender, value: Any) -> None:
    with pytest.raises(DataError, match=r"feedback holds .* at position 1; give True, False"):
        recommender.recommend(["50", "181"], 3, [5, value])


def test_lists_of_other_kinds_are_taken(recommender: Recommender) -> None:
    expected = recommender.recommend(["50", "181"], 3, [True, False])
    assert expected == recommender.recommend(iter(["50", "181"]), 3, iter([True, False]))
    assert expected == recommender.recommend(np.array([50.0, 181.0]), np.int64(3), [5, 1])
    with pytest.raises(ConfigError, match=r"k is 2\.5; give a whole number"):
        recommender.recommend(["50"], 2.5)  # type: ignore[arg-type]


def test_a_log_that_changed_after_training_is_noticed(tmp_path: Path) -> None:
    draws = [(n % 9, 7 * n % 200, 1 + n % 5, 1_500_000_000 + 9_000 * n) for n in range(900)]
    head = "user_id,item_id,rating,timestamp\n"
    rows = [",".join(map(str, row)) + "\n" for row in draws]
    (tmp_path / "interactions.csv").write_text(head + "".join(rows))
    titles = "".join(f"{n},Title {n}\n" for n in range(200))
    (tmp_path / "items.csv").write_text("item_id,title\n" + titles)
    text = CONFIG + "name: own\n"
    text = text.replace("environment:", f"environment:\n  data: {{source: {tmp_path}}}")
    text = text.replace("max_requests: 8", "max_requests: 3\n  pipeline: {candidates: 60}")
    (tmp_path / "own.yaml").write_text(text)
    assert start_run(str(tmp_path / "own.yaml"), [], tmp_path / "run") == 0
    before = Recommender.load(tmp_path / "run").recommend(["7"], 3)
    assert len(before) == 3
    (tmp_path / "interactions.csv").write_text(head + "".join(rows[:600]))
    with pytest.raises(RunError, match=r"trained on other data .* load with changed_log=True"):
        Recommender.load(tmp_path / "run")
    assert len(Recommender.load(tmp_path / "run", changed_log=True).recommend(["7"], 3)) == 3


def test_a_new_user_and_numbers_for_identifiers(recommender: Recommender) -> None:
    assert len(recommender.recommend([], 10)) == 10
    assert recommender.recommend([50, 181], 3) == recommender.recommend(["50", "181"], 3)


def test_seeds_are_whole(recommender: Recommender) -> None:
    for seed in ("x", 1.5, None):
        with pytest.raises(ConfigError, match="is no integer"):
            recommender.recommend([], seed=seed)  # type: ignore[arg-type]


def test_refusals(recommender: Recommender, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="item 'nothing' is not in the log 'movielens-100k'"):
        recommender.recommend(["nothing"])
    with pytest.raises(DataError, match="feedback has 1 entries, history 2"):
        recommender.recommend(["50", "181"], 3, [True])
    with pytest.raises(ConfigError, match=r"k must lie in 1 \.\.\. 100"):
        recommender.recommend([], 101)
    with pytest.raises(ConfigError, match="group 'X' is unknown"):
        recommender.recommend([], 3, group="X")
    with pytest.raises(RunError, match="no such run folder"):
        Recommender.load(tmp_path / "none")


def test_a_bundle_recommends_what_its_run_does(
    run: Path, recommender: Recommender, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run), str(tmp_path / "bundle"), "--replays", "1"]) == 0
    said = capsys.readouterr().out
    assert "bundle: version " in said
    watched = json.loads((tmp_path / "bundle.replays.json").read_text())
    assert f"version {watched['version']}" in said
    assert len(watched["sessions"]) == 1 and watched["sessions"][0]["requests"]
    there = Recommender.load(tmp_path / "bundle")
    for history in ([], ["50", "181", "174"]):
        assert there.recommend(history) == recommender.recommend(history)
    assert main(["export", str(run), str(tmp_path / "bundle")]) == 2
    assert "cannot write the bundle" in capsys.readouterr().err


def test_needs_no_ray(run: Path) -> None:
    code = (
        "import sys; from agents import Recommender;"
        f" Recommender.load({str(run)!r}).recommend(['50']); assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize(
    "history", [bytearray(b"11"), memoryview(b"11"), np.array(5), np.array("11"), torch.tensor(3)]
)
def test_what_is_iterable_by_its_type_only_is_no_history(history: Any) -> None:
    with pytest.raises(DataError, match="give a list"):
        _listed("history", history)
