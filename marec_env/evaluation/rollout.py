"""Run a policy on a fixed cohort of sessions, each once, under common random numbers.

The same session numbers and seed meet the same users with the same luck whatever the policy and the
batch size, so outcomes of two policies are compared session by session. What is relevant to a user
at a request is what recall is judged on: the ``measure.true_top`` (50) items of highest lasting
relevance among those the user has not consumed or been shown. Ranking metrics are taken against it
at every request and averaged over the session's requests.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env.evaluation import metrics
from marec_env.evaluation.outcomes import Outcomes, join
from marec_env.evaluation.policies import DrawingPolicy, Policy, SlatePolicy, TeamPolicy
from marec_env.pipeline.request import Request
from marec_env.simulator import Simulator
from marec_env.vector import VecStep
from marec_env.world import World

__all__ = ["DEFAULT_BATCH", "play_request", "relevant_items", "rollout"]

DEFAULT_BATCH = 256  # sessions simulated at once; results do not depend on it
FUNNEL = ("relevant", "candidates", "scored", "slate", "clicked")
_OF_TEAMS = ("candidates", "scored")  # stages that a recommender of whole slates does not pass


def rollout(
    world: World, policy: Policy, sessions: int, seed: int, batch: int = DEFAULT_BATCH
) -> Outcomes:
    """Evaluate a policy on sessions ``0 ... sessions - 1``.

    Args:
        world: see :func:`marec_env.world.build_world`.
        policy: a team or a recommender of slates.
        sessions: size of the cohort, at least 1.
        seed: of the cohort; the same for all policies that are to be compared.
        batch: sessions simulated at once.
    """
    size = max(1, min(batch, sessions))
    simulator = Simulator(world, size, autoreset=False)
    parts = []
    for first in range(0, sessions, size):
        numbers = torch.arange(first, first + size)
        parts.append(_cohort(simulator, policy, numbers, seed, min(size, sessions - first)))
    return join(parts)


@torch.no_grad()
def _cohort(
    simulator: Simulator, policy: Policy, sessions: Tensor, seed: int, kept: int
) -> Outcomes:
    """Run one batch of sessions to their ends and keep the first ``kept`` of them."""
    step = simulator.begin(sessions, seed)
    if isinstance(policy, TeamPolicy):
        policy.reset()
    if isinstance(policy, DrawingPolicy):
        policy.begin(simulator.session_keys)
    population = simulator.world.population
    record = _Record(simulator)
    alive = torch.ones(simulator.num_envs, dtype=torch.bool, device=simulator.device)
    alive[kept:] = False  # the last batch is filled up with sessions that nobody asked for
    while bool(alive.any()):
        step = play_request(simulator, policy)
        record.add(step, alive)
        alive = alive & ~(step.terminated | step.truncated)
    users = simulator.users
    return Outcomes(
        seed=seed,
        sessions=sessions[:kept],
        per_session=record.per_session(kept, isinstance(policy, SlatePolicy)),
        user=users.user_index[:kept].cpu().clone(),
        group=population.groups[users.user_index][:kept].cpu().clone(),
        group_names=population.group_names,
        is_new=users.is_new[:kept].cpu().clone(),
        impressions=record.impressions.cpu(),
        clicks=record.clicks.cpu(),
        funnel=record.funnel(kept, isinstance(policy, SlatePolicy)),
        item_groups=_item_groups(simulator.world),
    )


def play_request(simulator: Simulator, policy: Policy) -> VecStep:
    """Let a policy answer one request of every session."""
    if isinstance(policy, SlatePolicy):
        return simulator.step_slate(policy.recommend(simulator))
    for turn in simulator.turns:
        simulator.act(policy.act({agent: simulator.observe(agent) for agent in turn}))
    return simulator.advance()


def relevant_items(simulator: Simulator) -> Tensor:
    """Return bool ``[B, N]``: what was relevant to the users when they asked last.

    The ``measure.true_top`` items of highest lasting relevance among the unseen ones.
    """
    outcome = simulator.last
    assert outcome is not None
    truth = outcome.truth
    # The memory has learned of the slate since; before, none of it was seen.
    seen = simulator.pipeline.memory.seen.scatter(1, outcome.slate, False)
    unseen = ~seen.gather(1, truth.top)
    wanted = unseen & (unseen.cumsum(dim=1) <= truth.top_count)
    return torch.zeros_like(seen).scatter_(1, truth.top, wanted)


def _item_groups(world: World) -> dict[str, Tensor]:
    """Return the divisions of the catalog by which exposure is reported, int64 ``[N]`` each."""
    counts = torch.bincount(world.visible_log.item.cpu(), minlength=world.catalog.num_items)
    return {
        "provider": world.catalog.providers.cpu(),
        "popularity": metrics.popularity_bands(counts),
    }


class _Record:
    """Sums over the requests of each session, up to its end."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        world, device = simulator.world, simulator.device
        self._counts = torch.bincount(world.visible_log.item, minlength=world.catalog.num_items).to(
            device=device, dtype=torch.float32
        )
        self._expected = self._counts.topk(simulator.config.measure.true_top).indices
        self._sums: dict[str, Tensor] = {}
        self._totals: frozenset[str] = frozenset()  # outcomes that add up over a session
        self._defined: dict[str, Tensor] = {}
        self._last: dict[str, Tensor] = {}
        self._stages: dict[str, Tensor] = {}
        self._length = torch.zeros(simulator.num_envs, device=device)
        self._click_total = torch.zeros(simulator.num_envs, device=device)
        self._returns = torch.zeros(simulator.num_envs, device=device)
        self._gone = torch.zeros(simulator.num_envs, dtype=torch.bool, device=device)
        self.impressions = torch.zeros(world.catalog.num_items, device=device)
        self.clicks = torch.zeros(world.catalog.num_items, device=device)

    def add(self, step: VecStep, alive: Tensor) -> None:
        """Count one request of the sessions that are ``alive`` (bool ``[B]``)."""
        outcome = self._simulator.last
        assert outcome is not None
        slate, clicked = outcome.slate, outcome.feedback.clicks
        relevance = relevant_items(self._simulator)
        values = {**step.metrics, **self._list_metrics(slate, relevance)}
        for name, value in values.items():
            counted = alive & value.isfinite()
            zero = torch.zeros_like(value)
            self._sums[name] = self._sums.get(name, zero) + torch.where(counted, value, zero)
            self._defined[name] = self._defined.get(name, zero) + counted
            self._last[name] = torch.where(counted, value, self._last.get(name, zero))
        self._count_funnel(relevance.to(torch.float32), clicked, alive)
        self._totals = frozenset(outcome.feedback.outcomes)
        self._length += alive
        self._click_total += alive * clicked.sum(dim=1)
        self._gone |= alive & step.terminated
        if outcome.feedback.gap_days is not None:
            self._returns += alive & (outcome.feedback.gap_days > 0)
        weight = alive.to(torch.float32).unsqueeze(1).expand_as(clicked)
        self.impressions.scatter_add_(0, slate.flatten(), weight.flatten())
        self.clicks.scatter_add_(0, slate.flatten(), (weight * clicked).flatten())

    def _list_metrics(self, slate: Tensor, relevance: Tensor) -> dict[str, Tensor]:
        catalog, memory = self._simulator.world.catalog, self._simulator.pipeline.memory
        expected = self._expected.expand(slate.shape[0], -1)
        return {
            "precision": metrics.precision(slate, relevance),
            "recall": metrics.recall(slate, relevance),
            "f1": metrics.f1(slate, relevance),
            "ndcg": metrics.ndcg(slate, relevance),
            "mrr": metrics.reciprocal_rank(slate, relevance),
            "hit_rate": metrics.hit_rate(slate, relevance),
            "diversity": metrics.intra_list_diversity(slate, catalog.text),
            "novelty": metrics.novelty(slate, self._counts),
            "serendipity": metrics.serendipity(slate, relevance, expected),
            "miscalibration": metrics.miscalibration(
                slate, memory.history, catalog.topics, catalog.num_topics
            ),
        }

    def _count_funnel(self, relevance: Tensor, clicked: Tensor, alive: Tensor) -> None:
        outcome = self._simulator.last
        assert outcome is not None and outcome.request.candidates is not None
        shown = relevance.gather(1, outcome.slate)
        among = relevance.gather(1, outcome.request.candidates)
        stages = {
            "relevant": relevance.sum(dim=1),
            "candidates": among.sum(dim=1),
            "scored": among.gather(1, _best_scored(outcome.request)).sum(dim=1),
            "slate": shown.sum(dim=1),
            "clicked": (shown * clicked).sum(dim=1),
        }
        for stage, count in stages.items():
            self._stages[stage] = self._stages.get(stage, torch.zeros_like(count)) + alive * count

    def per_session(self, kept: int, slates: bool) -> dict[str, Tensor]:
        """Return the outcomes of the first ``kept`` sessions, on the CPU.

        Args:
            kept: how many.
            slates: whether the policy chose slates by itself; objectives of components that decided
                nothing are left out.
        """
        found = {
            "return": self._sums["team_reward"],
            "length": self._length,
            "clicks": self._click_total,
            "stayed": 1.0 - self._gone.to(torch.float32),
            "satisfaction_end": self._last["satisfaction"],
        }
        for name, total in self._sums.items():
            if name == "clicks" or (slates and name.startswith("objective/")):
                continue
            if name in self._totals:
                found[name] = total
                continue
            defined = self._defined[name]
            found[name] = total / torch.where(defined > 0, defined, torch.nan)
        if self._simulator.config.users.returning.sessions > 1:
            found["returns"] = self._returns
        return {name: value[:kept].to("cpu", copy=True) for name, value in found.items()}

    def funnel(self, kept: int, slates: bool) -> dict[str, Tensor]:
        """Return how many relevant items survived each stage, a request, ``[kept]`` each."""
        stages = [stage for stage in FUNNEL if not (slates and stage in _OF_TEAMS)]
        length = self._length.clamp(min=1)
        return {stage: (self._stages[stage] / length)[:kept].cpu() for stage in stages}


def _best_scored(request: Request) -> Tensor:
    """Return the places of the candidates that score alone would show, int64 ``[B, K]``.

    Compared with the slate they tell what diversity and exploration did to the relevant items.
    """
    assert request.candidates is not None and request.slate is not None
    if request.scores is None:  # a slate handed in from outside was never scored
        return torch.zeros_like(request.slate)
    scores = request.scores if request.bonus is None else request.scores + request.bonus
    scores = scores if request.veto is None else scores - request.veto
    return scores.topk(request.slate.shape[1], dim=1).indices
