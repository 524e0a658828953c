from dataclasses import astuple

import numpy as np
import pytest
from scipy import stats

from marec_env.evaluation import statistics

REPETITIONS = 1000
NOMINAL = (0.93, 0.97)


def test_mean_interval_is_students():
    values = np.array([1.0, 2.0, 4.0, np.nan])
    estimate = statistics.mean_estimate(values)
    low, high = stats.t.interval(0.95, 2, loc=7 / 3, scale=stats.sem(values[:3]))
    assert (estimate.low, estimate.high) == pytest.approx((low, high))
    assert estimate.count == 3


def test_one_value_has_no_interval():
    assert np.isnan(statistics.mean_estimate([2.0]).low)
    assert statistics.mean_estimate([np.nan]).count == 0


def test_paired_interval_covers_a_known_difference():
    generator = np.random.default_rng(0)
    users = generator.gamma(2.0, 3.0, size=(REPETITIONS, 60))  # shared, and skewed
    first = users + generator.normal(0.5, 1.0, size=users.shape)
    second = users + generator.normal(0.0, 1.0, size=users.shape)
    found = [
        statistics.paired_difference(a, b).difference for a, b in zip(first, second, strict=True)
    ]
    covered = np.mean([e.low <= 0.5 <= e.high for e in found])
    assert NOMINAL[0] <= covered <= NOMINAL[1]


def test_pairing_shrinks_the_interval_by_the_factor_it_prints():
    generator = np.random.default_rng(1)
    sessions, repetitions = 200, 2000
    users = generator.normal(0.0, 3.0, size=(repetitions, sessions))
    noise = generator.normal(size=(2, repetitions, sessions))
    paired = (users + noise[0]).mean(1) - (users + noise[1]).mean(1)
    strangers = generator.normal(0.0, 3.0, size=users.shape)
    unpaired = (users + noise[0]).mean(1) - (strangers + noise[1]).mean(1)
    printed = np.median(
        [
            statistics.paired_difference(u + a, u + b).pairing_factor
            for u, a, b in zip(users[:200], noise[0][:200], noise[1][:200], strict=True)
        ]
    )
    assert unpaired.std() / paired.std() == pytest.approx(printed, rel=0.08)
    assert printed == pytest.approx(np.sqrt(10), rel=0.05)  # variances 9 + 1 against 1


def test_paired_outcomes_must_be_of_the_same_sessions():
    with pytest.raises(ValueError, match="same sessions"):
        statistics.paired_difference([1.0, 2.0], [1.0])


@pytest.mark.parametrize(("runs", "tasks"), [(10, 1), (10, 3), (60, 1)])
def test_bootstrap_interval_of_the_interquartile_mean_covers(runs, tasks):
    """Also at ten seeds, where the plain percentile interval covers about 90 %."""
    generator = np.random.default_rng(7)
    scores = generator.normal(1.0, 1.0, size=(REPETITIONS, runs, tasks))
    found = [
        statistics.bootstrap_interval(s, repetitions=500, seed=k) for k, s in enumerate(scores)
    ]
    covered = np.mean([e.low <= 1.0 <= e.high for e in found])
    assert NOMINAL[0] <= covered <= NOMINAL[1]


def test_interquartile_mean_equals_scipy():
    generator = np.random.default_rng(2)
    for count in (3, 4, 10, 11):
        scores = generator.normal(size=(5, count))
        expected = stats.trim_mean(scores, 0.25, axis=1)
        np.testing.assert_allclose(statistics.interquartile_mean(scores, axis=1), expected)
    cube = generator.normal(size=(4, 6, 2))
    np.testing.assert_allclose(
        statistics.interquartile_mean(cube, axis=(1, 2)),
        stats.trim_mean(cube.reshape(4, -1), 0.25, axis=1),
    )


def test_resamples_stay_within_their_task():
    scores = np.array([[0.0, 100.0], [1.0, 101.0], [2.0, 102.0]])
    means = statistics.stratified_bootstrap(scores, lambda s: s.mean(axis=1).min(axis=1), 200)
    assert means.max() <= 2.0
    assert np.unique(means).size > 3


