"""Components' actions in numbers of one kind: what they say, and that nothing else is changed."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

import marec_env
from agents import Recommender
from agents.baselines.teams import RandomTeam, StaticTeam, hand_set_actions
from agents.learners.config import SamplingConfig, VDNConfig
from agents.learners.trainer import Trainer
from agents.service.bundle import Bundle
from marec_env.errors import ConfigError
from marec_env.pipeline.actions import LEVELS, ActionCode
from tests.worlds import small_environment

CPU = torch.device("cpu")


def sessions(kind, count=5, rewards=None, **pipeline):
    section = {"candidates": 20, "slate_size": 5, "actions": kind, **pipeline}
    config = small_environment(60, 200, pipeline=section, rewards=rewards or {})
    return marec_env.make_vec(config, num_sessions=count)


def test_box_and_discrete_codes_by_hand():
    given = {
        "a": spaces.Box(np.array([0.0, -2.0], np.float32), np.array([1.0, 2.0], np.float32)),
        "b": spaces.MultiDiscrete([4, 2]),
        "c": spaces.Tuple([spaces.Discrete(3, start=5), spaces.Box(-1, 1, (1,))]),
    }
    box = ActionCode(given, "box", CPU)
    assert box.space == spaces.Box(-1.0, 1.0, (6,))
    low, high = box.decode(torch.tensor([[-1.0] * 6, [1.0] * 6]))["a"].tolist()
    assert (low, high) == ([0.0, -2.0], [1.0, 2.0])
    middle = box.decode(torch.tensor([[0.0, 0.5, -0.51, 0.01, 1.0, 7.0]]))
    assert middle["a"].tolist() == [[0.5, 1.0]]
    assert middle["b"].tolist() == [[0, 1]]
    assert [part.tolist() for part in middle["c"]] == [[7], [[1.0]]]
    assert box.encode(middle).tolist() == [[0.0, 0.5, -0.75, 0.5, pytest.approx(2 / 3), 1.0]]
    discrete = ActionCode(given, "discrete", CPU)
    assert discrete.space.nvec.tolist() == [LEVELS, LEVELS, 4, 2, 3, LEVELS]
    chosen = discrete.decode(torch.tensor([[0, LEVELS - 1, 3, 1, 2, 5]]))
    assert chosen["a"].tolist() == [[0.0, 2.0]]
    assert chosen["b"].tolist() == [[3, 1]]
    assert chosen["c"][0].tolist() == [7]
    assert chosen["c"][1].tolist() == [[0.0]]
    assert discrete.encode(chosen).tolist() == [[0, LEVELS - 1, 3, 1, 2, 5]]
    nearest = discrete.encode({**chosen, "a": torch.tensor([[0.34, -1.3]])})
    assert nearest[0, :2].tolist() == [3, 2]


@pytest.mark.parametrize("messages", ["none", "learned"])
@pytest.mark.parametrize("kind", ["box", "discrete"])
def test_the_environment_takes_one_kind_and_plays_what_it_says(kind, messages):
    coded = sessions(kind, messages={"kind": messages})
    plain = sessions("mixed", messages={"kind": messages})
    wanted = spaces.Box if kind == "box" else spaces.MultiDiscrete
    assert all(type(space) is wanted for space in coded.action_spaces.values())
    codes = {a: ActionCode({a: plain.action_spaces[a]}, kind, CPU) for a in plain.agents}
    random = RandomTeam(coded.action_spaces, seed=2)
    random.begin(coded.session_keys)
    step, same = coded.reset(0), plain.reset(0)
    for _ in range(8):
        actions = random.act(step.observations)
        decoded = {}
        for agent, code in codes.items():
            decoded |= code.decode(actions[agent])
        step, same = coded.step(actions), plain.step(decoded)
        assert torch.equal(step.state, same.state)
        for agent in plain.agents:
            assert torch.equal(step.rewards[agent], same.rewards[agent])
            assert torch.equal(step.observations[agent], same.observations[agent])


@pytest.mark.parametrize("kind", ["box", "discrete"])
def test_a_component_that_does_not_act_plays_its_default(kind):
    """The nearest that can be coded, also where a component is thought away."""
    env = sessions(kind, rewards={"mode": "difference"})
    step = env.step(env.default_actions())
    assert all(not bool(reward.any()) for reward in step.rewards.values())
    other = sessions(kind, rewards={"mode": "difference"})
    other.advance()
    assert torch.equal(env.state(), other.state())
    exact = sessions("mixed").pipeline
    for component in exact.components:
        near = env.pipeline._default(component)[0].to(torch.float32)
        wanted = component.default_action().to(torch.float32)
        off = (near - wanted).abs().max()
        assert off < (1e-6 if kind == "box" else 1.0 / (LEVELS - 1) + 1e-6), component.name


def test_what_does_not_fit_is_told_in_the_environments_numbers():
    env = sessions("discrete")
    with pytest.raises(ConfigError, match=r"ranking_0: action holds choices outside 0 \.\.\. 10"):
        env.step({"ranking_0": torch.full((5, 8), LEVELS)})
    view = marec_env.parallel_env(env.config)
    view.reset(seed=0)
    assert view.action_space("profile_0") == spaces.MultiDiscrete([LEVELS] * 5)
    view.step({agent: view.action_space(agent).sample() for agent in view.agents})


def test_vdn_trains_the_default_team():
    algorithm = VDNConfig(minibatch_size=16, replay_size=100)
    sampling = SamplingConfig(num_sessions=5, rollout_length=4)
    with pytest.raises(ConfigError, match=r"set environment\.pipeline\.actions: discrete"):
        Trainer(algorithm, sampling, 0, lambda n: sessions("mixed", n))
    trainer = Trainer(algorithm, sampling, 0, lambda n: sessions("discrete", n))
    before = trainer.policy().act(sessions("discrete").reset(0).observations)
    metrics = [trainer.iterate() for _ in range(3)]
    assert all(np.isfinite(value) for value in metrics[-1].values())
    after = trainer.policy().act(sessions("discrete").reset(0).observations)
    assert any(not torch.equal(before[a], after[a]) for a in before)


@pytest.mark.parametrize("kind", ["box", "discrete"])
def test_a_recommender_serves_it(kind):
    env = sessions(kind, 1)
    team = StaticTeam({**hand_set_actions(env), "recall_0": env.action_spaces["recall_0"].sample()})
    team.actions["recall_0"] = torch.as_tensor(team.actions["recall_0"])
    env.step(team.act({agent: env.observe(agent) for agent in env.agents}))
    past, liked = (row[0] for row in env.world.population.history.of(env.users.user_index))
    known = past >= 0
    found = Recommender(Bundle.of(env.world, team)).recommend(
        [env.world.catalog.ids[i] for i in past[known].tolist()],
        k=5,
        feedback=liked[known].tolist(),
    )
    shown = env.last.request.slate[0].tolist()
    assert [one.item for one in found] == [env.world.catalog.ids[i] for i in shown]
