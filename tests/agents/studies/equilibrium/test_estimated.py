import numpy as np
import pytest

from agents.studies.equilibrium.estimated import EstimatedGame, cross_fitted_gains, solve_estimated
from agents.studies.equilibrium.intervals import bootstrap, mean_interval
from agents.studies.equilibrium.matrix_games import matrix_game


def _noisy(game, sessions, noise, common, seed=0):
    """Payoff samples around a known game; ``common`` noise is shared by all profiles."""
    generator = np.random.default_rng(seed)
    shape = (sessions, *game.payoffs.shape)
    shared = generator.normal(size=(sessions,) + (1,) * game.payoffs.ndim) * common
    payoffs = game.payoffs + shared + generator.normal(size=shape) * noise
    return EstimatedGame(payoffs, payoffs.sum(axis=1), game.players, game.labels)


def test_common_noise_cancels_in_gains():
    game = matrix_game("penalty:-25")
    calm = solve_estimated(_noisy(game, 400, noise=0.0, common=30.0), resamples=100)
    nash_conv = calm.intervals["nash_conv"]
    assert nash_conv.value == pytest.approx(7.556, abs=1e-3)
    assert nash_conv.high - nash_conv.low < 1e-9
    assert calm.intervals["optimum_welfare"].high - calm.intervals["optimum_welfare"].low > 1.0
    assert calm.support == {(0, 2): 1.0, (1, 1): 1.0, (2, 0): 1.0}


def test_doubt_about_an_equilibrium_shows_in_its_support():
    game = matrix_game("prisoners-dilemma:3.05")  # defecting gains 0.05, noise is far larger
    solved = solve_estimated(_noisy(game, 50, noise=1.0, common=0.0), resamples=200)
    assert 0.0 < solved.support[(0, 0)] < 1.0
    assert solved.intervals["pure_anarchy"].low < solved.intervals["pure_anarchy"].high


def test_interval_covers_the_true_value_about_as_often_as_it_says():
    game = matrix_game("prisoners-dilemma")
    profile = game.uniform()
    truth = game.nash_conv(profile)
    covered = 0
    for seed in range(40):
        estimated = _noisy(game, 60, noise=1.0, common=0.0, seed=seed)
        interval = solve_estimated(estimated, profile, resamples=200).intervals["nash_conv"]
        covered += interval.low <= truth <= interval.high
    assert 33 <= covered <= 40  # 95 % of 40 is 38; a binomial leaves this range once in 1,500


def test_cross_fitting_takes_the_bias_out_of_the_best_of_many():
    generator = np.random.default_rng(0)
    naive, fitted = [], []
    for _ in range(60):
        payoffs = generator.normal(size=(40, 1, 25))  # nobody gains anything
        estimated = EstimatedGame(payoffs, payoffs[:, 0], ("p",), (tuple(map(str, range(25))),))
        naive.append(estimated.mean_game().gains(estimated.mean_game().pure((0,)))[0])
        fitted.append(cross_fitted_gains(estimated, (0,)).mean())
    assert np.mean(naive) > 0.25
    assert abs(np.mean(fitted)) < 4 * np.std(fitted) / np.sqrt(60)


def test_mean_interval_has_the_width_of_the_normal_one():
    values = np.random.default_rng(3).normal(2.0, 1.0, size=400)
    interval = mean_interval(values)
    half = 1.96 * values.std() / 20
    assert interval.value == pytest.approx(values.mean())
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.15)


def test_samples_of_different_sessions_are_refused():
    with pytest.raises(ValueError, match="different numbers"):
        bootstrap({"a": np.zeros(3), "b": np.zeros(4)}, lambda m: {"x": 0.0})
