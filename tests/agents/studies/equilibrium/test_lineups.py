import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents.studies.equilibrium.best_response import (
    SearchPlan,
    best_response,
    iterated_best_responses,
)
from agents.studies.equilibrium.credit import measure_credit, swap_test
from agents.studies.equilibrium.decisions import PipelineGame, coordinates, decode, encode
from agents.studies.equilibrium.exploitability import FrozenOthers
from agents.studies.equilibrium.lineups import play_lineups
from marec_env.errors import ConfigError
from marec_env.vector import VectorEnv

SESSIONS = np.arange(40)


def _team(constant, p, r):
    return constant(profile_0=[float(p)], recall_0=[r, r])


@pytest.mark.parametrize("sequential", [False, True])
def test_lineups_play_the_same_sessions_whoever_plays_beside_them(tiny, constant, sequential):
    env = tiny(sequential=sequential)
    good, bad = _team(constant, 2, 3), _team(constant, 0, 0)
    crossed = {"profile_0": good, "recall_0": bad}
    together = play_lineups(
        env, [dict.fromkeys(env.agents, good), crossed, dict.fromkeys(env.agents, bad)], SESSIONS
    )
    alone = play_lineups(env, [crossed], SESSIONS)
    assert (together.team[1] == alone.team[0]).all()
    assert (together.objectives[1] == alone.objectives[0]).all()
    # Leaving is luck, so all line-ups have the same lengths; profile is paid p a request.
    length = together.outcomes["length"]
    assert (length == length[0]).all()
    assert length.min() >= 1
    assert length.max() == 6
    assert length.std() > 0
    assert together.objectives[0, :, 0] == pytest.approx(2.0 * length[0])
    assert together.objectives[1, :, 1] == pytest.approx(-0.5 * length[0])
    assert together.objectives.shape == (3, 40, 2)


def test_nothing_is_counted_after_a_session_ended(tiny, constant):
    env = tiny()
    outcome = play_lineups(env, [dict.fromkeys(env.agents, _team(constant, 1, 0))], SESSIONS)
    per_request = outcome.objectives[0, :, 0] / outcome.outcomes["length"][0]
    assert per_request == pytest.approx(np.ones(40))


SPACES = [
    spaces.Box(np.array([-1.0, 2.0], np.float32), np.array([1.0, 8.0], np.float32)),
    spaces.Discrete(5, start=2),
    spaces.MultiDiscrete([2, 4, 3]),
    spaces.Tuple([spaces.Discrete(3), spaces.Box(0.0, 1.0, (2,), np.float32)]),
]


@pytest.mark.parametrize("space", SPACES, ids=lambda s: type(s).__name__)
def test_points_of_the_cube_are_actions_and_back(space):
    generator = np.random.default_rng(0)
    for point in [*generator.random((50, coordinates(space))), np.ones(coordinates(space))]:
        action = decode(space, point)
        parts = action if isinstance(action, tuple) else (action,)
        inner = space.spaces if isinstance(space, spaces.Tuple) else (space,)
        for part, where in zip(parts, inner, strict=True):
            assert where.contains(part.numpy().astype(where.dtype) if part.ndim else int(part))
        again = decode(space, encode(space, action))
        again = again if isinstance(again, tuple) else (again,)
        for left, right in zip(parts, again, strict=True):
            assert torch.allclose(left, right, atol=1e-5)


def test_every_level_gets_an_equal_share_of_its_coordinate():
    grid = (np.arange(400) + 0.5) / 400
    levels = [int(decode(spaces.Discrete(4), np.array([u]))) for u in grid]
    assert np.bincount(levels).tolist() == [100] * 4


def test_unsearchable_spaces_are_refused():
    with pytest.raises(ConfigError, match="bounded"):
        coordinates(spaces.Box(-np.inf, np.inf, (2,)))
    with pytest.raises(ConfigError, match="known"):
        coordinates(spaces.Text(3))


def test_pipeline_game_starts_at_the_defaults_and_finds_selfish_play(tiny):
    env = tiny()
    game = PipelineGame(env)
    assert game.dims == (1, 2)
    actions = game.actions(game.default())
    assert actions["profile_0"].tolist() == pytest.approx([0.5])
    assert actions["recall_0"].tolist() == [1, 1]
    plan = SearchPlan(np.arange(50), np.arange(100, 150), budget=49, seeds=(0,))
    stable = iterated_best_responses(game, game.default(), plan)
    played = game.actions(stable.decision)
    assert stable.settled
    assert played["profile_0"].item() == pytest.approx(2.0, abs=0.05)
    assert played["recall_0"].tolist() == [3, 3]


def test_objectives_per_request(tiny):
    env = tiny()
    session = PipelineGame(env).play(np.array([[0.5, 0, 0]]), SESSIONS)
    request = PipelineGame(env, per="request").play(np.array([[0.5, 0, 0]]), SESSIONS)
    assert request.objectives[0, :, 0] == pytest.approx(np.full(40, env.max_requests))
    length = session.outcomes["length"]
    assert request.team == pytest.approx(session.team), "staying is part of F"
    assert (request.outcomes["length"] == length).all()


