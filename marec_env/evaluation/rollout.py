"""Run a policy on a fixed cohort of sessions, each once, under common random numbers.

The same session numbers and seed meet the same users with the same luck whatever the policy and the
batch size, so outcomes of two policies are compared session by session. What is relevant to a user
at a request is what recall is judged on: the ``measure.true_top`` (50) items of highest lasting
relevance among those the user has not consumed or been shown. Ranking metrics are taken against it
at every request and averaged over the session's requests.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from marec_env.errors import ConfigError
from marec_env.evaluation import metrics
from marec_env.evaluation.policies import DrawingPolicy, Policy, SlatePolicy, TeamPolicy
from marec_env.evaluation.sample import SampledRequest, sample_request
from marec_env.io import write_bytes
from marec_env.pipeline.request import Request
from marec_env.simulator import Simulator
from marec_env.vector import Action, VecStep
from marec_env.world import World

__all__ = ["RolloutResult", "play_request", "relevant_items", "rollout"]

# Sessions simulated at once; results do not depend on it. A CPU's cache holds few; elsewhere a step
# of many takes about as long as one of few.
_BATCH, _BATCH_ON_DEVICE = 256, 8192
_SAMPLED_AMONG = 5  # requests of session 0: late enough for a session's own clicks to count
_FUNNEL = ("relevant", "candidates", "scored", "slate", "clicked")
_OF_TEAMS = ("candidates", "scored")  # stages that a recommender of whole slates does not pass
_NONE = torch.empty(0)


@dataclass(frozen=True, slots=True)
class RolloutResult:
    """One policy on ``S`` sessions; equal ``seed`` and sessions make two of them comparable."""

    seed: int
    sessions: Tensor
    """Int64 ``[S]``: which sessions were run."""
    per_session: dict[str, Tensor]
    """Float32 ``[S]`` by outcome; NaN where a session has none (nothing relevant, no history)."""
    user: Tensor = _NONE
    """Int64 ``[S]``: who the user was; empty, as all below, where there are no users and items."""
    group: Tensor = _NONE
    """Int64 ``[S]``: the user's group."""
    group_names: tuple[str, ...] = ()
    is_new: Tensor = _NONE
    """Bool ``[S]``: the recommender had no history of the user."""
    impressions: Tensor = _NONE
    """Float32 ``[N]``: how often each item was shown."""
    clicks: Tensor = _NONE
    """Float32 ``[N]``: how often each item was clicked."""
    funnel: dict[str, Tensor] = field(default_factory=dict)
    """Float32 ``[S]`` by stage, in order: relevant items that survived it, per request."""
    item_groups: dict[str, Tensor] = field(default_factory=dict)
    """Int64 ``[N]`` by division (``provider``, ``popularity``, ``cold``): each item's group."""
    privileged: bool = False
    """Whether the policy reads the users' hidden state."""
    sample: SampledRequest | None = None
    """One of a team's requests in session 0: the last of the first five that got a click, if any
    did."""

    def save(self, path: Path) -> None:
        """Write a file that :meth:`load` reads, but for the sampled request: tensors, and all else
        as JSON in its head.
        """
        tensors: dict[str, Tensor] = {}
        rest: dict[str, Any] = {"tables": {}}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                tensors[item.name] = value
            elif isinstance(value, dict):  # safetensors does not keep their order
                rest["tables"][item.name] = list(value)
                tensors |= {f"{item.name}/{key}": part for key, part in value.items()}
            elif item.name != "sample":
                rest[item.name] = value
        owned = {name: value.contiguous().clone() for name, value in tensors.items()}
        write_bytes(path, save(owned, {"rest": json.dumps(rest)}))

    @classmethod
    def load(cls, path: Path) -> RolloutResult:
        """Return what :meth:`save` wrote."""
        with safe_open(path, "pt") as file:
            rest = json.loads(file.metadata()["rest"])
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for name, keys in rest.pop("tables").items():
            found[name] = {key: found.pop(f"{name}/{key}") for key in keys}
        return cls(**{**rest, **found, "group_names": tuple(rest["group_names"])})

    def means(self) -> dict[str, float]:
        """Return the mean of each outcome over the sessions that have it."""
        return {name: float(values.nanmean()) for name, values in self.per_session.items()}


