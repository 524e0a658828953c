"""Teams learned where the users are: shards of users train a copy each, a server averages networks.

In a round each client, a shard of the users with a simulator of their sessions, takes over the
server's networks and learns from its own sessions; the server takes the mean of what comes back, by
the shards' users (:func:`marec_env.privacy.federated.federate`). Optimisers' states stay with the
clients. With ``proximal`` a client's networks are drawn back to those sent after each iteration:
FedProx's term by a proximal step. With ``noise`` weights alone travel, statistics stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agents.config import RunConfig
from agents.learners.config import PPOFamily
from agents.learners.engines import LocalEngine, local_engine
from agents.learners.policy import TrainedPolicy
from agents.learners.trainer import Trainer
from agents.studies.privacy.curve import Plan, clicks_of
from agents.studies.privacy.report import of_log_users
from agents.studies.privacy.teams import among, trained_in
from agents.studies.records import Cells, by_setting, spread
from marec_env.errors import ConfigError
from marec_env.evaluation.statistics import mean_estimate
from marec_env.privacy.federated import FederatedConfig, FederatedReport, federate, shards_of
from marec_env.reporting.table import TextTable
from marec_env.simulator import Simulator
from marec_env.world import World, build_world

AT_ONCE, UNTRAINED = "all users at once", "untrained"
SETTINGS: dict[str, dict[str, Any]] = {
    "5 shards": {"shards": 5},
    "20 shards": {"shards": 20},
    "20 shards, users sorted": {"shards": 20, "split": "sorted"},
    "20 shards, sorted, FedProx 1": {"shards": 20, "split": "sorted", "proximal": 1.0},
    "20 shards, half asked, a third of them lost": {
        "shards": 20, "client_share": 0.5, "dropout": 0.33, "rounds": 60,
    },
    "20 shards, noise 1": {"shards": 20, "noise": 1.0, "clip": 0.3},
}  # fmt: skip
"""By name; rounds for as many requests as at once where nothing else is said."""


class _Client:
    """A shard's users, their sessions and the learner that they train."""

    def __init__(self, run: RunConfig, world: World, seed: int, weights_only: bool) -> None:
        assert isinstance(run.algorithm, PPOFamily)
        self.engine: LocalEngine = local_engine(
            run.algorithm, run.sampling, seed, partial(Simulator, world)
        )
        self._steps, self._weights_only = 0, weights_only
        team = self.engine.team
        self._stay = {name for name in team.actors if team.overrides(run.algorithm, name).frozen}

    def _tensors(self) -> list[Tensor]:
        """Return what travels: weights and statistics of actors that learn and of critics, in one
        order.
        """
        found = []
        for actor, module in self.engine.learner.module.items():
            if actor in self._stay:
                continue
            weights = {name for name, _ in module.unwrapped().named_parameters()}
            found += [
                tensor
                for name, tensor in module.unwrapped().state_dict().items()
                if tensor.is_floating_point() and (name in weights or not self._weights_only)
            ]
        return found

    def networks(self) -> Tensor:
        """Return what travels, float64 ``[P]``."""
        return torch.cat([tensor.flatten().double() for tensor in self._tensors()])

    def take(self, sent: Tensor) -> None:
        """Take over what was sent."""
        tensors = self._tensors()
        parts = torch.split(sent, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))
        self.engine.batch.collector.sync()

    def train(self, sent: Tensor, iterations: int, proximal: float) -> Tensor:
        """Return the networks after iterations from those sent."""
        self.take(sent)
        for _ in range(iterations):
            self._steps += int(self.engine.iterate(self._steps)["env_steps"])
            if proximal:
                self.take((self.networks() + proximal * sent) / (1.0 + proximal))
        return self.networks()


