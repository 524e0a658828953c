"""Learning on an environment that was not written here: mpe2's simple_spread."""

from __future__ import annotations

import pytest
import torch

from agents.learners.config import MAPPOConfig, SamplingConfig
from agents.learners.policy import TrainedPolicy
from agents.learners.trainer import Trainer
from agents.pettingzoo_adapter import PettingZooConfig, PettingZooVectorEnv, make_pettingzoo

pytestmark = pytest.mark.learning

SPREAD = PettingZooConfig(
    entry_point="mpe2.simple_spread_v3:parallel_env", kwargs={"max_cycles": 25}
)
EPISODE = 25  # env steps
ITERATIONS = 20  # 16,000 env steps, about 10 seconds of CPU a seed


def spread(num_envs: int) -> PettingZooVectorEnv:
    return make_pettingzoo(SPREAD, num_envs)


def returns(policy: TrainedPolicy | None, episodes: int = 64) -> torch.Tensor:
    """Return each episode's return, the mean over agents, of random play or of a policy's."""
    env = spread(episodes)
    step = env.reset(seed=1_000_003)
    generator = torch.Generator().manual_seed(0)
    for _ in range(EPISODE):
        actions = {
            agent: torch.randint(5, (episodes,), generator=generator) for agent in env.agents
        }
        if policy is not None:
            actions = policy.act(step.observations)
        step = env.step(actions)
    assert step.truncated.all()
    return step.episodes["return"]


def test_mappo_improves_clearly_over_random_play() -> None:
    torch.set_num_threads(1)
    config = MAPPOConfig(learning_rate=5e-3, critic_learning_rate=5e-3, share_parameters=True)
    sampling = SamplingConfig(num_sessions=32, rollout_length=EPISODE)
    at_random, gains = returns(None), []
    for seed in (0, 1):
        trainer = Trainer(config, sampling, seed, spread)
        for _ in range(ITERATIONS):
            trainer.iterate()
        # The same starting positions for both, so that differences are paired.
        gains.append(returns(trainer.policy()) - at_random)
    gain = torch.stack(gains).mean(dim=0)
    standard_error = float(gain.std()) / len(gain) ** 0.5
    # Measured: -24.1 at random; gains 4.6 and 5.4 (four seeds: 4.3 to 5.6), standard errors 0.9.
    assert float(gain.mean()) > max(3.0, 4.0 * standard_error)