def rollout(
    world: World, policy: Policy, sessions: int, seed: int, batch: int | None = None
) -> RolloutResult:
    """Evaluate a policy on sessions ``0 ... sessions - 1``.

    Args:
        world: see :func:`marec_env.world.build_world`.
        policy: a team or a recommender of slates.
        sessions: size of the cohort, at least 1.
        seed: of the cohort; the same for all policies that are to be compared.
        batch: sessions simulated at once; by default as many as suit the world's device.

    Raises:
        ConfigError: no sessions are asked for.
    """
    if sessions < 1:
        raise ConfigError("no sessions were evaluated; ask for at least one")
    if batch is None:
        here = world.knowledge.device.type == "cpu"
        batch = _BATCH if here else _BATCH_ON_DEVICE
    size = max(1, min(batch, sessions))
    simulator = Simulator(world, size, autoreset=False)
    parts = []
    for first in range(0, sessions, size):
        numbers = torch.arange(first, first + size)
        parts.append(_cohort(simulator, policy, numbers, seed, min(size, sessions - first)))
    return _join(parts)


def play_request(
    simulator: Simulator, policy: Policy, taken: dict[str, Action] | None = None
) -> VecStep:
    """Let a policy answer one request of every session; a team's actions are put into ``taken``."""
    if isinstance(policy, SlatePolicy):
        return simulator.step_slate(policy.recommend(simulator))
    for turn in simulator.turns:
        actions = policy.act({agent: simulator.observe(agent) for agent in turn})
        simulator.act(actions)
        if taken is not None:
            taken.update(actions)
    return simulator.advance()


def relevant_items(simulator: Simulator) -> Tensor:
    """Return bool ``[B, N]``: what was relevant to the users when they asked last.

    The ``measure.true_top`` items of highest lasting relevance among the unseen ones.
    """
    assert simulator.last is not None
    marks = torch.zeros_like(simulator.pipeline.memory.seen)
    return marks.scatter_(1, simulator.last.truth.top, _relevant_of_top(simulator, marks))


def _relevant_of_top(simulator: Simulator, marks: Tensor) -> Tensor:
    """Return bool ``[B, M]``: which of the users' best items were relevant.

    ``marks``, bool ``[B, N]``, must hold no True and is left so: no pass over the catalog.
    """
    outcome = simulator.last
    assert outcome is not None
    truth = outcome.truth
    # The memory has learned of the slate since; before, none of it was seen.
    shown = marks.scatter_(1, outcome.slate, True).gather(1, truth.top)
    marks.scatter_(1, outcome.slate, False)
    unseen = shown | ~simulator.pipeline.memory.seen.gather(1, truth.top)
    return unseen & (unseen.cumsum(dim=1) <= truth.top_count)


