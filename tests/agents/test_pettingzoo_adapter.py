import numpy as np
import pytest
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv

from agents.learners.config import IPPOConfig, MAPPOConfig, SamplingConfig
from agents.learners.trainer import Trainer
from agents.pettingzoo_adapter import PettingZooConfig, PettingZooVectorEnv, make_pettingzoo
from marec_env.errors import ConfigError
from marec_env.vector import VectorEnv


class Leaving(ParallelEnv):
    """Agent ``first`` terminates at step 2, ``second`` is truncated at step 4; masks and Dicts."""

    metadata = {"name": "leaving"}  # noqa: RUF012 - PettingZoo's form

    def __init__(self, both_terminate=False):
        self.possible_agents = ["first", "second"]
        self.both_terminate = both_terminate

    def observation_space(self, agent):
        box = spaces.Box(-9, 99, (2, 2), np.float32)
        if agent == "first":
            return spaces.Dict({"observation": box, "action_mask": spaces.Box(0, 1, (3,), np.int8)})
        return spaces.Dict({"grid": box, "flag": spaces.Discrete(2)})

    def action_space(self, agent):
        return spaces.Discrete(3) if agent == "first" else spaces.Box(-1, 1, (1,), np.float32)

    def _view(self, agent):
        grid = np.full((2, 2), self.time + self.start, np.float32)
        if agent == "first":
            return {"observation": grid, "action_mask": np.array([1, 0, 1], np.int8)}
        return {"grid": grid, "flag": 1}

    def reset(self, seed=None, options=None):
        assert seed is not None
        self.start = float(np.random.default_rng(seed).integers(10, 90))
        self.time = 0
        self.agents = list(self.possible_agents)
        return {a: self._view(a) for a in self.agents}, {a: {} for a in self.agents}

    def step(self, actions):
        assert set(actions) == set(self.agents)
        self.time += 1
        acted = list(self.agents)
        term = {a: (a == "first" and self.time == 2) for a in acted}
        last = self.time == 4
        trunc = {a: (a == "second" and last and not self.both_terminate) for a in acted}
        if self.both_terminate and last:
            term["second"] = True
        rewards = {a: 1.0 if a == "first" else 10.0 for a in acted}
        observations = {a: self._view(a) for a in acted}
        self.agents = [a for a in acted if not (term[a] or trunc[a])]
        return observations, rewards, term, trunc, {a: {} for a in acted}


def leaving(both_terminate=False):
    return Leaving(both_terminate)


def env(n=2, **kwargs):
    return PettingZooVectorEnv(lambda: Leaving(**kwargs), n)


ACTIONS = {"first": torch.tensor([0, 2]), "second": torch.tensor([[0.5], [-0.5]])}


def test_it_is_a_vector_env_with_flat_spaces():
    e = env()
    assert isinstance(e, VectorEnv)
    assert e.observation_spaces["first"].shape == (4,)
    assert e.observation_spaces["second"].shape == (6,)
    assert e.state_space.shape == (10,)
    step = e.reset(0)
    torch.testing.assert_close(
        step.state, torch.cat([step.observations["first"], step.observations["second"]], dim=-1)
    )
    assert step.action_masks["first"].tolist() == [[True, False, True]] * 2


class Stateful(Leaving):
    def state(self):
        return np.full(3, self.time, np.float32)


def test_the_critic_may_have_the_observations_instead_of_the_state():
    own = PettingZooVectorEnv(Stateful, 2).reset(0)
    assert own.state.shape == (2, 3)
    chosen = PettingZooVectorEnv(Stateful, 2, state="observations")
    step = chosen.reset(0)
    assert chosen.state_space.shape == (10,)
    torch.testing.assert_close(step.state, torch.cat(list(step.observations.values()), dim=-1))
    spread = PettingZooConfig(
        entry_point="mpe2.simple_spread_v3:parallel_env", state="observations"
    )
    assert not make_pettingzoo(spread, 1)._own_state


def test_agents_end_one_by_one_and_the_team_at_last():
    e = env()
    e.reset(0)
    steps = [e.step(ACTIONS) for _ in range(4)]
    ended = [(s.terminated | s.truncated).tolist() for s in steps]
    assert ended == [[False] * 2] * 3 + [[True] * 2]
    assert [s.agent_terminated["first"].tolist()[0] for s in steps] == [False, True, False, False]
    assert [s.agent_truncated["second"].tolist()[0] for s in steps] == [False] * 3 + [True]
    assert [s.active["first"].tolist()[0] for s in steps] == [True, False, False, True]
    assert [float(s.rewards["first"][0]) for s in steps] == [1.0, 1.0, 0.0, 0.0]
    assert bool(steps[3].truncated.all()) and not bool(steps[3].terminated.any())
    assert steps[3].episodes["length"].tolist() == [4.0, 4.0]
    assert steps[3].episodes["return"].tolist() == [21.0, 21.0]


