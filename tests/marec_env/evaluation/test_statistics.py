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
    found = [statistics.paired_difference(a, b) for a, b in zip(first, second, strict=True)]
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


def test_interquartile_mean_equals_scipy():
    generator = np.random.default_rng(2)
    for count in (3, 4, 10, 11):
        scores = generator.normal(size=(5, count))
        expected = stats.trim_mean(scores, 0.25, axis=1)
        np.testing.assert_allclose(statistics.interquartile_mean(scores), expected)


def test_probability_of_improvement_is_the_mann_whitney_statistic():
    generator = np.random.default_rng(4)
    first = generator.integers(0, 5, size=7).astype(float)
    second = generator.integers(0, 5, size=9).astype(float)
    expected = stats.mannwhitneyu(first, second).statistic / (7 * 9)
    assert statistics.improvement_interval(first, second).value == pytest.approx(expected)
    assert statistics.improvement_interval(first, first).value == pytest.approx(0.5)


def test_too_few_seeds_are_said():
    assert statistics.seeds_warning(10) is None
    assert "0.0625; use 10" in statistics.seeds_warning(5)
    assert "skewed" in statistics.seeds_warning(4)
    assert "one seed" in statistics.seeds_warning(1)


@pytest.mark.parametrize(
    ("draw", "mean", "covered"),
    [
        (lambda g, size: g.normal(size=size), 0.0, (0.93, 0.96)),
        (lambda g, size: g.exponential(size=size), 1.0, (0.85, 0.90)),
        (lambda g, size: g.lognormal(size=size), np.exp(0.5), (0.81, 0.86)),
        (lambda g, size: g.random(size) < 0.5, 0.5, (0.73, 0.78)),
        (lambda g, size: g.random(size) < 0.2, 0.2, (0.46, 0.52)),
    ],
)
def test_what_three_seeds_cover_is_what_the_warning_says(draw, mean, covered):
    """Of skewed scores, and of runs that succeed or fail, less than 95 %."""
    scores = draw(np.random.default_rng(2), (4000, 3)).astype(float)
    found = [statistics.seeds_interval(values) for values in scores]
    assert covered[0] <= np.mean([e.low <= mean <= e.high for e in found]) <= covered[1]


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
    assert (five.low, five.high, five.count) == (1.0, 90.0, 5)


@pytest.mark.parametrize("seeds", [3, 4, 5, 6, 10, 60])
def test_intervals_of_few_seeds_cover(seeds):
    draws = np.random.default_rng(0).normal(size=(REPETITIONS, seeds))
    found = [statistics.seeds_interval(values) for values in draws]
    covered = np.mean([e.low <= 0 <= e.high for e in found])
    assert NOMINAL[0] <= covered <= NOMINAL[1]


def test_a_band_is_the_interval_at_each_point():
    curves = np.random.default_rng(3).normal(size=(8, 5)).cumsum(axis=1)
    value, low, high = statistics.bootstrap_band(curves)
    for place in range(5):
        point = statistics.seeds_interval(curves[:, place])
        assert (value[place], low[place], high[place]) == pytest.approx(
            (point.value, point.low, point.high)
        )
    value, low, high = statistics.bootstrap_band(curves[:1])
    assert (value == low).all() and (value == high).all()


def test_a_band_of_another_statistic_is_of_that_statistic():
    curves = np.array([[1.0, 8.0], [2.0, 8.0], [3.0, 8.0], [4.0, 8.0], [90.0, 8.0]])
    value, low, high = statistics.bootstrap_band(curves, lambda resamples: resamples.mean(axis=-1))
    assert value.tolist() == [20.0, 8.0]
    assert low[0] < 20.0 < high[0]
    assert (low[1], high[1]) == (8.0, 8.0)


def test_improvement_interval_tells_sure_from_open():
    sure = statistics.improvement_interval([5.0, 6.0, 7.0], [1.0, 2.0, 3.0])
    assert (sure.value, sure.high) == (1.0, 1.0)
    assert 0.3 < sure.low < 0.6  # three seeds each: not sure enough to have no width
    turned = statistics.improvement_interval([1.0, 2.0, 3.0], [5.0, 6.0, 7.0])
    assert (turned.value, turned.low) == (0.0, 0.0)
    assert turned.high == pytest.approx(1 - sure.low)
    equal = statistics.improvement_interval([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert equal.value == pytest.approx(0.5)
    assert equal.low < 0.3
    assert equal.high > 0.7
    assert np.isnan(statistics.improvement_interval([1.0], [2.0, 3.0]).low)


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("shift", [0.0, 1.6])
def test_improvement_intervals_of_few_seeds_cover(seeds, shift):
    """Percentiles of a bootstrap cover .75 to .93 here."""
    truth = stats.norm.cdf(shift / np.sqrt(2))
    draws = np.random.default_rng(1).normal(size=(REPETITIONS, 2, seeds))
    found = [statistics.improvement_interval(a + shift, b) for a, b in draws]
    covered = np.mean([e.low <= truth <= e.high for e in found])
    assert NOMINAL[0] <= covered <= NOMINAL[1]


def test_a_ratio_of_means_has_an_interval_over_sessions_redrawn_together():
    generator = np.random.default_rng(5)
    users = generator.gamma(4.0, 2.0, size=400)
    samples = {"a": np.stack([users, users * 3.0], axis=1), "b": 2.0 * users}

    def ratios(means):
        return {"sure": means["a"][1] / means["b"], "mean": means["b"], "none": np.nan}

    found = statistics.bootstrap_means(samples, ratios)
    # Sessions move together, so the ratio does not move at all.
    assert (found["sure"].low, found["sure"].high) == pytest.approx((1.5, 1.5))
    exact = statistics.mean_estimate(2.0 * users)
    assert found["mean"].low == pytest.approx(exact.low, rel=0.01)
    assert found["mean"].high == pytest.approx(exact.high, rel=0.01)
    assert np.isnan(found["none"].low)
    assert str(found["sure"]) == "1.500 [1.500, 1.500]"
    with pytest.raises(ValueError, match="different numbers of sessions"):
        statistics.bootstrap_means({"a": [1.0], "b": [1.0, 2.0]}, ratios)


def test_clusters_count_as_one_unit_each():
    values = np.random.default_rng(0).normal(size=30)
    alone = statistics.mean_estimate(values, np.arange(30))
    assert astuple(alone) == pytest.approx(astuple(statistics.mean_estimate(values)), nan_ok=True)
    # Everything five times over tells nothing new.
    told = statistics.mean_estimate(np.repeat(values, 5), np.repeat(np.arange(30), 5))
    assert astuple(told) == pytest.approx(astuple(alone), nan_ok=True)
    assert np.isnan(statistics.mean_estimate([1.0, 2.0], [7, 7]).low)


def test_what_is_undefined_is_null_in_json():
    assert statistics.Estimate(2.0).as_json("mean") == {"mean": 2.0, "low": None, "high": None}
    assert statistics.Estimate(2.0, 1.0, 4.0).as_json() == {"value": 2.0, "low": 1.0, "high": 4.0}