def train_federated(
    run: RunConfig, world: World, shard: Tensor, config: FederatedConfig, seed: int,
    start: Path | None = None,
) -> tuple[TrainedPolicy, FederatedReport]:  # fmt: skip
    """Train a run's team over shards of a world's users.

    With one shard that always answers it is training on all, to the bit. Components that are frozen
    (``algorithm.components``) act as every client was given them and are not sent again: with all
    but one frozen, that one alone is learned over shards.

    Args:
        run: learner and sampling; ``num_sessions`` are those of all clients together.
        world: of all users; a client meets its own only.
        shard: int64 ``[U]``, each user's.
        config: see the class; ``local_sweeps`` are iterations of a client in a round.
        seed: of networks, sessions, sampling, losses, noise.
        start: a checkpoint's folder, with whose networks all begin; by default new ones.

    Raises:
        ConfigError: the learner is not of PPO's family; more shards than sessions; statistics of
            inputs, which noise does not cover; opacus, which counts ε, is missing.
    """
    sampling, algorithm = run.sampling, run.algorithm
    if not isinstance(algorithm, PPOFamily) or sampling.num_env_runners or sampling.num_learners:
        raise ConfigError(
            "a federated team needs a learner of PPO's family in this process: set algorithm.kind"
            " to mappo, ippo or happo, and sampling.num_env_runners and num_learners to 0"
        )
    if config.shards > sampling.num_sessions:
        raise ConfigError(
            f"sampling.num_sessions={sampling.num_sessions} are fewer than {config.shards} shards,"
            " each of which plays at least one"
        )
    if config.noise and algorithm.actor.normalise_inputs:
        raise ConfigError(
            "noise covers weights, not running statistics of users:"
            " set algorithm.actor.normalise_inputs=false"
        )
    each = sampling.model_copy(update={"num_sessions": sampling.num_sessions // config.shards})
    own = run.model_copy(update={"sampling": each})
    users = [(shard == place).nonzero().squeeze(1) for place in range(config.shards)]
    clients = [
        _Client(own, among(world, those), seed * config.shards + place, config.noise > 0)
        for place, those in enumerate(users)
    ]
    try:
        if start is not None:
            factory = partial(Simulator, world)
            Trainer(algorithm, each, seed, factory, clients[0].engine).begin_with(start)
        begun = clients[0].engine.state_dict()
        for one in clients[1:]:  # what stays there must be the same as well
            one.engine.load_networks(begun)
        networks, report = federate(
            clients[0].networks(),
            [
                partial(one.train, iterations=config.local_sweeps, proximal=config.proximal)
                for one in clients
            ],
            [torch.tensor(len(those) / len(shard), dtype=torch.float64) for those in users],
            config,
            seed,
        )
        clients[0].take(networks)
        engine = clients[0].engine
        return TrainedPolicy(engine.team, engine.actors(), seed), report
    finally:
        for one in clients:
            one.engine.close()


def federated_teams_cells(run: RunConfig, plan: Plan) -> Cells:
    """Return the study of a run's environment, learner and sampling: of each setting and seed
    clicks a session on all users, megabytes and ε. Requests are those of all clients together, but
    where a setting says its rounds.

    Raises:
        ConfigError: the environment is not marec's; see also :func:`train_federated`.
    """
    world = build_world(of_log_users(run.recommender).model_copy(update={"device": "cpu"}))
    rounds = max(1, plan.train_steps // (run.sampling.num_sessions * run.sampling.rollout_length))
    start = None if plan.start is None else Path(plan.start)

    def at_once(steps: int, seed: int) -> dict[str, float | None]:
        policy = trained_in(run, world, seed, steps, start)
        return {"clicks": clicks_of(world, policy, plan.sessions, plan.cohort)}

    def apart(own: dict[str, Any], seed: int) -> dict[str, float | None]:
        config = FederatedConfig.model_validate({"rounds": rounds, **own})
        shard = shards_of(world.log, config, seed)
        policy, report = train_federated(run, world, shard, config, seed, start)
        return {
            "clicks": clicks_of(world, policy, plan.sessions, plan.cohort),
            "megabytes": (report.bytes_down + report.bytes_up) / 1e6,
            "epsilon": report.epsilon,
        }

    cells = {}
    for seed in range(plan.seeds):
        cells[f"{UNTRAINED}; seed {seed}"] = partial(at_once, 0, seed)
        cells[f"{AT_ONCE}; seed {seed}"] = partial(at_once, plan.train_steps, seed)
        for name, own in SETTINGS.items():
            cells[f"{name}; seed {seed}"] = partial(apart, own, seed)
    budgets = plan.only("sessions", "cohort", "train_steps", "start")
    return Cells({"config": run.model_dump(mode="json"), "plan": budgets}, cells)


def federated_teams_table(report: Mapping[str, Any]) -> TextTable:
    """Return clicks, and their paired differences from the team trained on all users at once."""
    by_name = by_setting(report)
    base, rows = by_name[AT_ONCE], []
    for name, found in by_name.items():
        clicks = [one["clicks"] for one in found.values()]
        more = [one["clicks"] - base[seed]["clicks"] for seed, one in found.items()]
        last = next(iter(found.values()))
        rows.append(
            (
                name,
                spread(mean_estimate(clicks), 1),
                "–" if name == AT_ONCE else spread(mean_estimate(more), 1, sign="+"),
                f"{last['megabytes']:.1f}" if "megabytes" in last else "–",
                f"{last['epsilon']:.3g}" if last.get("epsilon") else "–",
            )
        )
    plan = report["plan"]
    return TextTable(
        "Teams learned over shards of the users",
        ("learned on", "clicks", "more than at once", "MB sent", "ε of a shard"),
        rows,
        notes=(
            f"Mean ± half of the 95 % interval over {len(base)} seeds of shards and training; "
            f"{plan['train_steps']:,} requests of all clients together, clicks a session on "
            f"{plan['sessions']} sessions of all users.",
        ),
    )
