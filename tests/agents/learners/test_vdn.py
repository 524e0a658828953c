import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents.learners.config import SamplingConfig, VDNConfig
from agents.learners.policy import load_policy
from agents.learners.trainer import Trainer
from marec_env.errors import ConfigError, RunError
from marec_env.vector import VecStep
from tests.games import MatrixGame, two_step

SAMPLING = SamplingConfig(num_sessions=8, rollout_length=4)
CONFIG = VDNConfig(replay_size=100, minibatch_size=16, epsilon_env_steps=200)


def numbers(metrics):
    return {k: v for k, v in metrics.items() if not k.startswith("time/")}


def test_a_restored_run_continues_exactly_with_a_full_replay(tmp_path):
    one = Trainer(CONFIG, SAMPLING, 0, two_step)
    for _ in range(5):
        one.iterate()
    one.save(tmp_path / "c")
    expected = [numbers(one.iterate()) for _ in range(3)]
    other = Trainer(CONFIG, SAMPLING, 0, two_step)
    other.restore(tmp_path / "c")
    assert [numbers(other.iterate()) for _ in range(3)] == expected
    assert other._engine._replay["reward"].shape == (100,)
    one.save(tmp_path / "d")
    observations = two_step(3).reset(0).observations
    loaded = load_policy(tmp_path / "d").act(observations)
    for agent, action in one.policy().act(observations).items():
        assert torch.equal(action, loaded[agent])


def test_epsilon_falls_from_one_to_its_end():
    trainer = Trainer(CONFIG, SAMPLING, 0, two_step)
    seen = [trainer.iterate()["epsilon"] for _ in range(9)]
    assert seen[0] == 1.0 and seen == sorted(seen, reverse=True)
    assert seen[-1] == pytest.approx(0.05)


def test_the_greedy_policy_is_the_argmax_of_each_q():
    trainer = Trainer(CONFIG, SAMPLING, 0, lambda n: MatrixGame(torch.eye(3).unsqueeze(0), n))
    for _ in range(4):
        trainer.iterate()
    view = torch.ones(1, 1)
    nets = trainer._engine._nets
    for agent, action in trainer.policy().act(dict.fromkeys(nets, view)).items():
        assert int(action) == int(nets[agent].values(view).argmax())


def test_q_counts_in_the_replays_unit_of_reward_and_stays_when_that_moves():
    trainer = Trainer(CONFIG, SAMPLING, 0, lambda n: MatrixGame(torch.eye(3).unsqueeze(0), n))
    trainer.iterate()
    engine, view = trainer._engine, torch.ones(1, 1)
    assert float(engine._unit) == pytest.approx(
        float(engine._replay["reward"].square().mean().sqrt())
    )
    nets = [*engine._nets.values(), *engine._targets.values()]
    before, unit = [net.values(view) * engine._unit for net in nets], engine._unit
    engine._replay["reward"] *= 1000.0
    engine._move_unit()
    assert float(engine._unit) == pytest.approx(1000.0 * float(unit))
    for net, value in zip(nets, before, strict=True):
        torch.testing.assert_close(net.values(view) * engine._unit, value)


def test_unfit_teams_are_refused(mixed_team):
    with pytest.raises(ConfigError, match="discrete actions; 'a'"):
        Trainer(CONFIG, SAMPLING, 0, mixed_team)
    remote = SAMPLING.model_copy(update={"num_env_runners": 1})
    with pytest.raises(ConfigError, match="num_env_runners"):
        Trainer(CONFIG, remote, 0, two_step)


