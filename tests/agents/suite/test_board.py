"""Scores, ranks and claims against numbers worked out by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from agents.comparison.rows import Row
from agents.suite.board import claim_of, profile_of, standings
from agents.suite.tasks import Task
from marec_env.evaluation.statistics import Estimate, bootstrap_seeds

TASK = Task("a claim", better="good", worse="poor", least=0.1, tried="")


def row(label, clicks, seeds=None):
    seeds = tuple(range(len(clicks))) if seeds is None else seeds
    value = {("values", "clicks"): Estimate(float(np.mean(clicks)))}
    return Row(label, "trained", "seeds", len(clicks), value, seeds, {"clicks": list(clicks)})


def played(label, clicks, kind="baseline"):
    return Row(label, kind, "sessions", 8, {("values", "clicks"): Estimate(clicks)})


def summary(*rows, floor=10.0, roof=30.0):
    others = (played("random", floor), played("static", 17.0), played("oracle", roof, "oracle"))
    return SimpleNamespace(experiments=rows, others=others)


def test_scores_run_from_random_play_to_the_oracle_and_ranks_from_one():
    first = summary(row("good", [20.0, 22.0, 24.0]), row("poor", [15.0, 15.0, 15.0]))
    # The other way round in the second task, of which seed 3 has no partner.
    second = summary(
        row("good", [100.0, 100.0, 100.0, 300.0]), row("poor", [150.0, 150.0, 150.0]),
        floor=100.0, roof=200.0,
    )  # fmt: skip
    best, other = standings({"one": first, "two": second})
    assert (best.algorithm, other.algorithm) == ("poor", "good")
    # Middle halves of (.5, .6, .7, 0, 0, 0) and (.25, .25, .25, .5, .5, .5).
    assert other.score.value == pytest.approx((0.0 + 0.0 + 0.5 + 0.6) / 4)
    assert best.score.value == pytest.approx((0.25 + 0.25 + 0.5 + 0.5) / 4)
    assert (best.rank.value, other.rank.value) == (1.5, 1.5)
    assert best.over["good"].value == 0.5
    assert other.score.low < other.score.value < other.score.high
    assert other.score.count == 3


def test_an_algorithm_that_a_task_lacks_has_no_standing():
    first = summary(row("good", [20.0, 22.0]), row("poor", [15.0, 16.0]))
    assert [s.algorithm for s in standings({"one": first, "two": summary(row("good", [9.0]))})] == [
        "good"
    ]
    assert standings({"one": first, "two": summary(row("other", [9.0, 9.0]))}) == []
    assert profile_of({"one": first, "two": summary(row("other", [9.0, 9.0]))}) is None


def test_the_profile_is_the_share_of_runs_above_a_score():
    found = profile_of({"one": summary(row("good", [20.0, 25.0]), row("poor", [12.0, 30.0]))})
    middle = found.bands["poor"][0]
    assert middle[found.thresholds < 0.1].tolist() == [1.0] * int((found.thresholds < 0.1).sum())
    between = (found.thresholds >= 0.1) & (found.thresholds < 1.0)
    assert set(middle[between]) == {0.5}
    assert set(middle[found.thresholds >= 1.0]) == {0.0}


def test_a_claim_needs_its_size_its_certainty_and_its_control():
    better, worse = [22.0, 24.0, 23.0, 24.0, 22.0, 23.0], [20.0, 21.0, 20.0, 22.0, 20.0, 21.0]
    runs = summary(row("good", better), row("poor", worse, (0, 1, 2, 3, 4, 9)))
    found = claim_of(TASK, runs)
    assert found.difference.count == 5  # seeds 5 and 9 have no partner
    assert found.difference.value == pytest.approx((2 + 3 + 3 + 2 + 2) / 5)
    assert found.share.value == pytest.approx(2.4 / 20.6)
    assert found.errors == pytest.approx(2.4 / (0.3**0.5 / 5**0.5))
    assert found.holds(TASK)
    assert not found.holds(Task("more", "good", "poor", least=0.12, tried=""))
    control = dict(enumerate(worse[:5]))
    assert claim_of(TASK, runs, control).holds(TASK)
    assert not claim_of(TASK, runs, dict(enumerate(better))).holds(TASK)  # it changes nothing
    unsure = summary(row("good", [40.0, 10.0, 23.0]), row("poor", [20.0, 11.0, 12.0]))
    assert not claim_of(TASK, unsure).holds(TASK)
    assert claim_of(TASK, summary(row("good", better))) is None
    assert claim_of(TASK, summary(row("good", [1.0]), row("poor", [2.0]))) is None


def test_seeds_are_redrawn_for_all_algorithms_alike_and_for_each_task_apart():
    draws = np.random.default_rng(1).normal(size=(2, 40, 1))
    scores = np.concatenate([draws, draws + 1.0], axis=2)
    [gap, first] = bootstrap_seeds(
        scores, lambda s: np.array([(s[..., 1] - s[..., 0]).mean(), s[..., 0].mean()]), 400
    )
    assert (gap.low, gap.value, gap.high) == pytest.approx((1.0, 1.0, 1.0))
    # Two tasks of forty seeds each, redrawn apart: as eighty draws, not as forty.
    error = (draws.var(axis=1).mean() / 80) ** 0.5
    assert (first.high - first.low) / (2 * error) == pytest.approx(2.02, rel=0.2)
    [alone] = bootstrap_seeds(np.ones((3, 1, 2)), lambda s: s.mean(keepdims=True).ravel())
    assert alone.value == 1.0
    assert np.isnan(alone.low)
