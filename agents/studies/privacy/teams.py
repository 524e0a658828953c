"""What a trained team betrays of the users it was trained on, and of those it plays with.

Membership: teams are trained with random halves of the log's users, on one and the same knowledge
of the catalog, so that whatever tells is in the networks. Who attacks has a team's actors as a
bundle holds them, the user's history and taste (he can simulate the user), and the other teams as
shadows. Critics are not attacked: a bundle has none. Attributes: what a trained team observes, says
and decides with a user tells of his gender and age.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from agents.config import RunConfig
from agents.learners.config import PPOFamily
from agents.learners.policy import TrainedPolicy
from agents.learners.trainer import Trainer
from agents.loop.exposure import ExposureLog, play_log
from agents.loop.valuation import to_go
from agents.studies.privacy.attributes import groups_of, infer, views
from agents.studies.privacy.curve import Plan
from agents.studies.privacy.membership import attacked, halves
from agents.studies.privacy.report import attributes_of, of_log_users
from agents.studies.records import Cells, plain, spread
from marec_env import random
from marec_env.catalog.histories import Histories
from marec_env.data.log import load_log
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError
from marec_env.evaluation.rollout import play_request
from marec_env.evaluation.statistics import Estimate
from marec_env.reporting.table import TextTable
from marec_env.rewards.config import DISCOUNT
from marec_env.simulator import Simulator
from marec_env.world import World, build_world

FEW = (160, 40, 10)
"""Users of further settings, of whom each team meets half: the fewer, the more each counts."""
EVERYBODY = "all users"
_MEASURES = ("auc", "accuracy", "base")
_SESSIONS_A_USER = 3  # drawn, so that most users are met
_FEWEST_SESSIONS = 1024
_INFERRED = 4  # teams from whose play attributes are inferred, which takes as long as an attack
_BELIEVED = 3.0  # log ratio of a decision's probabilities: a few extreme ones would drown all
_SPREAD_FLOOR = 1e-6


@dataclass(frozen=True, slots=True)
class Probe:
    """Sessions of the users under attack, the same for every team that is attacked."""

    simulator: Simulator
    sessions: Tensor
    """Int64 ``[S]``."""
    seed: int
    log: ExposureLog
    """Their play with a team that has learned nothing and explores."""
    user: Tensor
    """Int64 ``[S]``: whose they are, as a place in ``met``."""
    met: Tensor
    """Int64 ``[V]``: users with a session."""

    @classmethod
    def of(cls, world: World, policy: TrainedPolicy, seed: int) -> Probe:
        """Return sessions of a world's users, played by an untrained team."""
        count = max(_SESSIONS_A_USER * world.population.num_users, _FEWEST_SESSIONS)
        simulator, sessions = Simulator(world, count, autoreset=False), torch.arange(count)
        log = play_log(simulator, policy, sessions, seed)
        met, user = torch.unique(simulator.users.user_index, return_inverse=True)
        return cls(simulator, sessions, seed, log, user, met)

    def by_user(self, values: Tensor, weights: Tensor) -> Tensor:
        """Return weighted means over each user's sessions, float64 ``[V, ...]``, less the mean of
        all users: what a team does with everybody tells of nobody.
        """
        shape = (len(self.met), *values.shape[1:])
        total = torch.zeros(shape, dtype=torch.float64).index_add_(0, self.user, values.double())
        weight = torch.zeros(len(self.met), dtype=torch.float64)
        weight.index_add_(0, self.user, weights.double())
        mean = total / weight.clamp_min(1.0).view(-1, *[1] * (values.dim() - 1))
        return mean - mean.mean(0)


