"""The learner: central or own critics, and PPO, MAPPO or HAPPO updates of the actors."""

from __future__ import annotations

import random as python_random
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import ALL_MODULES, NUM_ENV_STEPS_SAMPLED_LIFETIME
from torch import Tensor

from agents.learners.captured import CapturedStep, adam, load_portable, portable, set_rate
from agents.learners.config import HAPPOConfig, PPOFamily
from agents.learners.losses import (
    clipped_policy_loss,
    clipped_value_loss,
    critic_plans,
    evaluate_critic,
    normalise_advantages,
    weighted_mean,
)
from agents.learners.rl_modules import INPUTS, TEAM, VALUES, require_finite
from agents.learners.team import TeamSpec

Columns = dict[str, Tensor]

_RECORDED = ("observations", "actions", "log_probabilities", "masks")


class TeamLearner(TorchLearner):
    """Learns from rollouts ``[B, T]`` of the whole team.

    ``config.learner_config_dict`` holds ``algorithm`` (a PPO family configuration), ``team``,
    ``seed`` and, for a learner that RLlib does not place, ``device``. Actors and critics are
    modules of their own with an Adam each. Nothing waits for the device between an update's first
    mini-batch and its last (but for ``target_kl``), so that a CUDA graph can hold a mini-batch.
    """

    def build(self) -> None:
        """Build modules and optimisers."""
        settings = self.config.learner_config_dict
        self.algorithm: PPOFamily = settings["algorithm"]
        self.team: TeamSpec = settings["team"]
        self._plans = critic_plans(self.algorithm, self.team)
        self._decay: float | Tensor = 1.0  # a graph reads it where it lies
        self._memories: dict[str, Tensor] = {}
        self._sums: dict[str, list[Tensor]] = {}
        """What each mini-batch logged, by name."""
        self._skips: dict[str, list[Tensor]] = {}
        """Per module, 1 for each mini-batch whose gradient was not finite, 0 for others."""
        self._stopped: set[str] = set()
        self._fresh_inputs: dict[str, Tensor] = {}
        self._data: dict[str, Columns] = {}
        self._updating: list[str] = []
        self._trained: dict[str, list[torch.nn.Parameter]] = {}
        self.statistics: dict[str, float] = {}
        self.finished_later = False
        super().build()
        self._forget_captured()

    def _make_module(self) -> Any:
        """Build the modules where the learner is to work."""
        if "device" in self.config.learner_config_dict:
            self._device = self.config.learner_config_dict["device"]
        return super()._make_module()

    def _forget_captured(self) -> None:
        alone = self.config.num_learners <= 1 and self.algorithm.target_kl is None
        self._captured = None
        if self._device.type == "cuda" and alone:
            self._captured = CapturedStep(self._logged_step)
            self._decay = torch.ones((), device=self._device)

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Give each module its own Adam."""
        params = list(self.get_parameters(self._module[module_id]))
        self._trained[module_id] = params
        rate, epsilon = self._learning_rate(module_id), self.algorithm.adam_epsilon
        optimizer = adam(params, rate, epsilon, self._device)
        self.register_optimizer(module_id=module_id, optimizer=optimizer, params=params)

    def _learning_rate(self, module_id: str) -> float:
        if module_id in self._plans:
            return self.algorithm.critic_learning_rate
        return self._of(module_id, "learning_rate")

    def _of(self, actor: str, key: str) -> float:
        """Return a setting of a component: its own, or the team's."""
        own = getattr(self.team.overrides(self.algorithm, actor), key)
        return float(getattr(self.algorithm, key) if own is None else own)

    def before_gradient_based_update(self, *, timesteps: Mapping[str, Any]) -> None:
        """Set learning rates and entropy bonus for the env steps done."""
        super().before_gradient_based_update(timesteps=timesteps)
        horizon, decay = self.algorithm.decay_env_steps, 1.0
        if horizon is not None:
            done = float(timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0))
            decay = max(0.0, 1.0 - done / horizon)
        if isinstance(self._decay, Tensor):
            self._decay.fill_(decay)
        else:
            self._decay = decay
        for module_id in self.module.keys():  # noqa: SIM118 - RLlib's mapping has no __iter__
            for _, optimizer in self.get_optimizers_for_module(module_id):
                set_rate(optimizer, self._learning_rate(module_id) * decay)

    def after_gradient_based_update(self, *, timesteps: Mapping[str, Any]) -> None:
        """Finish the update, unless who asked for it will: :meth:`finish` waits for the device."""
        if not self.finished_later:
            self.finish(int(timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0)))
        self.finished_later = False

    def finish(self, env_steps: int) -> None:
        """Move input statistics, and reduce what the epochs logged to :attr:`statistics`.

        Raises:
            RunError: a network diverged in this update, or could not learn from what it was given.
        """
        skipped = {name: int(torch.stack(flags).sum()) for name, flags in self._skips.items()}
        require_finite(
            f"the update at env step {env_steps:,}",
            {name: self.module[name].unwrapped() for name in self._data},
            self._data,
            unlearnt={name for name, n in skipped.items() if n == len(self._skips[name])},
            rates={name: self._learning_rate(name) for name in self._data},
        )
        for module_id, inputs in self._fresh_inputs.items():
            normaliser = self.module[module_id].unwrapped().net.trunk.normaliser
            if normaliser is not None:
                normaliser.update(inputs)
        self._fresh_inputs = {}
        means = torch.stack([torch.stack(values).mean() for values in self._sums.values()])
        self.statistics = dict(zip(self._sums, means.tolist(), strict=True))
        self.statistics |= {f"skipped_updates/{n}": float(k) for n, k in skipped.items() if k}
        self._sums, self._skips = {}, {}
        self.metrics.log_dict(dict(self.statistics), key=ALL_MODULES, window=1)

    def _update(self, batch: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """Take one step on a mini-batch."""
        step = self._logged_step if self._captured is None else self._captured
        logged, skips = step(batch)
        for kept, new in ((self._sums, logged), (self._skips, skips)):
            for name, value in new.items():
                kept.setdefault(name, []).append(value)
        return {}, {}, {}

    def _logged_step(self, batch: Mapping[str, Any]) -> tuple[Columns, Columns]:
        """Take the step and return what it logged, and which modules could not take it."""
        kept = self._sums, self._skips
        self._sums, self._skips = {}, {}
        try:
            super()._update(batch)
            found = self._sums, self._skips
        finally:
            self._sums, self._skips = kept
        logged, skips = ({k: v for k, (v,) in one.items()} for one in found)
        return logged, skips

    def postprocess_gradients(self, gradients_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Clip each module's gradients to their norm, in place."""
        for module_id in self._updating:
            norm = torch.nn.utils.clip_grad_norm_(
                self._trained[module_id], self.algorithm.max_gradient_norm
            )
            self._log(module_id, "gradient_norm", norm)
            self._skips.setdefault(module_id, []).append((~torch.isfinite(norm)).to(norm.dtype))
        return dict(gradients_dict)

    def apply_gradients(self, gradients_dict: Mapping[str, Tensor]) -> None:
        """Step the optimisers of the modules in this mini-batch; others keep their moments, and so
        do those whose gradient is not finite.
        """
        for module_id in self._updating:
            for _, optimizer in self.get_optimizers_for_module(module_id):
                # What torch's loss scaling uses: Adam asks on its device whether to step.
                optimizer.found_inf = self._skips[module_id][-1]
                optimizer.step()

    def compute_losses(
        self, *, fwd_out: Mapping[str, Any], batch: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """Return the loss of each module in the mini-batch."""
        self._updating = list(batch)
        losses, config = self.compute_loss_for_module, self.config
        return {
            name: losses(module_id=name, config=config, batch=columns, fwd_out=fwd_out[name])
            for name, columns in batch.items()
        }

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: Mapping[str, Tensor], fwd_out: Any
    ) -> Tensor:
        """Return a critic's clipped Huber loss, or an actor's clipped surrogate and entropy."""
        if module_id in self._plans:
            old, targets, weights = (batch[k] for k in ("old_values", "targets", "weights"))
            delta, clip = self.algorithm.huber_delta, self.algorithm.value_clip
            loss = clipped_value_loss(fwd_out[VALUES], old, targets, weights, delta, clip)
            self._log(module_id, "value_loss", loss)
            return loss
        clip_at, bonus = (self._of(module_id, key) for key in ("clip", "entropy_coefficient"))
        log_ratio, entropy = self._log_ratio(module_id, batch, fwd_out[INPUTS])
        weights = batch["weights"]
        loss = clipped_policy_loss(log_ratio, batch["advantages"], weights, clip_at)
        mean_entropy = weighted_mean(entropy, weights)
        log_ratio = log_ratio.detach()
        ratio = log_ratio.exp()
        # Schulman's low-variance estimator of KL(old || new): mean of r - 1 - log r.
        kl = weighted_mean(ratio - 1.0 - log_ratio, weights)
        clipped = ((ratio - 1.0).abs() > clip_at).to(ratio.dtype)
        for name, value in (
            ("policy_loss", loss),
            ("entropy", mean_entropy),
            ("kl", kl),
            ("ratio", weighted_mean(ratio, weights)),
            ("clip_fraction", weighted_mean(clipped, weights)),
        ):
            self._log(module_id, name, value)
        if self.algorithm.target_kl is not None and float(kl) > self.algorithm.target_kl:
            self._stopped.add(module_id)
        return loss - bonus * self._decay * mean_entropy

    def _log_ratio(
        self, name: str, columns: Mapping[str, Tensor], inputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return log new - log old probability of the joint sub-actions, and joint entropies."""
        distribution = self.module[name].unwrapped().net.distribution
        log_p, entropy = distribution.evaluate(inputs, columns["actions"], columns.get("masks"))
        # Where nothing was decided the ratio is 1 by definition, whatever the data say.
        decided = columns["weights"] > 0
        return torch.where(decided, log_p - columns["log_probabilities"], 0.0), entropy

    def _log(self, module_id: str, name: str, value: Tensor) -> None:
        self._sums.setdefault(f"{name}/{module_id}", []).append(value.detach())

    def _log_metrics(self, *args: Any, **kwargs: Any) -> None:
        """Skip RLlib's dozen counters a module, which cost as much as a small update."""

    _log_steps_trained_metrics = _log_metrics

    def _create_iterator_if_necessary(
        self, *, training_data: TrainingData, **kwargs: Any
    ) -> Iterator[MultiAgentBatch]:
        """Return the mini-batches of all epochs."""
        batch = training_data.batch
        if batch is None or TEAM not in batch.policy_batches:
            raise ValueError("TeamLearner learns from RolloutBatch; sample with BatchedEnvRunner")
        self._sums, self._skips = {}, {}
        actors, critics = self.prepare(batch)
        seed = self.config.learner_config_dict["seed"] * 1_000_003 + self._weights_seq_no
        generator = torch.Generator().manual_seed(seed)
        self._stopped = set()
        self._data = {**critics, **actors}
        if isinstance(self.algorithm, HAPPOConfig):
            return self._sequential(actors, critics, generator)
        return self._epochs(self._data, generator)

    def prepare(self, batch: MultiAgentBatch) -> tuple[dict[str, Columns], dict[str, Columns]]:
        """Return training data of each actor and of each critic from a raw rollout.

        Values are predicted once, advantages and targets computed, rows of agents that share an
        actor put one after another. Rows are single decisions ``[N, ...]``, or sequences
        ``[N, T, ...]`` where any network is recurrent.
        """
        data = {
            name: {key: torch.as_tensor(column).to(self._device) for key, column in columns.items()}
            for name, columns in batch.policy_batches.items()
        }
        team = data.pop(TEAM)
        active = {agent: data[agent]["active"].to(torch.float32) for agent in self.team.agents}
        self._fresh_inputs = {}
        sequences = any(m.unwrapped().net.memory_size > 0 for m in self.module.values())
        found: dict[str, Tensor] = {}
        critics = {}
        for name, plan in self._plans.items():
            module, memory = self.module[name].unwrapped(), self._memories.get(name)
            target = evaluate_critic(module, plan, self.algorithm, team, data, memory)
            critics[name] = target.columns(module, sequences)
            self._fresh_inputs[name] = target.raw_inputs[target.weights.amax(dim=-1) > 0]
            found.update(target.advantages)
            self._log(name, "explained_variance", target.explained_variance)
            if target.last_memory is not None:
                self._memories[name] = target.last_memory
        in_order = {agent: found[agent] for agent in self.team.agents}
        advantages = normalise_advantages(in_order, active, self.algorithm.normalise_advantages)
        actors = {
            name: self._actor_columns(name, data, team, active, advantages, sequences)
            for name in self.team.actors
            if not self.team.overrides(self.algorithm, name).frozen
        }
        return actors, critics

    def _actor_columns(
        self, name: str, data: Mapping[str, Columns], team: Columns,
        active: Mapping[str, Tensor], advantages: Mapping[str, Tensor], sequences: bool,
    ) -> Columns:  # fmt: skip
        net = self.module[name].unwrapped().net
        pieces: list[Columns] = []
        for index, agent in enumerate(self.team.actors[name]):
            source = data[agent]
            columns = {key: source[key] for key in _RECORDED if key in source}
            columns |= {"advantages": advantages[agent], "weights": active[agent]}
            agent_id = net.agent_id(index, tuple(active[agent].shape), self._device)
            if agent_id is not None:
                columns["agent_id"] = agent_id
            if sequences:
                none = active[agent].new_zeros(active[agent].shape[0], net.memory_size)
                columns |= {"starts": team["starts"], "memory": source.get("memory", none)}
            else:
                columns = {key: column.flatten(0, 1) for key, column in columns.items()}
            pieces.append(columns)
        rows = pieces[0]
        if len(pieces) > 1:
            rows = {key: torch.cat([piece[key] for piece in pieces]) for key in rows}
        self._fresh_inputs[name] = rows["observations"][rows["weights"] > 0]
        # Statistics stand still during the epochs, so observations are normalised once.
        rows["observations"] = net.trunk.normalise(rows["observations"])
        return rows

    def _epochs(
        self, modules: Mapping[str, Columns], generator: torch.Generator
    ) -> Iterator[MultiAgentBatch]:
        """Yield the mini-batches of all passes over the given modules' data."""
        parts = self.algorithm.minibatches
        whole = {name: SampleBatch(columns) for name, columns in modules.items()}
        for _ in range(self.algorithm.epochs):
            chosen = [name for name in whole if name not in self._stopped]
            if not chosen:
                return
            if parts == 1:
                yield MultiAgentBatch({name: whole[name] for name in chosen}, env_steps=1)
                continue
            orders = {}
            for name in chosen:
                order = torch.randperm(len(whole[name]["weights"]), generator=generator)
                orders[name] = order.to(self._device, non_blocking=True).chunk(parts)
            for part in range(min(len(order) for order in orders.values())):
                batch = {}
                for name in chosen:
                    rows = orders[name][part]
                    batch[name] = SampleBatch({k: v[rows] for k, v in modules[name].items()})
                yield MultiAgentBatch(batch, env_steps=1)

    def _sequential(
        self, actors: Mapping[str, Columns], critics: Mapping[str, Columns],
        generator: torch.Generator,
    ) -> Iterator[MultiAgentBatch]:  # fmt: skip
        """Yield the critic's passes, then each actor's in random order with its own advantages."""
        yield from self._epochs(critics, generator)
        names = list(actors)
        seed = int(torch.randint(1 << 31, (1,), generator=generator))
        python_random.Random(seed).shuffle(names)
        factor: Tensor | None = None
        for name in names:
            columns = dict(actors[name])
            if factor is None:
                factor = torch.ones_like(columns["advantages"])
            self._log(name, "happo_factor", factor.mean())
            columns["advantages"] = columns["advantages"] * factor
            yield from self._epochs({name: columns}, generator)
            factor = factor * self._ratio(name, columns)

    @torch.no_grad()
    def _ratio(self, name: str, columns: Columns) -> Tensor:
        """Return new over old probability of the joint sub-actions; 1 where nothing was decided."""
        inputs = self.module[name].unwrapped()._forward(columns)[INPUTS]
        return self._log_ratio(name, columns, inputs)[0].exp()

    def training_state(self) -> dict[str, Any]:
        """Return all that an exact continuation needs, as tensors, numbers and nested dicts."""
        return {
            "modules": {n: m.unwrapped().state_dict() for n, m in self.module.items()},
            "optimizers": {n: portable(o) for n, o in self._named_optimizers.items()},
            "updates": self._weights_seq_no,
            "memories": dict(self._memories),
        }

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`training_state` returned, on whichever device."""
        self.load_networks(state["modules"], same_rewards=True)
        for name, optimizer in self._named_optimizers.items():
            load_portable(optimizer, state["optimizers"][name])
        self._weights_seq_no = int(state["updates"])
        self._memories = {k: v.to(self._device) for k, v in state["memories"].items()}
        self._forget_captured()

    def load_networks(self, modules: Mapping[str, Any], same_rewards: bool = False) -> None:
        """Take over networks and statistics; those of values only if rewards are the same."""
        for name, module in self.module.items():
            module.unwrapped().load_state_dict(modules[name])
            if name in self._plans and not same_rewards:
                module.unwrapped().forget_values()