def test_many_candidates_are_played_in_batches_with_the_same_result(tiny, monkeypatch):
    env = tiny()
    game = PipelineGame(env)
    points = np.random.default_rng(0).random((7, 3))
    whole = game.play(points, SESSIONS)
    monkeypatch.setattr("agents.studies.equilibrium.decisions.ROWS", 80)
    parts = PipelineGame(env).play(points, SESSIONS)
    assert (whole.team == parts.team).all()
    assert (whole.outcomes["clicks"] == parts.outcomes["clicks"]).all()


def test_points_of_one_decision_are_simulated_once(tiny, monkeypatch):
    env = tiny()
    game = PipelineGame(env)
    point = np.array([0.4, 0.3, 0.9])
    same, other = point.copy(), point.copy()
    same[2] = 0.91  # the same choice of recall
    other[0] = 0.41
    simulated = []

    def counted(env, lineups, sessions, **options):
        simulated.append(len(lineups))
        return play_lineups(env, lineups, sessions, **options)

    monkeypatch.setattr("agents.studies.equilibrium.decisions.play_lineups", counted)
    first = game.play(np.stack([point, same, other]), SESSIONS)
    assert (first.team[0] == first.team[1]).all()
    assert (first.team[0] != first.team[2]).any()
    again = game.play(np.stack([other, same]), SESSIONS)
    assert (again.team == first.team[[2, 1]]).all()
    assert simulated == [2]
    assert (game.play(point[None], SESSIONS[:3]).team == first.team[:1, :3]).all()
    assert simulated == [2, 1], "other sessions are other play"


def test_credit_of_a_trained_team(tiny, constant):
    env = tiny()
    default = constant(**{a: v.tolist() for a, v in env.defaults.items()})
    team = _team(constant, 0.5, 3)  # profile plays its default: it does nothing
    credits = measure_credit(env, team, default, SESSIONS)
    credit, clicks = credits["team"], credits["clicks"]
    assert credit.shapley[0].value == 0.0
    assert credit.difference[0].value == 0.0
    assert credit.shapley[1].value > 0.0
    assert sum(s.value for s in credit.shapley) == pytest.approx(credit.total.value, abs=1e-9)
    assert clicks.shapley[1].value > 0.0
    assert list(clicks.worth) == ["nobody", "recall_0", "profile_0", "profile_0+recall_0"]


def test_swaps_change_only_what_the_donor_does_differently(tiny, constant):
    env = tiny()
    teams = {"a": _team(constant, 1, 3), "b": _team(constant, 1, 1)}
    changes = swap_test(env, teams, SESSIONS)["team"]
    assert changes["profile_0"]["a", "b"].value == 0.0
    assert changes["recall_0"]["a", "b"].high < 0.0
    assert changes["recall_0"]["b", "a"].low > 0.0
    assert changes["recall_0"]["a", "a"].value == 0.0


@pytest.mark.parametrize("component", ["profile_0", "recall_0"])
@pytest.mark.parametrize("sequential", [False, True])
def test_frozen_others_is_an_environment_of_one_component(tiny, constant, component, sequential):
    partners = _team(constant, 2, 3)
    env = FrozenOthers(tiny(8, sequential), component, partners)
    assert isinstance(env, VectorEnv)
    first = env.reset(0)
    assert list(first.observations) == [component]
    mine = {"profile_0": torch.ones(8, 1), "recall_0": torch.zeros(8, 2, dtype=torch.int64)}
    step = env.step({component: mine[component]})
    reference = tiny(8, sequential)
    reference.reset(0)
    theirs = partners.act({a: torch.zeros(8, 2) for a in reference.agents})
    expected = reference.step({**theirs, component: mine[component]})
    assert (step.metrics["team_reward"] == expected.metrics["team_reward"]).all()
    assert (step.rewards[component] == expected.metrics[f"objective/{component}"]).all()
    if sequential and component == "recall_0":
        assert (step.observations[component][:, 0] == 2.0).all()  # sees what the profile did
    shared = FrozenOthers(tiny(8, sequential), component, partners, own_share=0.0)
    shared.reset(0)
    paid = shared.step({component: mine[component]})
    assert (paid.rewards[component] == expected.metrics["team_reward"]).all()


def test_frozen_others_refuses_unknown_components(tiny, constant):
    with pytest.raises(ConfigError, match="recall_0"):
        FrozenOthers(tiny(), "recall", _team(constant, 1, 1))


def test_best_response_against_frozen_partners_has_the_known_gain(tiny, constant):
    env = tiny()
    game = PipelineGame(env, per="request")
    plan = SearchPlan(np.arange(50), np.arange(100, 150), budget=49, seeds=(0, 1))
    response = best_response(game, 0, game.default(), plan)
    full = env.max_requests
    assert response.gain.value == pytest.approx(1.5 * full, abs=0.05 * full)
    # F is a sum over the session: 0.75 of what p gains, for as long as each session lasts.
    length = game.play(game.default()[None], plan.held_out).outcomes["length"].mean()
    assert response.gain_team.value == pytest.approx(0.75 * 1.5 * length, rel=0.05)