@torch.no_grad()
def signs_of(policy: TrainedPolicy, probe: Probe) -> dict[str, Tensor]:
    """Return what is higher for those a team was trained on, on the whole: float64 ``[V]`` each.

    Clicks that the team earns in the user's sessions; how much likelier it finds the decisions that
    paid with him than an untrained team does (log ratios, weighted by the discounted clicks to go
    beyond those of all users at the same request); its confidence (negative entropy) in his
    sessions; and how far the running mean, by which inputs are normalised, lies on his side of
    everybody's (N. Homer et al., "Resolving individuals contributing trace amounts of DNA to highly
    complex mixtures", PLoS Genetics 2008).
    """
    log, live = probe.log, probe.log.live
    length = log.length
    agreed, entropy = torch.zeros(live.shape), torch.zeros(live.shape)
    side = torch.zeros(len(probe.met), dtype=torch.float64)
    for agent in log.agents:
        name, index = policy.team.actor_of(agent)
        actor, seen = policy.actors[name], log.observations[agent]
        memory = seen.new_zeros(len(seen), actor.memory_size) if actor.memory_size else None
        for step in range(live.shape[1]):
            inputs, memory = actor(seen[:, step], memory, index)
            log_p, own = actor.distribution.evaluate(inputs, log.actions[agent][:, step])
            more = log_p - log.log_probabilities[agent][:, step]
            agreed[:, step] += more.clamp(-_BELIEVED, _BELIEVED)
            entropy[:, step] += own
        if (normaliser := actor.trunk.normaliser) is not None:
            mean = probe.by_user((seen * live.unsqueeze(2)).sum(1), length)
            centre = seen[live].double().mean(0)
            spread = mean.std(0).clamp_min(_SPREAD_FLOOR)
            side += (mean / spread) @ ((normaliser.mean - centre) / spread)
    gain = to_go(log.clicks.sum(2), DISCOUNT)
    gain = gain - (gain * live).sum(0) / live.sum(0).clamp_min(1)
    return {
        "clicks earned": probe.by_user(_clicks(policy, probe), torch.ones_like(length)),
        "decisions that paid": probe.by_user((agreed * gain * live).sum(1), length),
        "confidence": probe.by_user((-entropy * live).sum(1), length),
        "mean of inputs": side,
    }


def _clicks(policy: TrainedPolicy, probe: Probe) -> Tensor:
    """Return clicks of the probe's sessions when the team plays them, float32 ``[S]``."""
    simulator, total = probe.simulator, torch.zeros(len(probe.sessions))
    simulator.begin(probe.sessions, probe.seed)
    policy.reset()
    alive = torch.ones(len(total), dtype=torch.bool)
    while bool(alive.any()):
        step = play_request(simulator, policy)
        total += alive * step.metrics["clicks"]
        alive = alive & ~(step.terminated | step.truncated)
    return total


def among(world: World, users: Tensor) -> World:
    """Return a world in which only some users, int64 places ``[V]``, ever come; what the
    recommender knows is as before.
    """
    population, friends = world.population, world.population.friends
    if friends is not None:
        place = torch.full((population.num_users,), -1, dtype=torch.int64)
        place[users] = torch.arange(len(users))
        friends = place[friends]
        friends = friends[(friends >= 0).all(1)]
    own = {name: column[users] for name, column in population.user_attributes.items()}
    declared = {name: column[users] for name, column in world.log.user_attributes.items()}
    return replace(
        world,
        population=replace(
            population,
            user_factors=population.user_factors[users],
            history=Histories.of_rows(*population.history.of(users)),
            groups=population.groups[users],
            friends=friends,
            user_attributes=own,
        ),
        learned=replace(world.learned, known_users=world.learned.known_users[users]),
        log=replace(world.log, user_attributes=declared),
    )


def teams_cells(run: RunConfig, plan: Plan) -> Cells:
    """Return the study of a run's log, environment and learner: of each team its signs of the users
    under attack, and of the first few also what attributes are inferred from its play.

    Raises:
        ConfigError: the environment is not marec's, or the learner has no probabilities.
    """
    if not isinstance(run.algorithm, PPOFamily):
        raise ConfigError(
            f"algorithm.kind {run.algorithm.kind}: teams are attacked by the probabilities of their"
            " decisions; take mappo, ippo or happo"
        )
    environment = of_log_users(run.recommender).model_copy(update={"device": "cpu"})
    world, log = build_world(environment), load_log(environment.data)
    settings = {
        "config": run.model_dump(mode="json"),
        "users": log.num_users,
        "plan": plan.only("models", "train_steps", "requests", "seed"),
    }
    users = _settings(log.num_users, plan.seed)

    @cache
    def probe(setting: str) -> Probe:
        whole = among(world, users[setting])
        return Probe.of(whole, trained_in(run, whole, plan.seed, 0), plan.seed)

    def measure(setting: str, number: int) -> dict[str, Any]:
        inside = halves(len(users[setting]), plan.models, plan.seed)[number]
        own = among(world, users[setting][inside])
        policy = trained_in(run, own, plan.seed + number, plan.train_steps)
        attack = probe(setting)
        found: dict[str, Any] = {
            "met": attack.met.tolist(),
            "signs": {name: value.tolist() for name, value in signs_of(policy, attack).items()},
        }
        if setting == EVERYBODY and number < _INFERRED:
            found["attributes"] = plain(_attributes(world, environment, policy, plan))
        return found

    cells = {
        f"{setting}, team {number}": partial(measure, setting, number)
        for setting in users
        for number in range(plan.models)
    }
    return Cells(settings, cells)


