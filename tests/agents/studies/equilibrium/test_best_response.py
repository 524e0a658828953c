import runpy
from pathlib import Path

import numpy as np
import pytest

from agents.studies.equilibrium import best_response as best_response_module
from agents.studies.equilibrium.anarchy import measure_anarchy
from agents.studies.equilibrium.best_response import (
    SearchPlan,
    best_response,
    iterated_best_responses,
    search_warning,
)
from agents.studies.equilibrium.decisions import block, search
from agents.studies.equilibrium.lineups import Payoffs
from marec_env.errors import ConfigError
from marec_env.evaluation.statistics import Estimate

PublicGoods = runpy.run_path(str(Path(__file__).with_name("public_goods.py")))["PublicGoods"]

TRAIN, HELD_OUT = np.arange(400), np.arange(1000, 1400)
PLAN = SearchPlan(TRAIN, HELD_OUT, budget=97, seeds=(0, 1, 2))
GAME = PublicGoods()


def test_closed_forms_are_stationary_and_below_the_optimum():
    game = PublicGoods(players=3, noise=0.0)
    x, best = game.equilibrium(), game.optimum()
    for i in range(3):
        for other in np.linspace(0, 1, 21):
            moved = x.copy()
            moved[i] = other
            assert game.mean_objectives(moved)[i] <= game.mean_objectives(x)[i] + 1e-12
    draws = np.random.default_rng(0).random((500, 3))
    assert game.mean_objectives(draws).sum(axis=-1).max() <= game.mean_objectives(best).sum()
    assert 0.5 < game.price_of_anarchy() < 1.0


def test_sessions_are_common_random_numbers():
    both = GAME.play(np.array([[0.2, 0.7], [0.2, 0.7]]), TRAIN)
    assert (both.team[0] == both.team[1]).all()
    assert both.team[0].std() > 0.1
    again = GAME.play(np.array([[0.2, 0.7]]), TRAIN[::-1].copy())
    assert (again.team[0][::-1] == both.team[0]).all()


def test_best_response_finds_the_known_gain_and_what_it_costs_the_team():
    game = PublicGoods(noise=0.05)
    at = game.optimum()
    response = best_response(game, 0, at, PLAN)
    reply = (game.benefit / 2 - game.crowding * at[1]) / game.cost
    moved = np.array([reply, at[1]])
    true = game.mean_objectives(moved) - game.mean_objectives(at)
    assert response.choice[0] == pytest.approx(reply, abs=0.03)
    assert response.gain.value == pytest.approx(true[0], abs=0.01)
    assert response.gain.low <= true[0] <= response.gain.high
    assert response.gain_team.value == pytest.approx(true.sum(), abs=0.02)
    assert response.gain_team.high < 0.0
    assert response.warning is None


def test_nobody_gains_at_the_equilibrium():
    for component in range(2):
        gain = best_response(GAME, component, GAME.equilibrium(), PLAN).gain
        assert gain.value < 0.005


def test_iterated_best_responses_settle_at_the_equilibrium_from_any_start():
    for start in (GAME.default(), np.ones(2)):
        stable = iterated_best_responses(GAME, start, PLAN)
        assert stable.settled
        assert stable.warning is None
        assert stable.decision == pytest.approx(GAME.equilibrium(), abs=0.06)
    shared = iterated_best_responses(GAME, GAME.default(), PLAN, own_share=0.0)
    assert shared.decision == pytest.approx(GAME.optimum(), abs=0.1)


class _Pennies:
    """Zero-sum chase without a pure equilibrium: play never settles."""

    components, dims = ("chaser", "runner"), (1, 1)

    def default(self):
        return np.zeros(2)

    def play(self, decisions, sessions):
        near = 1.0 - np.abs(decisions[:, 0] - decisions[:, 1])
        payoffs = np.stack([near, -near], axis=-1)[:, None].repeat(len(sessions), axis=1)
        return Payoffs(payoffs, payoffs.sum(axis=-1))


def test_cycling_play_is_reported_as_not_stable():
    stable = iterated_best_responses(_Pennies(), np.zeros(2), PLAN, max_rounds=3)
    assert not stable.settled
    assert "not stable after 3 rounds" in stable.warning


def test_warnings_name_the_reason():
    gain = Estimate(1.0, 0.95, 1.05, 0.025, 100)
    assert search_warning(gain, 0.95, (1.0, 1.0, 0.98), 1.0) is None
    assert "not settled" in search_warning(gain, 0.5, (1.0, 1.0, 1.0), 1.0)
    assert "seeds disagree" in search_warning(gain, 0.98, (1.0, 0.2, 0.1), 1.0)
    assert "fitted to its sessions" in search_warning(gain, 1.0, (1.0, 1.0, 1.0), 2.0)