@torch.no_grad()
def _cohort(
    simulator: Simulator, policy: Policy, sessions: Tensor, seed: int, kept: int
) -> RolloutResult:
    """Run one batch of sessions to their ends and keep the first ``kept`` of them."""
    simulator.begin(sessions, seed)
    if isinstance(policy, TeamPolicy):
        policy.reset()
    if isinstance(policy, DrawingPolicy):
        policy.begin(simulator.session_keys)
    record = _Record(simulator)
    alive = torch.ones(simulator.num_envs, dtype=torch.bool, device=simulator.device)
    alive[kept:] = False  # the last batch is filled up with sessions that nobody asked for
    taken: dict[str, Action] = {}
    sample = None
    for number in itertools.count():
        if not bool(alive.any()):
            break
        step = play_request(simulator, policy, taken)
        relevance = record.add(step, alive)
        if number < _SAMPLED_AMONG and taken and int(sessions[0]) == 0 and bool(alive[0]):
            found = sample_request(simulator, taken, step, relevance, number)
            if sample is None or found.clicks >= min(sample.clicks, 1):
                sample = found
        alive = alive & ~(step.terminated | step.truncated)
    users, world = simulator.users, simulator.world
    slates = isinstance(policy, SlatePolicy)
    counts = torch.bincount(world.visible_log.item.cpu(), minlength=world.catalog.num_items)
    return RolloutResult(
        seed=seed,
        sessions=sessions[:kept],
        per_session=record.per_session(kept, slates),
        user=users.user_index[:kept].cpu().clone(),
        group=world.population.groups[users.user_index][:kept].cpu().clone(),
        group_names=world.population.group_names,
        is_new=users.is_new[:kept].cpu().clone(),
        impressions=record.impressions.cpu(),
        clicks=record.clicks.cpu(),
        funnel=record.funnel(kept, slates),
        item_groups={
            "provider": world.catalog.providers.cpu(),
            "popularity": metrics.popularity_bands(counts),
            "cold": metrics.cold_items(counts),
        },
        privileged=bool(getattr(policy, "privileged", False)),
        sample=sample,
    )


def _join(parts: list[RolloutResult]) -> RolloutResult:
    """Return the results of all sessions of several batches under one seed."""

    def all_of(name: str) -> list[Any]:
        return [getattr(part, name) for part in parts]

    rows = {n: torch.cat(all_of(n)) for n in ("sessions", "user", "group", "is_new")}
    sums = {n: torch.stack(all_of(n)).sum(dim=0) for n in ("impressions", "clicks")}
    tables = {
        n: {key: torch.cat([table[key] for table in all_of(n)]) for key in getattr(parts[0], n)}
        for n in ("per_session", "funnel")
    }
    changes: dict[str, Any] = {**rows, **sums, **tables}
    return replace(parts[0], **changes)


