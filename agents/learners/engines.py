"""What the trainer drives: an engine does one iteration and knows its state."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch

from agents.learners.cloning import clone
from agents.learners.collector import Collector, Rollout
from agents.learners.config import PPOFamily, SamplingConfig
from agents.learners.networks import Actor
from agents.learners.ray_session import check_local_gpus
from agents.learners.team import TeamSpec
from marec_env.config import usable_device
from marec_env.errors import RunError
from marec_env.vector import VectorEnv

if TYPE_CHECKING:
    from agents.learners.learner import TeamLearner
    from agents.learners.rl_modules import RolloutBatch


class Engine(Protocol):
    """One algorithm at work on one environment."""

    @property
    def team(self) -> TeamSpec:
        """Agents and their actors."""
        ...

    def iterate(self, env_steps_done: int) -> dict[str, float]:
        """Gather experience and learn from it once.

        Returns:
            metrics, among them ``env_steps`` and ``agent_steps`` of this iteration.
        """
        ...

    def actors(self) -> dict[str, Actor]:
        """Return the current actors by name."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all that an exact continuation needs."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        ...

    def load_networks(self, state: Mapping[str, Any]) -> None:
        """Take over the networks alone from what another run's :meth:`state_dict` returned."""
        ...

    def close(self) -> None:
        """Release processes and environments."""
        ...


def iteration_metrics(
    gathered: Rollout, start: float, sampled: float, **learnt: float
) -> dict[str, float]:
    """Return what an iteration of a local engine reports.

    Args:
        gathered: a rollout.
        start: seconds at which sampling began.
        sampled: seconds at which it ended, and learning began, which ends now.
        learnt: numbers of the learner.
    """
    return {
        **gathered.metrics,
        **learnt,
        "env_steps": float(gathered.env_steps),
        "agent_steps": float(gathered.decisions),
        "time/sample_s": sampled - start,
        "time/update_s": time.perf_counter() - sampled,
    }


class SeedBatch:
    """Independent teams, one a seed, that play side by side in one environment and learn each by
    itself with RLlib's learner, in this process and without starting Ray; exactly repeatable.

    A step of the environment serves all of them, and on CUDA the updates of one do not wait for
    those of another.
    """

    def __init__(
        self, algorithm: PPOFamily, sampling: SamplingConfig, seeds: Sequence[int],
        env_factory: Callable[[int], VectorEnv],
    ) -> None:  # fmt: skip
        from agents.learners.algorithm import rllib_config
        from agents.learners.learner import TeamLearner

        check_local_gpus(sampling)
        if sampling.torch_threads is not None:
            torch.set_num_threads(sampling.torch_threads)
        device = usable_device("sampling.device", sampling.device or "cpu")
        if device.type == "cpu" and sampling.gpus_per_learner:
            device = torch.device("cuda:0")
        env = env_factory(len(seeds) * sampling.num_sessions)
        self.team = TeamSpec.of(env, algorithm.share_parameters)
        self.engines = [LocalEngine(self, place) for place in range(len(seeds))]
        self.learners = []
        for seed in seeds:
            config = rllib_config(algorithm, sampling, self.team, env_factory, seed)
            # RLlib would start Ray to find a device.
            config.learners(num_gpus_per_learner=0)
            config.learner_config_dict["device"] = device
            # RLlib seeds every global generator; the process that calls us keeps its own.
            with torch.random.fork_rng(devices=[]):
                self.learners.append(TeamLearner(config=config, module_spec=config.rl_module_spec))
                self.learners[-1].build()
        several = device.type == "cuda" and len(seeds) > 1
        self._streams = [torch.cuda.Stream(device) if several else None for _ in seeds]  # type: ignore[no-untyped-call]
        self.collector = Collector(
            env, self.team, [engine.actors() for engine in self.engines], seeds,
            keep_next_observations=algorithm.critic_input != "state",
        )  # fmt: skip
        self._algorithm, self._sampling, self._seeds = algorithm, sampling, tuple(seeds)
        self._env_factory = env_factory

    def sample(self) -> list[RolloutBatch]:
        """Return each seed's next rollout, as RLlib's batch."""
        from agents.learners.rl_modules import RolloutBatch

        rollouts = self.collector.collect_each(self._sampling.rollout_length)
        return [RolloutBatch(rollout) for rollout in rollouts]

    def iterate(self, env_steps_done: int) -> list[dict[str, float] | RunError]:
        """Do one iteration of every seed; a seed that diverged has its error."""
        from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

        cloned = self._clone() if env_steps_done == 0 else [{} for _ in self._seeds]
        start = time.perf_counter()
        batches = self.sample()
        sampled = time.perf_counter()
        steps = env_steps_done + batches[0].env_steps()
        done = {NUM_ENV_STEPS_SAMPLED_LIFETIME: steps}
        before = torch.cuda.current_stream() if self._streams[0] is not None else None
        for learner, batch, stream in zip(self.learners, batches, self._streams, strict=True):
            if stream is not None and before is not None:
                stream.wait_stream(before)
            with torch.cuda.stream(stream):
                learner.finished_later = True
                learner.update(batch=batch, timesteps=done, _no_metrics_reduce=True)
        found: list[dict[str, float] | RunError] = []
        for engine, stream in zip(self.engines, self._streams, strict=True):
            try:
                with torch.cuda.stream(stream):
                    engine.learner.finish(steps)
                found.append(engine.learner.statistics)
            except RunError as error:
                found.append(error)
                for actor in engine.actors().values():  # it goes on being asked, beside the others
                    for weights in actor.parameters():
                        weights.data.zero_()
            if stream is not None and before is not None:
                before.wait_stream(stream)
        self.collector.sync()
        return [
            one
            if isinstance(one, RunError)
            else iteration_metrics(batch.rollout, start, sampled, **clone, **one)
            for one, batch, clone in zip(found, batches, cloned, strict=True)
        ]

    def _clone(self) -> list[dict[str, float]]:
        """Let teams begin as clones, before the very first sample, if that is configured."""
        cloning = self._algorithm.cloning
        if cloning is None:
            return [{} for _ in self._seeds]
        found = []
        for engine, seed in zip(self.engines, self._seeds, strict=True):
            # An environment of its own: the run's must start as if nothing had been played.
            env = self._env_factory(self._sampling.num_sessions)
            found.append(clone(cloning, env, self.team, engine.actors(), seed))
            env.close()
        self.collector.sync()
        return found


