"""Controls keep a team's behaviour but not its link to the session it acts on."""

import pytest
import torch

from agents.studies.headroom import ShuffledObservations, frozen_mean, record_play
from marec_env import random
from marec_env.environment_config import EnvironmentConfig
from marec_env.simulator import Simulator
from marec_env.world import build_world

SESSIONS, SEED = 24, 5


class Echo:
    """Acts on what it sees: levels and weights follow the first number of each observation."""

    def __init__(self, simulator):
        self.defaults = simulator.default_actions()
        self.seen = []

    def reset(self):
        self.seen = []

    def act(self, observations):
        actions = {}
        for agent, observation in observations.items():
            self.seen.append((agent, observation))
            default = self.defaults[agent]
            signal = observation[:, 3:4]  # the latest click rate
            batch = default[:1].expand(observation.shape[0], -1)
            whole = (signal > 0.2).to(batch.dtype)
            actions[agent] = batch * (signal if batch.is_floating_point() else whole)
        return actions


@pytest.fixture(scope="module", params=[False, True], ids=["parallel", "sequential"])
def world(request):
    return build_world(
        EnvironmentConfig.model_validate(
            {
                "max_requests": 6,
                "embeddings": {"encoder": "hashing", "cache": False},
                "pipeline": {"sequential": request.param},
            },
            strict=False,
        )
    )


@pytest.fixture
def team(world):
    return Echo(Simulator(world, 1))


def test_record_holds_only_requests_of_running_sessions(world, team):
    play = record_play(world, team, SESSIONS, SEED)
    sizes = [len(seen["recall_0"]) for seen in play.observations]
    assert sizes[0] == SESSIONS and sizes == sorted(sizes, reverse=True)
    assert sizes == [len(levels) for (levels,) in play.actions["recall_0"]]
    assert set(play.observations[0]) == set(play.actions)


def test_frozen_mean_is_the_mean_of_what_was_done(world, team):
    play = record_play(world, team, SESSIONS, SEED)
    frozen = frozen_mean(play)
    signals = torch.cat([seen["profile_0"][:, 3] for seen in play.observations])
    default = team.defaults["profile_0"][0]
    assert torch.allclose(frozen.actions["profile_0"], default * signals.mean(), atol=1e-5)
    share = (torch.cat([s["recall_0"][:, 3] for s in play.observations]) > 0.2).double().mean()
    levels = frozen.actions["recall_0"]
    assert levels.dtype == torch.int64
    assert levels.tolist() == [round(float(share))] * len(levels)


def test_shuffled_team_sees_one_foreign_session_of_the_same_request(world, team):
    play = record_play(world, team, SESSIONS, SEED)
    shuffled = ShuffledObservations(team, play, seed=1)
    simulator = Simulator(world, SESSIONS, autoreset=False)
    simulator.begin(torch.arange(SESSIONS), SEED)
    shuffled.reset()
    shuffled.begin(simulator.session_keys)
    for request in range(3):
        team.seen = []
        for turn in simulator.turns:
            simulator.act(shuffled.act({agent: simulator.observe(agent) for agent in turn}))
        simulator.advance()
        origin = {}
        for agent, seen in team.seen:
            recorded = play.observations[request][agent]
            same = (seen.unsqueeze(1) == recorded.unsqueeze(0)).all(2)
            assert bool(same.any(1).all()), "every row was recorded at this request number"
            origin[agent] = same
        shared = torch.stack(list(origin.values())).all(0)
        assert bool(shared.any(1).all()), "one other session for all components"


def test_shuffling_is_by_session_whatever_the_batch(world, team):
    play = record_play(world, team, SESSIONS, SEED)
    keys = random.session_keys(9, torch.arange(SESSIONS))

    def rows(keys, seed=1):
        shuffled = ShuffledObservations(team, play, seed)
        shuffled.reset()
        shuffled.begin(keys)
        team.seen = []
        shuffled.act({agent: seen[: len(keys)] for agent, seen in play.observations[0].items()})
        return team.seen[0][1]

    assert torch.equal(rows(keys), rows(keys))
    assert torch.equal(rows(keys)[:3], rows(keys[:3]))
    assert not torch.equal(rows(keys), rows(random.session_keys(10, torch.arange(SESSIONS))))
    assert not torch.equal(rows(keys), rows(keys, seed=2))