def test_anarchy_is_measured_at_its_known_value_and_closes_with_shared_motives():
    game = PublicGoods(noise=0.1)
    starts = [game.default(), np.ones(2)]
    optimum, points = measure_anarchy(game, PLAN, [1.0, 0.5, 0.0], starts)
    assert optimum == pytest.approx(game.optimum(), abs=0.1)
    best = game.mean_objectives(game.optimum()).sum()
    assert points[0].means[0]["team"] == pytest.approx(best, abs=0.02)
    selfish, half, shared = (p.anarchy["team"] for p in points)
    assert selfish.value == pytest.approx(game.price_of_anarchy(), abs=0.01)
    assert half.value == pytest.approx(game.price_of_anarchy(0.5), abs=0.01)
    assert selfish.value < half.value < shared.value
    assert shared.value == pytest.approx(1.0, abs=0.01)
    assert points[0].stability["team"].value >= selfish.value


def test_play_that_has_not_settled_is_no_price_of_anarchy():
    """One start is far away and gets one round; the other is the equilibrium itself."""
    game = PublicGoods(noise=0.1)
    starts = [np.array([1.0, 1.0]), game.equilibrium()]
    _, (point,) = measure_anarchy(game, PLAN, [1.0], starts, max_rounds=1)
    assert [stable.settled for stable in point.stable] == [False, True]
    settled = point.means[2]["team"] / game.mean_objectives(game.optimum()).sum()
    for ratios in (point.anarchy, point.stability):
        assert ratios["team"].value == pytest.approx(settled, abs=0.01)


def test_best_responses_may_begin_at_the_optimum_as_well():
    game = PublicGoods(noise=0.1)
    _, (point,) = measure_anarchy(game, PLAN, [1.0], [game.default()], from_optimum=True)
    assert len(point.stable) == 2
    for stable in point.stable:  # the game has one equilibrium
        assert stable.decision == pytest.approx(game.equilibrium(), abs=0.06)


def test_every_round_searches_anew(monkeypatch):
    seen = []

    def recorded(score, budget, start, seed):
        seen.append(seed)
        return search(score, budget, start, seed)

    monkeypatch.setattr(best_response_module, "search", recorded)
    stable = iterated_best_responses(GAME, GAME.default(), PLAN)
    assert len(stable.history) > 1
    assert len(set(seen)) == len(PLAN.seeds) * len(stable.history)


class _Flipped(PublicGoods):
    """F of the training sessions is the opposite of that of the others: any optimum is false."""

    def play(self, decisions, sessions):
        outcome = super().play(decisions, sessions)
        if sessions[0] == TRAIN[0]:
            return Payoffs(outcome.objectives, -outcome.team, outcome.outcomes)
        return outcome


def test_an_optimum_below_stable_play_is_called_false():
    _, (point,) = measure_anarchy(_Flipped(noise=0.1), PLAN, [1.0], [GAME.default()])
    assert point.stability["team"].value > 1.0
    assert any("raise the budget or the sessions" in w for w in point.warnings)
    _, (fair,) = measure_anarchy(PublicGoods(noise=0.1), PLAN, [1.0], [GAME.default()])
    assert not any("raise the budget or the sessions" in w for w in fair.warnings)


def test_a_search_spends_exactly_its_budget_and_beats_the_start():
    calls = []

    def score(points):
        calls.append(len(points))
        assert ((points >= 0) & (points <= 1)).all()
        return -((points - np.array([0.3, 0.6, 0.9])) ** 2).sum(axis=1)

    start = np.full(3, 0.5)
    found = search(score, 60, start, 0)
    assert calls[0] == 1 and sum(calls) == 60
    assert score(found.best[None])[0] == found.value > -0.05
    assert -0.21 < score(found.half[None])[0] <= found.value
    again = search(score, 60, start, 0)
    assert (again.best == found.best).all()
    assert (search(score, 60, start, 1).best != found.best).any()
    with pytest.raises(ConfigError, match="at least 2"):
        search(score, 1, start, 0)


def test_mixtures_and_blocks():
    played = Payoffs(np.array([[[1.0, 3.0]]]), np.array([[10.0]]), {"clicks": np.array([[4.0]])})
    assert played.mixed(1, 0.25) == pytest.approx(0.25 * 3 + 0.75 * 10)
    assert played.mixed(0, 1.0) == 1.0
    assert played.values["team"] == 10.0
    assert played.values["clicks"] == 4.0
    assert block(PublicGoods(players=3), 2) == slice(2, 3)