def local_engine(
    algorithm: PPOFamily, sampling: SamplingConfig, seed: int,
    env_factory: Callable[[int], VectorEnv],
) -> LocalEngine:  # fmt: skip
    """Return the engine of a single seed."""
    return SeedBatch(algorithm, sampling, [seed], env_factory).engines[0]


class LocalEngine:
    """One seed of a :class:`SeedBatch`. The first that is asked for an iteration does it for all,
    so that they go on in step.
    """

    def __init__(self, batch: SeedBatch, place: int) -> None:
        """Args:
        batch: the seeds; often a single one.
        place: this one's.
        """
        self.batch, self._place = batch, place
        self._done: list[dict[str, float] | RunError] = []

    @property
    def team(self) -> TeamSpec:
        """Agents and their actors."""
        return self.batch.team

    @property
    def learner(self) -> TeamLearner:
        """This seed's."""
        return self.batch.learners[self._place]

    def iterate(self, env_steps_done: int) -> dict[str, float]:
        """Sample, update, sync; or hand out what was done with the other seeds'."""
        if not self._done:
            everyone = self.batch.iterate(env_steps_done)
            for engine, found in zip(self.batch.engines, everyone, strict=True):
                engine._done.append(found)
        found = self._done.pop(0)
        if isinstance(found, RunError):
            raise found
        return found

    def actors(self) -> dict[str, Actor]:
        """Return the learner's actors."""
        return {name: self.learner.module[name].unwrapped().net for name in self.team.actors}

    def state_dict(self) -> dict[str, Any]:
        """Return learner and collector states; those of one seed can go on alone."""
        return {
            "learner": self.learner.training_state(),
            "collectors": [self.batch.collector.state_dict(self._place)],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state: alone, since others need not have come as far."""
        assert len(self.batch.engines) == 1
        self.learner.load_training_state(state["learner"])
        self.batch.collector.load_state_dict(state["collectors"][0])
        self.batch.collector.sync()

    def load_networks(self, state: Mapping[str, Any]) -> None:
        """Take over the networks of a state."""
        self.learner.load_networks(state["learner"]["modules"])
        self.batch.collector.sync()

    def close(self) -> None:
        """Close the environment, which is the other seeds' too."""
        self.batch.collector.env.close()
