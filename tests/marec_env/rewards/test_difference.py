"""Mode difference: F less F had one component played its default, the users' luck unchanged."""

import torch

from marec_env.env import resolve
from marec_env.simulator import Simulator
from marec_env.world import build_world

SMALL = {"embeddings": {"encoder": "hashing", "reduction": {"dimension": 8}}}


def make(mode, sessions=32):
    config = {**SMALL, "rewards": {"mode": mode}}
    return Simulator(build_world(resolve(config)), sessions, autoreset=False)


def actions_of(simulator, number):
    source = torch.Generator().manual_seed(number)
    rows = simulator.num_envs
    return {
        **simulator.default_actions(),
        "recall_0": torch.randint(0, 4, (rows, 7), generator=source),
        "ranking_0": 2 * torch.rand(rows, 8, generator=source) - 1,
    }


def test_reward_is_team_less_replayed_team_under_common_random_numbers():
    simulator, shared = make("difference"), make("shared")
    for number in range(3):
        simulator.begin(torch.arange(32), 5)
        shared.begin(torch.arange(32), 5)
        for earlier in range(number):  # the same past
            simulator.step(actions_of(simulator, earlier))
            shared.step(actions_of(shared, earlier))
        past = shared.state_dict()
        actions = actions_of(simulator, number)
        step = simulator.step(actions)
        team = shared.step(actions).metrics["team_reward"]
        assert torch.equal(step.metrics["team_reward"], team)
        for agent in simulator.agents:
            shared.load_state_dict(past)
            replaced = {**actions, agent: shared.default_actions()[agent]}
            without = shared.step(replaced).metrics["team_reward"]
            assert torch.allclose(step.rewards[agent], team - without, atol=1e-6)
        assert float(step.rewards["ranking_0"].abs().max()) > 0


def test_who_plays_the_default_already_is_paid_nothing():
    simulator = make("difference")
    simulator.begin(torch.arange(32), 0)
    step = simulator.step(actions_of(simulator, 1))
    assert bool((step.rewards["profile_0"] == 0).all())
    assert bool((step.rewards["feature_0"] == 0).all())
    assert not bool((step.rewards["recall_0"] == 0).all())


def test_the_replay_leaves_no_trace():
    one, two = make("difference"), make("shared")
    one.begin(torch.arange(32), 3)
    two.begin(torch.arange(32), 3)
    for number in range(4):
        a, b = (simulator.step(actions_of(simulator, number)) for simulator in (one, two))
        assert torch.equal(a.state, b.state)
        assert torch.equal(one.last.slate, two.last.slate)
        assert torch.equal(one.last.feedback.clicks, two.last.feedback.clicks)


def test_whoever_speaks_is_charged_for_it():
    config = {
        **SMALL,
        "pipeline": {"messages": {"kind": "learned", "bandwidth_cost": 1.0}},
        "rewards": {"mode": "difference"},
    }
    simulator = Simulator(build_world(resolve(config)), 8)
    actions = simulator.default_actions()
    actions["profile_0"] = actions["profile_0"].clone()
    actions["profile_0"][:, -4:] = 0.5
    step = simulator.step(actions)
    assert torch.allclose(step.rewards["profile_0"], torch.full((8,), -0.5), atol=1e-6)
    assert bool((step.rewards["recall_0"] == 0).all())


def test_a_fixed_message_is_charged_against_that_of_the_default():
    config = {
        **SMALL,
        "pipeline": {"messages": {"kind": "fixed", "dim": 6, "bandwidth_cost": 1.0}},
        "rewards": {"mode": "difference", "weights": {}, "team": {"extra_cost": -1.0}},
    }
    simulator = Simulator(build_world(resolve(config)), 8)
    actions = simulator.default_actions()
    actions["feature_0"] = torch.zeros(8, 6, dtype=torch.int64)  # silent; the default says six ones
    assert simulator.step(actions).rewards["feature_0"].tolist() == [1.0] * 8


def test_who_did_not_act_made_no_difference():
    simulator = make("difference", 8)
    simulator.step(actions_of(simulator, 0))
    seen = simulator.pipeline.memory.seen
    slate = torch.stack([(~row).nonzero()[:10, 0] for row in seen])
    step = simulator.step_slate(slate)
    assert all(bool((reward == 0).all()) for reward in step.rewards.values())
    step = simulator.advance()
    assert all(bool((reward == 0).all()) for reward in step.rewards.values())