def test_all_terminating_is_a_termination():
    e = env(both_terminate=True)
    e.reset(0)
    last = [e.step(ACTIONS) for _ in range(4)][-1]
    assert bool(last.terminated.all()) and not bool(last.truncated.any())


def test_final_observation_belongs_to_the_old_episode():
    e = env()
    first = e.reset(0).observations["second"][:, 2]
    last = [e.step(ACTIONS) for _ in range(4)][-1]
    torch.testing.assert_close(last.final_observations["second"][:, 2], first + 4.0)
    assert float(last.final_observations["first"].abs().max()) == 0.0
    assert not torch.equal(last.observations["second"][:, 2], first)


def test_episodes_are_seeded_apart_and_repeatably():
    def starts(seed, n):
        e = env(n)
        seen = [e.reset(seed).observations["second"][:, 2]]
        many = {"first": torch.zeros(n, dtype=torch.int64), "second": torch.zeros(n, 1)}
        for _ in range(2):
            seen.append([e.step(many) for _ in range(4)][-1].observations["second"][:, 2])
        return torch.stack(seen)

    assert torch.equal(starts(1, 6), starts(1, 6))
    assert torch.equal(starts(1, 6)[:, :3], starts(1, 3))
    assert not torch.equal(starts(1, 6), starts(2, 6))
    assert len(starts(1, 6).unique()) > 9


def test_a_state_dict_replays_the_running_episode():
    one = env()
    one.reset(3)
    for _ in range(6):
        one.step(ACTIONS)
    state = one.state_dict()
    other = env()
    other.reset(99)
    other.load_state_dict(state)
    for _ in range(6):
        a, b = one.step(ACTIONS), other.step(ACTIONS)
        assert torch.equal(a.state, b.state)
        assert torch.equal(a.episodes["return"], b.episodes["return"])
        assert a.active["first"].tolist() == b.active["first"].tolist()


def test_no_value_flows_past_an_agents_own_end():
    """With γ = λ = 1 and a critic of zeros, the advantage is what the agent still earns."""
    config = IPPOConfig(gamma=1.0, gae_lambda=1.0, normalise_advantages="none")
    trainer = Trainer(config, SamplingConfig(num_sessions=2, rollout_length=8), 0, env)
    learner = trainer._engine.learner
    for name in ("critic_first", "critic_second"):
        head = learner.module[name].net.head
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    torch.nn.init.constant_(learner.module["critic_second"].net.head.bias, 100.0)
    actors, _ = learner.prepare(trainer._engine.batch.sample()[0])
    first = actors["first"]["advantages"].view(2, 8)[0]
    second = actors["second"]["advantages"].view(2, 8)[0]
    assert first.tolist() == [2.0, 1.0, 0.0, 0.0] * 2
    # Truncation bootstraps: rewards to come, plus the final value, less the present one.
    assert second.tolist() == [40.0, 30.0, 20.0, 10.0] * 2


SPREAD = PettingZooConfig(
    entry_point="mpe2.simple_spread_v3:parallel_env", kwargs={"max_cycles": 25}
)


def test_mpe2_trains_and_continues_exactly(tmp_path):
    pytest.importorskip("mpe2")

    def make(n):
        return make_pettingzoo(SPREAD, n)

    def trainer():
        sampling = SamplingConfig(num_sessions=4, rollout_length=15)
        return Trainer(MAPPOConfig(share_parameters=True), sampling, 0, make)

    one = trainer()
    one.iterate()
    one.save(tmp_path / "c")
    expected = [one.iterate() for _ in range(2)][-1]
    other = trainer()
    other.restore(tmp_path / "c")
    got = [other.iterate() for _ in range(2)][-1]
    assert {k: v for k, v in got.items() if not k.startswith("time/")} == {
        k: v for k, v in expected.items() if not k.startswith("time/")
    }
    assert got["env_steps"] == 180


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"entry_point": "mpe2.nowhere:parallel_env"}, "cannot import"),
        ({"entry_point": "mpe2.simple_spread_v3:nothing"}, "has no 'nothing'"),
        ({"entry_point": "math:sqrt", "kwargs": {}}, "sqrt"),
        ({"entry_point": "mpe2.simple_spread_v3:env"}, "not a PettingZoo ParallelEnv"),
    ],
)
def test_bad_entry_points_are_named(changes, match):
    pytest.importorskip("mpe2")
    with pytest.raises(ConfigError, match=match):
        make_pettingzoo(SPREAD.model_copy(update=changes))


def test_bad_arguments_are_named():
    place = PettingZooConfig(
        entry_point="tests.agents.test_pettingzoo_adapter:leaving", kwargs={"speed": 3}
    )
    with pytest.raises(ConfigError, match="speed"):
        make_pettingzoo(place)


def passing_on(**kwargs):
    return leaving(**kwargs)


def test_bad_arguments_that_are_passed_on_are_named():
    place = PettingZooConfig(entry_point=f"{__name__}:passing_on", kwargs={"speed": 3})
    with pytest.raises(ConfigError, match=r"kwargs of .*speed"):
        make_pettingzoo(place)