def test_probability_of_improvement_is_the_mann_whitney_statistic():
    generator = np.random.default_rng(4)
    first = generator.integers(0, 5, size=(7, 2)).astype(float)
    second = generator.integers(0, 5, size=(9, 2)).astype(float)
    expected = np.mean(
        [stats.mannwhitneyu(first[:, t], second[:, t]).statistic / (7 * 9) for t in range(2)]
    )
    assert statistics.probability_of_improvement(first, second) == pytest.approx(expected)
    assert statistics.probability_of_improvement(first, first) == pytest.approx(0.5)


def test_performance_profile_by_hand():
    scores = np.array([[0.0, 2.0], [1.0, 3.0]])
    profile = statistics.performance_profile(scores, [-1.0, 0.5, 2.5, 3.0])
    np.testing.assert_allclose(profile, [1.0, 0.75, 0.25, 0.0])


def test_too_few_seeds_are_said():
    assert statistics.seeds_warning(10) is None
    assert "0.0625" in statistics.seeds_warning(5)
    assert "one seed" in statistics.seeds_warning(1)


def test_welchs_interval_is_scipys():
    first, second = [1.0, 4.0, 2.0, np.nan], [3.0, 3.5, 9.0, 1.0, 2.0]
    found = statistics.mean_difference(first, second)
    expected = stats.ttest_ind(first[:3], second, equal_var=False).confidence_interval()
    assert found.value == pytest.approx(np.mean(first[:3]) - np.mean(second))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert np.isnan(statistics.mean_difference([1.0], second).low)


def test_few_seeds_have_students_interval():
    few = statistics.seeds_interval([1.0, 2.0, 4.0])
    assert (few.low, few.high) == pytest.approx(
        stats.t.interval(0.95, 2, loc=7 / 3, scale=stats.sem([1.0, 2.0, 4.0]))
    )
    five = statistics.seeds_interval([1.0, 2.0, 4.0, 5.0, 90.0])
    assert five.value == pytest.approx(11 / 3)
    assert five == statistics.bootstrap_interval([1.0, 2.0, 4.0, 5.0, 90.0])


@pytest.mark.parametrize("seeds", [3, 4, 5, 6])
def test_intervals_of_few_seeds_cover(seeds):
    draws = np.random.default_rng(0).normal(size=(REPETITIONS, seeds))
    found = [statistics.seeds_interval(values) for values in draws]
    covered = np.mean([e.low <= 0 <= e.high for e in found])
    assert NOMINAL[0] <= covered <= NOMINAL[1]


def test_a_band_is_the_interval_at_each_point():
    curves = np.random.default_rng(3).normal(size=(8, 5)).cumsum(axis=1)
    value, low, high = statistics.bootstrap_band(curves)
    for place in range(5):
        point = statistics.bootstrap_interval(curves[:, place])
        assert (value[place], low[place], high[place]) == pytest.approx(
            (point.value, point.low, point.high)
        )
    value, low, high = statistics.bootstrap_band(curves[:1])
    assert (value == low).all() and (value == high).all()


def test_improvement_interval_tells_sure_from_open():
    sure = statistics.improvement_interval([5.0, 6.0, 7.0], [1.0, 2.0, 3.0])
    assert (sure.value, sure.low, sure.high) == (1.0, 1.0, 1.0)
    equal = statistics.improvement_interval([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert equal.value == pytest.approx(0.5)
    assert equal.low < 0.3
    assert equal.high > 0.7
    assert np.isnan(statistics.improvement_interval([1.0], [2.0, 3.0]).low)


def test_clusters_count_as_one_unit_each():
    values = np.random.default_rng(0).normal(size=30)
    alone = statistics.clustered_mean(values, np.arange(30))
    assert astuple(alone) == pytest.approx(astuple(statistics.mean_estimate(values)))
    # Everything five times over tells nothing new.
    told = statistics.clustered_mean(np.repeat(values, 5), np.repeat(np.arange(30), 5))
    assert astuple(told) == pytest.approx(astuple(alone))
    assert np.isnan(statistics.clustered_mean([1.0, 2.0], [7, 7]).low)