class Masked:
    """Two agents are paid for their highest allowed sub-actions; one acts at even steps only.

    Which are allowed changes from step to step and is observed. Episodes last five steps; of even
    sessions they are cut off, of odd ones they end by themselves.
    """

    def __init__(self, num_envs):
        self.num_envs = num_envs
        self.agents = ("plain", "pair")
        self.turns = (self.agents,)
        self.sizes = {"plain": [4], "pair": [3, 2]}
        self.observation_spaces = {
            a: spaces.Box(0, 1, (sum(n),), np.float32) for a, n in self.sizes.items()
        }
        self.action_spaces = {"plain": spaces.Discrete(4), "pair": spaces.MultiDiscrete([3, 2])}
        self.state_space = spaces.Box(0, 1, (1,), np.float32)

    def _draw(self):
        def part(n):
            mask = torch.rand(self.num_envs, n, generator=self.generator) < 0.5
            mask[torch.arange(self.num_envs), torch.randint(n, (self.num_envs,))] = True
            return mask

        self.masks = {a: [part(n) for n in sizes] for a, sizes in self.sizes.items()}

    def _result(self, rewards, ended):
        views = {a: torch.cat(m, dim=-1).float() for a, m in self.masks.items()}
        odd = torch.arange(self.num_envs) % 2 == 1
        state = torch.zeros(self.num_envs, 1)
        return VecStep(
            observations=views, state=state, rewards=rewards,
            terminated=ended & odd, truncated=ended & ~odd,
            final_state=state,
            final_observations={a: torch.zeros_like(v) for a, v in views.items()},
            active={"pair": torch.full((self.num_envs,), self.time % 2 == 0)},
            action_masks={"plain": self.masks["plain"][0], "pair": tuple(self.masks["pair"])},
        )  # fmt: skip

    def reset(self, seed):
        self.generator = torch.Generator().manual_seed(seed)
        self.time = 0
        self._draw()
        nothing = torch.zeros(self.num_envs)
        return self._result(dict.fromkeys(self.agents, nothing), nothing.bool())

    def observe(self, agent):
        return torch.cat(self.masks[agent], dim=-1).float()

    def act(self, actions):
        self.actions = actions

    def advance(self):
        rewards = {}
        for agent, masks in self.masks.items():
            action = self.actions[agent].view(self.num_envs, -1)
            best = [
                n - 1 - m.flip(-1).int().argmax(-1)
                for m, n in zip(masks, self.sizes[agent], strict=True)
            ]
            for part, mask in enumerate(masks):
                assert mask.gather(-1, action[:, part : part + 1]).all()
            rewards[agent] = (action == torch.stack(best, dim=-1)).float().mean(-1)
        if self.time % 2:
            rewards["pair"] = torch.zeros(self.num_envs)
        self.time = (self.time + 1) % 5
        ended = torch.full((self.num_envs,), self.time == 0)
        self._draw()
        return self._result(rewards, ended)

    def step(self, actions):
        self.act(actions)
        return self.advance()

    def close(self):
        pass


def test_masked_actions_are_neither_taken_nor_bootstrapped_from():
    """Every action is checked against its mask by the environment itself."""
    config = VDNConfig(
        epsilon_env_steps=4_000, learning_rate=3e-3, gamma=0.5, updates=16, minibatch_size=128
    )
    trainer = Trainer(config, SamplingConfig(num_sessions=32, rollout_length=5), 0, Masked)
    for _ in range(60):
        trainer.iterate()
    env = Masked(64)
    policy, step, earned = trainer.policy(), env.reset(7), []
    for time in range(5):
        step = env.step(policy.act(step.observations, action_masks=step.action_masks))
        earned.append(step.rewards["plain"].mean())
        if time % 2 == 0:
            earned.append(step.rewards["pair"].mean())
    assert float(torch.stack(earned).mean()) > 0.95
    # Nobody knows what was allowed where an episode was cut off: such steps are not replayed.
    replay = trainer._engine._replay
    assert replay["reward"].shape[0] == 60 * (32 * 5 - 16)
    assert replay["plain/next_mask"].shape == (replay["reward"].shape[0], 4)
    allowed = replay["pair/next_mask"].float().mean(dim=0)
    assert float(allowed.min()) > 0.3 and float(allowed.max()) < 1.0


def test_next_masks_and_activity_are_those_of_the_following_step():
    trainer = Trainer(CONFIG, SamplingConfig(num_sessions=4, rollout_length=3), 0, Masked)
    trainer.iterate()
    engine = trainer._engine
    replay = {k: v.view(4, 3, *v.shape[1:]) for k, v in engine._replay.items()}
    for agent in ("plain", "pair"):
        masks = replay[f"{agent}/next_mask"]
        assert torch.equal(masks[:, :-1].float(), replay[f"{agent}/observation"][:, 1:])
        assert torch.equal(masks[:, -1].float(), engine._collector.coming.observations[agent])
    assert replay["pair/active"][0].tolist() == [True, False, True]
    assert replay["pair/next_active"][0].tolist() == [False, True, False]


def test_recurrence_is_refused():
    with pytest.raises(ValueError, match="recurrent_units must be 0"):
        VDNConfig(network={"recurrent_units": 8})


def test_divergence_is_said():
    config = VDNConfig(learning_rate=1e30)
    trainer = Trainer(config, SamplingConfig(num_sessions=4, rollout_length=2), 0, two_step)
    with pytest.raises(RunError, match=r"diverged.*env step 8.*learning_rate \(1e\+30\)"):
        trainer.iterate()
