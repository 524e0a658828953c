"""What came of a request, and the reward terms made of it: float32 ``[B]`` each, by name.

A term of one's own is any function ``(Outcome) -> float32 [B]``, named in YAML as
``package.module:function``. Terms are per request and lie in [0, 1] unless their docstring says
otherwise. None can be raised by padding the slate, by showing nothing or by repeating an item: what
a component may choose is not what it is judged on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marec_env import random
from marec_env.compiled import compiled, eager
from marec_env.pipeline.memory import EXPOSURE_KEEP
from marec_env.pipeline.ranking import provider_share, unsuitable
from marec_env.pipeline.request import Request
from marec_env.registry import Registry
from marec_env.rewards.config import MeasureConfig
from marec_env.vector import means

if TYPE_CHECKING:
    from marec_env.users.base import Feedback, Users

__all__ = ["TERMS", "Outcome", "Term", "Truth", "broken_rules"]

_SMALL = 1e-6


@dataclass(frozen=True)
class Truth:
    """The users' hidden state just before they answered; objectives may use it, components not."""

    candidate_probability: Tensor
    """Float32 ``[B, C]``: click probability, if examined, of each candidate."""
    probe: Tensor
    """Int64 ``[B, P]``: items that no component chose, drawn anew for each request."""
    probe_probability: Tensor
    """Float32 ``[B, P]``: click probability, if examined, of each probe item."""
    top: Tensor
    """Int64 ``[B, M]``: the items most relevant to the user's lasting taste, best first, among
    those not known at the episode's start."""
    top_count: int
    """How many of the unseen ones among ``top`` recall should find."""

    @classmethod
    def of(cls, users: Users, request: Request, top: Tensor, measure: MeasureConfig) -> Truth:
        """Ask the users before they see a request's slate.

        Args:
            users: about to answer.
            request: with its candidates.
            top: see :attr:`top`.
            measure: how many probe items, and how many of ``top``.
        """
        candidates = request.need("candidates")
        count, catalog = measure.probe_items, request.knowledge.num_items
        probe = random.integers(request.keys, request.step, "simulator/probe", count, catalog)
        probability = users.click_probability(torch.cat([candidates, probe], dim=1))
        width = candidates.shape[1]
        return cls(probability[:, :width], probe, probability[:, width:], top, measure.true_top)


@dataclass(frozen=True)
class Outcome:
    """One answered request of ``B`` sessions."""

    request: Request
    """What the components decided."""
    feedback: Feedback
    """What the users answered."""
    truth: Truth
    """What the users kept to themselves."""
    seen_before: Tensor
    """Bool ``[B, N]``: what the memory had seen before the slate was shown; its own tensor, so
    terms must be computed before it learns of the slate."""
    attributes: dict[str, Tensor]
    """The catalog's further numbers, ``[N]`` each."""

    def __repr__(self) -> str:
        """Say sizes and means, a few lines."""
        found, candidates = self.feedback, self.request.candidates
        of = "" if candidates is None else f" of {candidates.shape[1]} candidates"
        told = {"engagement": found.engagement, "satisfaction": found.satisfaction}
        return (
            f"Outcome of a request of {self.num_sessions} sessions: slates of "
            f"{self.slate.shape[1]}{of} of {self.request.knowledge.num_items:,} items; "
            f"{int(found.left.sum())} users left\n  sums over the slate, mean over sessions: "
            + means({name: values.sum(1) for name, values in found.behaviours.items()})
            + f"\n  means: {means(told)}"
        )

    @property
    def num_sessions(self) -> int:
        """The number of sessions, B."""
        return self.request.num_sessions

    @property
    def slate(self) -> Tensor:
        """Int64 ``[B, K]``, the items shown."""
        assert self.request.slate is not None
        return self.request.slate

    def share_found(self, items: Tensor) -> Tensor:
        """Return the share of the user's best unseen items that is among ``items`` ``[B, M]``.

        The best are the first ``top_count`` of ``truth.top`` that were still unseen; where fewer
        are left, those.
        """
        top, count = self.truth.top, self.truth.top_count
        if not eager(items):
            found, wanted = _found_by_table(items, top, self.seen_before, count)
        else:
            found, wanted = torch.empty(2, len(items), dtype=torch.int64)
            _find(
                items.numpy(),
                top.numpy(),
                self.seen_before.numpy(),
                count,
                found.numpy(),
                wanted.numpy(),
            )
        return found / wanted.clamp(min=1)


