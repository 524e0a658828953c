"""The other way to learn from a log: fit the simulator's users to it, then train on them as usual.

What everybody likes is moved until the team that was served gets, from simulated users, the clicks
that it got: clicks are regressed on what items are (age, popularity, the users' own factors) in the
log and in as many simulated sessions, by logistic regressions that need not be right, only alike
(indirect inference: Gourieroux, Monfort and Renault, Journal of Applied Econometrics 8, 1993), and
the difference of the two is added to the items' logits. How tastes differ between users stays as
the world has it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from agents.loop.exposure import ExposureLog, play_log
from marec_env.errors import ConfigError
from marec_env.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable

    from agents.learners.config import PPOFamily
    from agents.learners.networks import Actor
    from agents.learners.policy import TrainedPolicy
    from agents.loop.learning import Critics
    from marec_env.world import World

_ROUNDS = 3  # of simulation and correction: each shows the team other users' choices
_TIMES = 2  # simulated sessions, the same in every round, for each of the log's
_NEWTON = 8  # steps of a logistic regression, which converges in five or so
_RIDGE = 30.0  # clicks' worth of prior towards no influence, a feature of unit spread
_SMALL = 1e-6


def recalibrated(world: World, log: ExposureLog, policy: TrainedPolicy, seed: int = 0) -> World:
    """Return a world whose users click as those of a log did.

    Args:
        world: of the same catalog.
        log: of the team that was served.
        policy: it.
        seed: of the simulated sessions.

    Raises:
        DataError: the log shows items that the world has not.
    """
    features = _features(world)
    there = _clicks(log, world)
    wanted = _regression(features, *there)
    sessions = torch.arange(_TIMES * len(log.key))
    quality = world.population.quality
    for _ in range(_ROUNDS):
        found = replace(world, population=replace(world.population, quality=quality))
        simulator = Simulator(found, len(sessions), autoreset=False)
        played = play_log(simulator, policy, sessions, seed)
        gap = wanted - _regression(features, *_clicks(played, world))
        quality = quality + (features @ gap).to(quality.dtype)
    return replace(world, population=replace(world.population, quality=quality))


def learn_on_users(
    world: World, policy: TrainedPolicy, algorithm: PPOFamily, env_steps: int, seed: int = 0,
    critics: Critics | None = None,
    say: Callable[[dict[str, float]], None] = lambda found: None,
) -> tuple[dict[str, Actor], Critics]:  # fmt: skip
    """Return actors that have gone on learning in a world's simulator, and their critics.

    Args:
        world: of :func:`recalibrated` users.
        policy: with which they begin; its networks are left as they are.
        algorithm: with whose losses, epochs and rates; actors stay as they are.
        env_steps: requests, at least.
        seed: of new critics, sessions and mini-batches.
        critics: of an earlier call, to go on with.
        say: is told the learner's numbers after each iteration.

    Raises:
        ConfigError: the team does not fit the world's pipeline.
    """
    from agents.learners.config import SamplingConfig
    from agents.learners.engines import local_engine
    from agents.loop.learning import critics_of, keep_scale, of_networks, take_over

    simulator = Simulator(world, 1)
    for agent, space in policy.team.observation_spaces.items():
        if (here := simulator.observation_spaces.get(agent)) != space:
            raise ConfigError(
                f"'{agent}' of the team sees {space.shape[0]} numbers, of the users' configuration "
                f"{'none' if here is None else here.shape[0]}; name that of the team's training"
            )
    engine = local_engine(
        of_networks(algorithm, policy), SamplingConfig(), seed, lambda n: Simulator(world, n)
    )
    actors, _ = take_over(engine.learner, policy, critics)
    done = 0
    while done < env_steps:
        metrics = engine.iterate(done)
        done += int(metrics["env_steps"])
        say(metrics)
        keep_scale(actors, policy)
    return actors, critics_of(engine.learner)


def _features(world: World) -> Tensor:
    """Return what is known of items, ``[N, f]`` of unit spread, a constant first."""
    catalog, population = world.catalog, world.population
    newer = torch.argsort(torch.argsort(catalog.age, descending=True, stable=True))
    known = [newer[:, None], catalog.popularity[:, None], population.item_factors]
    table = torch.cat([column.to(torch.float64) for column in known], dim=1)
    spread = table.std(0, correction=0)
    table = (table - table.mean(0))[:, spread > _SMALL] / spread[spread > _SMALL]
    return torch.cat([torch.ones(len(table), 1, dtype=torch.float64), table], dim=1)


def _clicks(log: ExposureLog, world: World) -> tuple[Tensor, Tensor]:
    """Return how often each item was shown, and clicked, float64 ``[N]`` each."""
    live = log.live
    items = log.places(world.catalog.ids)[live].flatten()
    clicks = log.clicks[live].flatten().to(torch.float64)
    size = world.catalog.num_items
    return torch.bincount(items, minlength=size).to(torch.float64), torch.bincount(
        items, weights=clicks, minlength=size
    )


def _regression(features: Tensor, shown: Tensor, clicked: Tensor) -> Tensor:
    """Return the weights ``[f]`` of a logistic regression of clicks on items' features."""
    weights = features.new_zeros(features.shape[1])
    rate = clicked.sum() / shown.sum()
    weights[0] = torch.logit(rate.clamp(_SMALL, 1.0 - _SMALL))
    prior = torch.full_like(weights, _RIDGE)
    prior[0] = _SMALL
    for _ in range(_NEWTON):
        chance = torch.sigmoid(features @ weights)
        slope = features.T @ (clicked - shown * chance) - prior * weights
        curve = features.T @ (features * (shown * chance * (1.0 - chance))[:, None])
        weights = weights + torch.linalg.solve(curve + prior.diag(), slope)
    return weights
