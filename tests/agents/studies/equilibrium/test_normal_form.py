import itertools

import numpy as np
import pytest

from agents.studies.equilibrium.normal_form import (
    ENUMERATION_LIMIT,
    NormalFormGame,
    efficiency,
    find_equilibria,
    matrix_game,
    undominated,
)
from marec_env.errors import ConfigError


@pytest.mark.parametrize(("k", "expected"), [(0, 1.778), (-25, 7.556), (-100, 40.889)])
def test_nash_conv_of_uniform_play_in_the_penalty_game(k, expected):
    game = matrix_game(f"penalty:{k}")
    assert game.nash_conv(game.uniform()) == pytest.approx(expected, abs=5e-4)
    assert game.gains(game.uniform()) == pytest.approx([expected / 2] * 2, abs=5e-4)


@pytest.mark.parametrize("k", [0, -25, -100])
def test_penalty_equilibria_are_listed_and_unexploitable(k):
    game = matrix_game(f"penalty:{k}")
    assert game.pure_equilibria() == [(0, 2), (1, 1), (2, 0)]
    found = find_equilibria(game)
    assert found.complete
    assert len(found.profiles) >= 3
    for profile in found.profiles:
        assert game.nash_conv(profile) < 1e-8
    assert game.nash_conv(game.pure((0, 0))) == pytest.approx(2 * (10 - k))


def _brute_force(game):
    """All equilibria of a nondegenerate 2-player game from indifference on equal supports."""
    found = []
    supports = [
        [s for r in range(1, n + 1) for s in itertools.combinations(range(n), r)]
        for n in game.shape
    ]
    for rows, columns in itertools.product(*supports):
        if len(rows) != len(columns):
            continue
        size = len(rows)
        profile = []
        for values, own in (
            (game.payoffs[1][np.ix_(rows, columns)].T, (0, rows)),
            (game.payoffs[0][np.ix_(rows, columns)], (1, columns)),
        ):
            system = np.block(
                [[values, -np.ones((size, 1))], [np.ones((1, size)), np.zeros((1, 1))]]
            )
            if abs(np.linalg.det(system)) < 1e-12:
                break
            weights = np.linalg.solve(system, np.eye(size + 1)[-1])[:-1]
            if (weights <= 0).any():
                break
            player, actions = own
            whole = np.zeros(game.shape[player])
            whole[list(actions)] = weights
            profile.append(whole)
        if len(profile) == 2 and game.nash_conv(profile) < 1e-9:
            found.append(profile)
    return found


def test_random_games_have_exactly_the_equilibria_of_an_independent_enumeration():
    generator = np.random.default_rng(0)
    for _ in range(20):
        shape = tuple(generator.integers(2, 5, size=2))
        game = NormalFormGame(generator.normal(size=(2, *shape)))
        expected, found = _brute_force(game), find_equilibria(game)
        assert found.complete
        assert not found.degenerate
        assert len(found.profiles) == len(expected)
        for profile in expected:
            assert any(
                all(np.allclose(a, b, atol=1e-5) for a, b in zip(profile, other, strict=True))
                for other in found.profiles
            )


def test_degenerate_game_says_so_and_lists_the_ends_of_the_continuum():
    # Row 0 and row 1 are the same to both: every mixture of them with column 0 is an equilibrium.
    game = NormalFormGame(np.array([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]]]))
    found = find_equilibria(game)
    assert found.degenerate
    assert any("degenerate" in note for note in found.notes)
    ends = {tuple(np.round(p[0], 6)) for p in found.profiles}
    assert {(1.0, 0.0), (0.0, 1.0)} <= ends


def test_large_games_are_marked_incomplete_unless_dominance_shrinks_them():
    size = ENUMERATION_LIMIT // 2 + 1
    large = NormalFormGame(np.random.default_rng(1).normal(size=(2, size, size)))
    found = find_equilibria(large)
    assert not found.complete
    assert "only pure equilibria" in found.notes[0]
    assert len(found.profiles) == len(large.pure_equilibria())
    dilemma_like = np.add.outer(np.arange(size, dtype=float), np.zeros(size))
    shrunk = NormalFormGame(np.stack([dilemma_like, dilemma_like.T]))
    assert undominated(shrunk) == [[size - 1], [size - 1]]
    assert find_equilibria(shrunk).complete


def test_gains_by_hand():
    # Row is paid the sum of both choices, column their product; actions 0, 1 and 0, 1, 2.
    rows, columns = np.indices((2, 3))
    game = NormalFormGame(np.stack([rows + columns, rows * columns]).astype(float))
    assert game.gains(game.pure((0, 0))) == pytest.approx([1, 0])
    assert game.gains(game.pure((1, 0))) == pytest.approx([0, 2])
    assert game.expected(game.uniform()) == pytest.approx([1.5, 0.5])
    assert game.gains(game.uniform()) == pytest.approx([0.5, 0.5])
    assert game.pure_equilibria() == [(1, 2)]
    assert game.social_optimum() == ((1, 2), 5.0)
    one = NormalFormGame(game.payoffs[:, :1])
    assert find_equilibria(one).complete
    assert len(find_equilibria(one).profiles) == 3


def test_price_of_anarchy_and_stability():
    dilemma = matrix_game("prisoners-dilemma")
    assert efficiency(dilemma, find_equilibria(dilemma).profiles) == pytest.approx((1 / 3, 1 / 3))
    hunt = NormalFormGame(np.array([[[4.0, 0.0], [3.0, 3.0]], [[4.0, 3.0], [0.0, 3.0]]]))
    anarchy, stability = efficiency(hunt, find_equilibria(hunt).profiles)
    assert stability == pytest.approx(1.0)
    assert anarchy == pytest.approx(6 / 8)
    pennies = matrix_game("matching-pennies")
    assert efficiency(pennies, find_equilibria(pennies).profiles) == (None, None)
    assert efficiency(dilemma, []) == (None, None)


def test_welfare_may_be_an_outcome_other_than_the_sum():
    game = matrix_game("prisoners-dilemma")
    clicks = np.array([[1.0, 2.0], [2.0, 10.0]])
    weighed = NormalFormGame(game.payoffs, clicks)
    assert weighed.social_optimum() == ((1, 1), 10.0)
    assert weighed.expected_welfare(weighed.uniform()) == pytest.approx(3.75)


def test_bad_games_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'penalty'"):
        matrix_game("penalt:3")
    with pytest.raises(ConfigError, match="not a number"):
        matrix_game("penalty:minus")
    for number in ("nan", "inf", "-1e7"):
        with pytest.raises(ConfigError, match="not between"):
            matrix_game(f"penalty:{number}")