@compiled
def _find(
    items: NDArray[np.int64],
    top: NDArray[np.int64],
    seen: NDArray[np.bool_],
    count: int,
    found: NDArray[np.int64],
    wanted: NDArray[np.int64],
) -> None:
    """Count the first ``count`` unseen items of each row of ``top``, and those among ``items``."""
    member = np.zeros(seen.shape[1], np.bool_)
    for session in range(len(items)):
        for item in items[session]:
            member[item] = True
        found[session] = wanted[session] = 0
        for item in top[session]:
            if wanted[session] == count:
                break
            if not seen[session, item]:
                wanted[session] += 1
                found[session] += member[item]
        for item in items[session]:
            member[item] = False


def _found_by_table(items: Tensor, top: Tensor, seen: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return what :func:`_find` counts, in tensor operations."""
    member = torch.zeros_like(seen).scatter_(1, items, True)
    unseen = ~seen.gather(1, top)
    rank = unseen.cumsum(1)
    unseen.logical_and_(rank <= count)
    return (member.gather(1, top) & unseen).sum(1), rank[:, -1].clamp(max=count)


def correlation(scores: Tensor, target: Tensor) -> Tensor:
    """Return Pearson's correlation along dim 1, float32 ``[B]``; 0 where either is constant."""
    a = scores - scores.mean(1, keepdim=True)
    b = target - target.mean(1, keepdim=True)
    spread = a.square().sum(1).sqrt() * b.square().sum(1).sqrt()
    return torch.where(spread > _SMALL, (a * b).sum(1) / spread.clamp(min=_SMALL), 0.0)


def logit(probability: Tensor) -> Tensor:
    """Return log-odds, safe at 0 and 1."""
    return torch.logit(probability, eps=_SMALL)


Term = Callable[[Outcome], Tensor]
TERMS: Registry[Term] = Registry("reward term")


@TERMS.register("engagement")
def engagement(outcome: Outcome) -> Tensor:
    """Share of the slate the user engaged with, as the user model defines it."""
    return outcome.feedback.engagement


@TERMS.register("satisfaction")
def satisfaction(outcome: Outcome) -> Tensor:
    """How content the user is after the request."""
    return outcome.feedback.satisfaction


@TERMS.register("retention")
def retention(outcome: Outcome) -> Tensor:
    """1 while the user stays, 0 when they leave."""
    return 1.0 - outcome.feedback.left.to(torch.float32)


@TERMS.register("recall")
def recall(outcome: Outcome) -> Tensor:
    """Share of the user's most relevant unseen items that are among the candidates."""
    assert outcome.request.candidates is not None
    return outcome.share_found(outcome.request.candidates)


@TERMS.register("probe_quality")
def probe_quality(outcome: Outcome) -> Tensor:
    """How well the profile predicts what the user would click among items nobody chose.

    (1 + r) / 2 with r the correlation between profile score (mean of both spaces) and click logit
    over the probe items.
    """
    request, truth = outcome.request, outcome.truth
    if request.profile_cf is None or request.profile_text is None:
        return torch.full_like(outcome.feedback.engagement, 0.5)
    cf = request.scores_of("cf", truth.probe)
    text = request.scores_of("text", truth.probe)
    return 0.5 * (1.0 + correlation(cf + text, logit(truth.probe_probability)))


@TERMS.register("ranking_quality")
def ranking_quality(outcome: Outcome) -> Tensor:
    """How well the weighted blocks predict clicks over all candidates, shown or not."""
    scores = outcome.request.scores
    if scores is None:
        return torch.full_like(outcome.feedback.engagement, 0.5)
    return 0.5 * (1.0 + correlation(scores, logit(outcome.truth.candidate_probability)))


@TERMS.register("compute_cost")
def compute_cost(outcome: Outcome) -> Tensor:
    """Cost of the feature blocks computed; give it a negative weight."""
    cost = outcome.request.compute_cost
    return torch.zeros_like(outcome.feedback.engagement) if cost is None else cost


@TERMS.register("extra_cost")
def extra_cost(outcome: Outcome) -> Tensor:
    """Cost of messages and of further components; give it a negative weight."""
    cost = outcome.request.extra_cost
    return torch.zeros_like(outcome.feedback.engagement) if cost is None else cost


@TERMS.register("within_limits")
def within_limits(outcome: Outcome) -> Tensor:
    """Share of the slate that the house's rules allow (section ``pipeline.audit``).

    An item breaks them if it exceeds a limit of the user, or if its topic or provider, this slate
    included, has more than its share of what the session was shown (topics: decayed).
    """
    broken = torch.stack([*broken_rules(outcome.request, outcome.slate).values()]).any(0)
    return 1.0 - broken.to(torch.float32).mean(1)


def broken_rules(request: Request, slate: Tensor) -> dict[str, Tensor]:
    """Return, by key of the section ``pipeline.audit``, which items of a slate ``[B, K]`` break the
    rule, bool ``[B, K]``, in a request whose memory has not learned of it yet.
    """
    memory, audit = request.memory, request.config.audit
    size = slate.shape[1]
    topics = request.topics_of(slate)
    exposure = EXPOSURE_KEEP * memory.exposure
    share = torch.full(slate.shape, (1.0 - EXPOSURE_KEEP) / size, device=slate.device)
    exposure = exposure.scatter_add(1, topics, share)
    found = {
        "suitability": unsuitable(request, slate),
        "max_topic_share": exposure.gather(1, topics) > audit.max_topic_share,
    }
    if audit.max_provider_share < 1.0:
        providers = request.knowledge.providers[slate]
        here = (providers.unsqueeze(2) == providers.unsqueeze(1)).to(torch.float32).mean(2)
        earlier = memory.requests.unsqueeze(1).to(torch.float32)
        share = (earlier * provider_share(request, slate) + here) / (earlier + 1.0)
        found["max_provider_share"] = share > audit.max_provider_share
    return found


@TERMS.register("suitability")
def suitability(outcome: Outcome) -> Tensor:
    """Share of the slate that exceeds none of the user's limits."""
    return 1.0 - unsuitable(outcome.request, outcome.slate).to(torch.float32).mean(1)


@TERMS.register("vetoed")
def vetoed(outcome: Outcome) -> Tensor:
    """Share of the candidates that the auditor vetoed; give it a negative weight."""
    veto = outcome.request.veto
    if veto is None:
        return torch.zeros_like(outcome.feedback.engagement)
    return (veto > 0).to(torch.float32).mean(1)


@TERMS.register("diversity")
def diversity(outcome: Outcome) -> Tensor:
    """Gini-Simpson index of the slate's topics: 1 less the chance that two items share one."""
    topics = outcome.request.topics_of(outcome.slate)
    same = topics.unsqueeze(2) == topics.unsqueeze(1)
    return 1.0 - same.to(torch.float32).mean((1, 2))


@TERMS.register("novelty")
def novelty(outcome: Outcome) -> Tensor:
    """Mean unpopularity of the slate: 1 less popularity (share of users, over the largest)."""
    return 1.0 - outcome.request.knowledge.popularity[outcome.slate].mean(1)


@TERMS.register("coverage")
def coverage(outcome: Outcome) -> Tensor:
    """Share of the catalog's topics that this session has been shown so far."""
    memory, knowledge = outcome.request.memory, outcome.request.knowledge
    shown = torch.zeros(outcome.slate.shape[0], knowledge.num_topics + 1, device=memory.device)
    earlier = memory.session_items.flatten(1)
    topics = torch.where(earlier >= 0, knowledge.topics[earlier.clamp(min=0)], knowledge.num_topics)
    shown.scatter_(1, topics, 1.0)
    shown.scatter_(1, outcome.request.topics_of(outcome.slate), 1.0)
    return shown[:, :-1].mean(1)


@TERMS.register("revenue")
def revenue(outcome: Outcome) -> Tensor:
    """Price of what was bought (``purchase``, else clicks) over the dearest item's price x K.

    Without a ``price`` attribute every item costs the same.
    """
    bought = outcome.feedback.behaviours.get("purchase", outcome.feedback.clicks)
    price = outcome.attributes.get("price")
    if price is None:
        return bought.mean(1)
    return (bought * price[outcome.slate]).mean(1) / price.max().clamp(min=1e-6)


@TERMS.register("exposure_fairness")
def exposure_fairness(outcome: Outcome) -> Tensor:
    """Share of the slate from the less popular half of the catalog, over that half's size, <= 1."""
    knowledge = outcome.request.knowledge
    cut = knowledge.popularity.median()
    rare = (knowledge.popularity[outcome.slate] <= cut).to(torch.float32).mean(1)
    size = (knowledge.popularity <= cut).to(torch.float32).mean()
    return (rare / size.clamp(min=1e-6)).clamp(max=1.0)