class _Record:
    """Sums over the requests of each session, up to its end."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        world, device = simulator.world, simulator.device
        self._counts = torch.bincount(world.visible_log.item, minlength=world.catalog.num_items).to(
            device=device, dtype=torch.float32
        )
        self._expected = self._counts.topk(simulator.config.measure.true_top).indices
        self._relevance = torch.zeros_like(simulator.pipeline.memory.seen)  # between requests
        self._sums: dict[str, Tensor] = {}
        self._defined: dict[str, Tensor] = {}  # requests that had a value
        self._satisfaction = torch.zeros(simulator.num_envs, device=device)  # of the last request
        self._stages: dict[str, Tensor] = {}
        self._totals: dict[str, Tensor] = {}  # what adds up over a session
        self.impressions = torch.zeros(world.catalog.num_items, device=device)
        self.clicks = torch.zeros(world.catalog.num_items, device=device)

    def add(self, step: VecStep, alive: Tensor) -> Tensor:
        """Count one request of the sessions that are ``alive`` (bool ``[B]``); return what was
        relevant in the first of all sessions, bool ``[N]``.
        """
        outcome = self._simulator.last
        assert outcome is not None
        slate, feedback = outcome.slate, outcome.feedback
        wanted = _relevant_of_top(self._simulator, self._relevance)
        self._relevance.scatter_(1, outcome.truth.top, wanted)
        for name, value in {**step.metrics, **self._list_metrics(slate, wanted)}.items():
            counted = alive & value.isfinite()
            _add(self._sums, name, torch.where(counted, value, 0.0))
            _add(self._defined, name, counted.to(value.dtype))
            if name == "satisfaction":
                self._satisfaction = torch.where(counted, value, self._satisfaction)
        for stage, count in self._funnel_of(wanted, feedback.clicks).items():
            _add(self._stages, stage, alive * count)
        in_first = self._relevance[0].clone()
        self._relevance.scatter_(1, outcome.truth.top, False)
        gap = feedback.gap_days
        totals = {
            "length": alive,
            "clicks": alive * feedback.clicks.sum(dim=1),
            "gone": alive & step.terminated,
            "returns": alive & (gap > 0) if gap is not None else alive & False,
        }
        for name, value in totals.items():
            _add(self._totals, name, value.to(torch.float32))
        weight = alive.to(torch.float32).unsqueeze(1).expand_as(feedback.clicks)
        self.impressions.scatter_add_(0, slate.flatten(), weight.flatten())
        self.clicks.scatter_add_(0, slate.flatten(), (weight * feedback.clicks).flatten())
        return in_first

    def _list_metrics(self, slate: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        catalog, memory = self._simulator.world.catalog, self._simulator.pipeline.memory
        knowledge = self._simulator.world.knowledge
        expected = self._expected.expand(slate.shape[0], -1)
        topics, history = catalog.topics, memory.history
        return {
            **metrics.against_relevance(slate, self._relevance, expected, wanted),
            "diversity": metrics.intra_list_diversity(slate, partial(knowledge.rows, "text")),
            "novelty": metrics.novelty(slate, self._counts),
            "miscalibration": metrics.miscalibration(slate, history, topics, catalog.num_topics),
        }

    def _funnel_of(self, wanted: Tensor, clicked: Tensor) -> dict[str, Tensor]:
        """Return how many relevant items survive each stage of this request, ``[B]`` each."""
        outcome = self._simulator.last
        assert outcome is not None and outcome.request.candidates is not None
        shown = self._relevance.gather(1, outcome.slate)
        among = self._relevance.gather(1, outcome.request.candidates)
        counts = (wanted, among, among.gather(1, _best_scored(outcome.request)), shown)
        sums = [c.sum(dim=1, dtype=torch.float32) for c in (*counts, shown * clicked)]
        return dict(zip(_FUNNEL, sums, strict=True))

    def per_session(self, kept: int, slates: bool) -> dict[str, Tensor]:
        """Return the outcomes of the first ``kept`` sessions, on the CPU.

        Args:
            kept: how many.
            slates: whether the policy chose slates by itself; objectives of components that decided
                nothing are left out.
        """
        outcome = self._simulator.last
        assert outcome is not None
        found = {
            "return": self._sums["team_reward"],
            "length": self._totals["length"],
            "clicks": self._totals["clicks"],
            "stayed": 1.0 - self._totals["gone"],
            "satisfaction_end": self._satisfaction,
        }
        for name, total in self._sums.items():
            if name == "clicks" or (slates and name.startswith("objective/")):
                continue
            if name not in outcome.feedback.outcomes:  # users' outcomes add up over a session
                defined = self._defined[name]
                total = total / torch.where(defined > 0, defined, torch.nan)
            found[name] = total
        if self._simulator.config.users.returning.sessions > 1:
            found["returns"] = self._totals["returns"]
        return {name: value[:kept].to("cpu", copy=True) for name, value in found.items()}

    def funnel(self, kept: int, slates: bool) -> dict[str, Tensor]:
        """Return how many relevant items survived each stage, a request, ``[kept]`` each."""
        stages = [stage for stage in _FUNNEL if not (slates and stage in _OF_TEAMS)]
        length = self._totals["length"].clamp(min=1)
        return {stage: (self._stages[stage] / length)[:kept].cpu() for stage in stages}


def _add(table: dict[str, Tensor], name: str, value: Tensor) -> None:
    table[name] = table[name] + value if name in table else value


def _best_scored(request: Request) -> Tensor:
    """Return the places of the candidates that score alone would show, int64 ``[B, K]``.

    Compared with the slate they tell what diversity and exploration did to the relevant items.
    """
    assert request.candidates is not None and request.slate is not None
    if request.scores is None:  # a slate handed in from outside was never scored
        return torch.zeros_like(request.slate)
    scores = request.scores if request.veto is None else request.scores - request.veto
    return scores.topk(request.slate.shape[1], dim=1).indices
