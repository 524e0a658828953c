"""RLlib's PPO with rollouts of whole teams: the configuration and the training step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)

from agents.learners.config import SamplingConfig
from agents.learners.env_runner import BatchedEnvRunner
from agents.learners.learner import TeamLearner
from agents.learners.rl_modules import FamilyConfig, multi_module_spec
from agents.learners.rollout_batch import RolloutBatch, concatenate
from agents.learners.team import TeamSpec
from marec_env.vector import VectorEnv

__all__ = ["TeamPPO", "rllib_config"]


class TeamPPO(PPO):
    """Synchronous: all runners sample ``[B, T]``, the learners update, actors are sent out."""

    def training_step(self) -> None:
        """Do one iteration; an iteration in which every runner died changes nothing."""
        self.last_batch: RolloutBatch | None = None
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            batches, results = synchronous_parallel_sample(
                worker_set=self.env_runner_group,
                concat=False,
                sample_timeout_s=self.config.sample_timeout_s,
                _uses_new_env_runners=True,
                _return_metrics=True,
            )
            if not batches:
                return
            self.metrics.aggregate(results, key=ENV_RUNNER_RESULTS)
        batch = concatenate(batches)
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            learner_results = self.learner_group.update(
                batch=batch,
                timesteps={
                    NUM_ENV_STEPS_SAMPLED_LIFETIME: self.metrics.peek(
                        (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME)
                    )
                },
            )
            self.metrics.aggregate(learner_results, key=LEARNER_RESULTS)
        with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
            self.env_runner_group.sync_weights(
                from_worker_or_learner_group=self.learner_group,
                policies=list(self.config.env_config["team"].actors),
                inference_only=True,
            )
        self.last_batch = batch


def rllib_config(
    algorithm: FamilyConfig,
    sampling: SamplingConfig,
    team: TeamSpec,
    factory: Callable[[int], VectorEnv],
    seed: int,
) -> PPOConfig:
    """Return RLlib's configuration of a run.

    RLlib's own PPO settings contradict MAPPO (λ 1, 30 epochs, clip 0.3, KL loss, no entropy); the
    learner reads ``algorithm`` instead, and the fields that RLlib shows are set to agree.
    """
    return (
        PPOConfig(algo_class=TeamPPO)
        .environment(
            env="marec-vector-env",
            env_config={
                "factory": factory,
                "team": team,
                "seed": seed,
                "rollout_length": sampling.rollout_length,
                "keep_next_observations": algorithm.critic_input != "state",
                "torch_threads": sampling.torch_threads,
            },
            disable_env_checking=True,
        )
        .multi_agent(
            policies=list(team.actors), policy_mapping_fn=_ActorOf(team), count_steps_by="env_steps"
        )
        .env_runners(
            env_runner_cls=BatchedEnvRunner,
            num_env_runners=sampling.num_env_runners,
            num_envs_per_env_runner=sampling.num_sessions,
            rollout_fragment_length=sampling.rollout_length,
            create_local_env_runner=True,
            validate_env_runners_after_construction=True,
        )
        .learners(
            learner_class=TeamLearner,
            learner_config_dict={"algorithm": algorithm, "team": team, "seed": seed},
            num_learners=sampling.num_learners,
            num_gpus_per_learner=sampling.gpus_per_learner,
        )
        .rl_module(rl_module_spec=multi_module_spec(algorithm, team))
        .training(
            lr=algorithm.learning_rate,
            gamma=algorithm.gamma,
            lambda_=algorithm.gae_lambda,
            clip_param=algorithm.clip,
            entropy_coeff=algorithm.entropy_coefficient,
            grad_clip=algorithm.max_gradient_norm,
            use_kl_loss=False,
            num_epochs=algorithm.epochs,
            minibatch_size=None,
            train_batch_size_per_learner=max(
                1, sampling.env_steps_per_iteration // max(1, sampling.num_learners)
            ),
        )
        .fault_tolerance(restart_failed_env_runners=True, ignore_env_runner_failures=True)
        .debugging(seed=seed, log_level="ERROR")
    )


class _ActorOf:
    """RLlib's mapping from agent to module, picklable."""

    def __init__(self, team: TeamSpec) -> None:
        self._of = {agent: team.actor_of(agent)[0] for agent in team.agents}

    def __call__(self, agent: str, *args: Any, **kwargs: Any) -> str:
        return self._of[agent]