def _settings(num_users: int, seed: int) -> dict[str, Tensor]:
    """Return by name whose halves teams are trained on, int64 places."""
    order = random.uniform(random.session_keys(seed, torch.arange(1)), 0, "privacy/few", num_users)
    order = order[0].argsort(stable=True)
    some = {f"{few} users": order[:few] for few in FEW if few < num_users}
    return {EVERYBODY: torch.arange(num_users), **some}


def trained_in(
    run: RunConfig, world: World, seed: int, steps: int, start: Path | None = None
) -> TrainedPolicy:
    """Return a run's team after so many requests of a world's users; ``start`` is a checkpoint's
    folder, with whose networks it begins.
    """
    trainer = Trainer(run.algorithm, run.sampling, seed, partial(Simulator, world))
    with closing(trainer):
        if start is not None:
            trainer.begin_with(start)
        while trainer.env_steps < steps:
            trainer.iterate()
        policy: TrainedPolicy = trainer.policy()
        return policy


def _attributes(
    world: World, environment: EnvironmentConfig, policy: TrainedPolicy, plan: Plan
) -> dict[str, dict[str, dict[str, Estimate]]]:
    met, seen = views(world, policy, plan.requests, plan.seed)
    attributes = attributes_of(environment)
    return {
        name: {source: infer(part, group, plan.seed) for source, part in seen.items()}
        for name, group in groups_of(attributes, met).items()
    }


def membership_of(report: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Estimate]]]:
    """Return of each setting what each attack finds, from the cells of all its teams."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, cell in report["cells"].items():
        found.setdefault(name.rpartition(", ")[0], []).append(cell)
    plan, results = report["plan"], {}
    for setting, cells in found.items():
        if len(cells) < plan["models"]:
            continue
        count = report["users"] if setting == EVERYBODY else int(setting.split()[0])
        member = halves(count, plan["models"], plan["seed"])[:, torch.tensor(cells[0]["met"])]
        signs = [
            {name: torch.tensor(value, dtype=torch.float64) for name, value in one["signs"].items()}
            for one in cells
        ]
        results[setting] = attacked(signs, member)
    return results


def teams_tables(report: Mapping[str, Any]) -> list[TextTable]:
    """Return what attacks find, and what attributes show in trained play."""
    plan = report["plan"]
    tables = [
        TextTable(
            f"Membership: was a team trained on a user? Of {setting}, half for each team",
            ("attack", "AUC", "true positives at 1 % false"),
            [(name, spread(one["auc"]), spread(one["tpr"])) for name, one in found.items()],
            notes=(
                f"{plan['models']} teams of {plan['train_steps']:,} requests, each attacked with "
                "the others as shadows; mean ± half of the 95 % interval over them.",
            ),
        )
        for setting, found in membership_of(report).items()
    ]
    told: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in report["cells"].values():
        for name, sources in cell.get("attributes", {}).items():
            for source, one in sources.items():
                told.setdefault((name, source), []).append(one)
    if told:
        rows, teams_told = [], max(map(len, told.values()))
        for (name, source), teams in told.items():
            means = [spread(_mean([one[key] for one in teams])) for key in _MEASURES]
            rows.append((f"{name} from {source}", *means))
        tables.append(
            TextTable(
                "Attributes of held-out users from the play of trained teams",
                ("attribute", "AUC", "accuracy", "base rate"),
                rows,
                notes=(
                    f"{plan['requests']} requests; means over {teams_told} teams of value and of "
                    "the 95 % interval over users.",
                ),
            )
        )
    return tables


def _mean(estimates: list[dict[str, float]]) -> Estimate:
    ends = {end: fmean(one[end] for one in estimates) for end in ("value", "low", "high")}
    return Estimate(**ends, count=len(estimates))
