import numpy as np
import pytest

from agents.studies.equilibrium.best_response import nash_conv
from agents.studies.equilibrium.matrix import EstimatedGame, estimated_record
from agents.studies.equilibrium.normal_form import matrix_game
from agents.studies.records import plain


def _noisy(game, sessions, noise, common, seed=0):
    """Payoff samples around a known game; ``common`` noise is shared by all profiles."""
    generator = np.random.default_rng(seed)
    shape = (sessions, *game.payoffs.shape)
    shared = generator.normal(size=(sessions,) + (1,) * game.payoffs.ndim) * common
    payoffs = game.payoffs + shared + generator.normal(size=shape) * noise
    return EstimatedGame(payoffs, payoffs.sum(axis=1), game.players, game.labels)


def _record(*arguments, **options):
    return plain(estimated_record(*arguments, **options))


def test_common_noise_cancels_in_gains():
    game = matrix_game("penalty:-25")
    record = _record(_noisy(game, 400, noise=0.0, common=30.0), resamples=100)
    found = record["intervals"]
    assert found["nash_conv"]["value"] == pytest.approx(7.556, abs=1e-3)
    assert found["nash_conv"]["high"] - found["nash_conv"]["low"] < 1e-9
    assert record["uniform"]["gains"] == pytest.approx([3.778, 3.778], abs=1e-3)
    assert found["optimum_welfare"]["high"] - found["optimum_welfare"]["low"] > 1.0
    assert [e["share_of_resamples"] for e in record["support"]] == [1.0, 1.0, 1.0]
    played = [[list(weights) for weights in e["profile"].values()] for e in record["support"]]
    assert played == [[["0"], ["2"]], [["1"], ["1"]], [["2"], ["0"]]]


def test_doubt_about_an_equilibrium_shows_in_its_support():
    game = matrix_game("prisoners-dilemma:3.05")  # defecting gains 0.05, noise is far larger
    record = _record(_noisy(game, 50, noise=1.0, common=0.0), resamples=200)
    shares = {
        tuple(next(iter(weights)) for weights in e["profile"].values()): e["share_of_resamples"]
        for e in record["support"]
    }
    assert 0.0 < shares["cooperate", "cooperate"] < 1.0
    assert record["intervals"]["pure_anarchy"]["low"] < record["intervals"]["pure_anarchy"]["high"]


@pytest.mark.parametrize("actions", [(1, 1), None], ids=["equilibrium", "uniform"])
def test_nash_conv_is_zero_at_an_equilibrium_and_covers_the_truth(actions):
    """The plug-in estimate was .256 on average at an exact equilibrium, and covered it half the
    time.
    """
    values, covered = [], 0
    for seed in range(300):
        payoffs = np.random.default_rng(seed).normal(size=(60, 2, 5, 5))  # nobody gains anything
        sample = EstimatedGame(payoffs, payoffs.sum(axis=1), ("a", "b"), (tuple("01234"),) * 2)
        game = sample.mean_game()
        found = nash_conv(
            sample.deviations(game.uniform() if actions is None else game.pure(actions))
        )
        values.append(found.value)
        covered += found.low <= 0.0 <= found.high
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))
    assert covered >= 0.85 * len(values)  # .88 to .93 of 600 for four such games: see the docs


def test_deviations_are_those_of_the_mean_game():
    game = matrix_game("climbing")
    sample = _noisy(game, 20, noise=1.0, common=0.0)
    profile = [np.array([0.2, 0.3, 0.5]), np.array([0.6, 0.4, 0.0])]
    mean = sample.mean_game()
    for player, gains in enumerate(sample.deviations(profile)):
        best = max(gain.mean() for gain in gains)
        assert best == pytest.approx(mean.gains(profile)[player])


def test_what_is_told_of_a_measured_game_is_cross_fitted():
    """A deviation that gains 1 to one and nothing to the other, in noise."""
    payoffs = np.random.default_rng(5).normal(0.0, 0.1, size=(200, 2, 2, 3))
    payoffs[:, 0, 1] += 1.0
    sample = EstimatedGame(payoffs, payoffs.sum(axis=1), ("a", "b"), (("0", "1"), ("x", "y", "z")))
    record = _record(sample, [np.array([1.0, 0.0]), np.full(3, 1 / 3)], resamples=20)
    assert record["intervals"]["nash_conv"]["value"] == pytest.approx(1.0, abs=0.05)
    assert record["uniform"]["nash_conv"] == pytest.approx(0.5, abs=0.05)
    assert record["uniform"]["gains"][0] == pytest.approx(0.5, abs=0.05)
    assert record["uniform"]["exploitability"] == record["uniform"]["nash_conv"] / 2
