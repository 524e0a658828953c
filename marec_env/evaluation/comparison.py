"""Several policies on the same sessions, as ``evaluation.json`` holds them.

Every outcome has its interval and its paired difference to one baseline, the reference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator
from torch import Tensor

from marec_env.evaluation.metrics import coverage
from marec_env.evaluation.rollout import RolloutResult
from marec_env.evaluation.sample import SampledRequest
from marec_env.evaluation.statistics import (
    Estimate,
    finite_or_none,
    gini,
    mean_difference,
    mean_estimate,
    paired_difference,
)
from marec_env.reporting.table import csv_text

__all__ = ["Evaluation", "Numbers", "PolicyNumbers", "Shares", "compare_outcomes"]

RANKED_BY = ("clicks", "return")
"""What policies are ranked by: the first of these outcomes that they have."""
GROUP_OUTCOMES = ("clicks", "satisfaction", "length", "ndcg")
"""Outcomes that are also reported by user group."""
REGRETTED = ("return", "clicks", "length", "satisfaction")
"""Outcomes whose distance to the oracle is reported."""
MAX_LISTED_GROUPS = 100  # of items; more are summed up by their Gini index alone


class _Document(BaseModel):
    """A part of ``evaluation.json``; what is not named here is not read."""

    model_config = ConfigDict(extra="ignore")


class Numbers(_Document):
    """A value with its interval over sessions; ``None`` where it does not exist."""

    mean: FiniteFloat | None = None
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    sessions: int = 0
    pairing_factor: FiniteFloat | None = None
    """Of a difference, see :class:`marec_env.evaluation.statistics.Estimate`."""
    difference: Numbers | None = None
    """To the reference, session by session."""

    @classmethod
    def of(cls, found: Estimate, **more: Any) -> Numbers:
        """Return an estimate as JSON takes it."""
        return cls.model_validate({**found.as_json("mean"), "sessions": found.count, **more})

    def estimate(self) -> Estimate:
        """Return the value as statistics have it; what does not exist is NaN."""
        value, low, high = (math.nan if x is None else x for x in (self.mean, self.low, self.high))
        return Estimate(value, low, high, count=self.sessions)


class Shares(_Document):
    """What groups of items get of the users' attention.

    Exposure in proportion to the catalog would give every group a share of impressions equal to its
    share of items (Singh and Joachims, "Fairness of Exposure in Rankings", KDD 2018, with equal
    merit). Shares sum to 1, to 0 where there were none; there are no lists of more than
    :data:`MAX_LISTED_GROUPS`.
    """

    groups: int
    gini: FiniteFloat
    """Of impressions an item, over the groups."""
    items: list[FiniteFloat] = []
    """Each group's share of the catalog."""
    impressions: list[FiniteFloat] = []
    """Each group's share of what was shown."""
    clicks: list[FiniteFloat] = []
    """Each group's share of what was clicked."""
    rates: list[FiniteFloat | None] = []
    """Each group's clicks an impression; null where nothing of it was shown."""

    @classmethod
    def of(cls, impressions: Tensor, clicks: Tensor, groups: Tensor) -> Shares:
        """Sum up how often each item was shown and clicked, float32 ``[N]``.

        Args:
            impressions: ``[N]``.
            clicks: ``[N]``.
            groups: int64 ``[N]``, the group of each item; groups without items do not count.
        """
        place = torch.unique(groups, return_inverse=True)[1]
        items = torch.bincount(place).to(torch.float64)
        shown, clicked = (torch.bincount(place, weights=w.double()) for w in (impressions, clicks))
        sums = {"items": items, "impressions": shown, "clicks": clicked}
        listed = sums if items.numel() <= MAX_LISTED_GROUPS else {}
        shares = {name: (s / s.sum().clamp(min=1.0)).tolist() for name, s in listed.items()}
        rates = [finite_or_none(rate) for rate in (clicked / shown).tolist()] if listed else []
        gap = gini((shown / items).numpy())
        return cls(groups=items.numel(), gini=gap, rates=rates, **shares)

    @model_validator(mode="after")
    def _one_share_a_group(self) -> Shares:
        if not len(self.items) == len(self.impressions) or len(self.items) not in (0, self.groups):
            raise ValueError(f"{self.groups} groups need as many items and impressions, or none")
        if any(len(part) not in (0, self.groups) for part in (self.clicks, self.rates)):
            raise ValueError(f"{self.groups} groups need as many clicks and rates, or none")
        return self

    def ratios(self) -> list[float]:
        """Return each group's share of what was shown over its share of the catalog."""
        shares = zip(self.impressions, self.items, strict=True)
        return [shown / there if there > 0 else math.nan for shown, there in shares]


class PolicyNumbers(_Document):
    """What an evaluation found of one policy."""

    privileged: bool = False
    outcomes: dict[str, Numbers]
    regret: dict[str, Numbers] = {}
    """How much more the oracle reaches on the same sessions."""
    cohort: dict[str, FiniteFloat | None] = {}
    """Of all sessions together: catalog coverage and Gini of exposure."""
    groups: dict[str, dict[str, Numbers]] = {}
    """By outcome: each user group, new and known users."""
    gaps: dict[str, dict[str, Numbers]] = {}
    """By outcome: how far user groups lie apart, with Welch's interval."""
    exposure: dict[str, Shares] = {}
    """By division of the catalog."""
    funnel: dict[str, FiniteFloat | None] = {}
    """By stage: relevant items a request."""
    sample: SampledRequest | None = None
    """One request of a team."""

    @model_validator(mode="after")
    def _is_ranked(self) -> PolicyNumbers:
        name = next((name for name in RANKED_BY if name in self.outcomes), RANKED_BY[0])
        if name not in self.outcomes or self.outcomes[name].mean is None:
            raise ValueError(f"outcomes.{name}.mean is no number")
        return self

    @property
    def clicks(self) -> float:
        """Mean clicks a session, which every policy of the recommender has."""
        return self.outcomes["clicks"].estimate().value


class Evaluation(_Document):
    """``evaluation.json``."""

    sessions: int = Field(ge=1)
    seed: int
    reference: str | None = None
    """The unprivileged baseline that the others are compared with."""
    oracle: str | None = None
    """The best privileged policy by clicks a session."""
    policies: dict[str, PolicyNumbers]
    """By name: the trained team, then baselines and oracles, of each the best last."""
    play: Literal["greedy", "sampled"] = "greedy"
    """Whether the trained team took its most probable actions or drew them."""
    env_steps: FiniteFloat | None = None
    """How far the team was trained; older versions did not say."""
    git: dict[str, Any] | None = None

    def outcome_names(self) -> list[str]:
        """Return every outcome that any of the policies has."""
        return list(dict.fromkeys(n for p in self.policies.values() for n in p.outcomes))

    def as_dict(self) -> dict[str, Any]:
        """Return the document as JSON takes it: numbers that do not exist are null."""
        return self.model_dump(exclude_unset=True)

    def as_csv(self) -> str:
        """Return one row for each policy and outcome."""
        header = ["policy", "outcome", "mean", "low", "high", "difference", "diff_low", "diff_high"]
        rows = []
        for name, policy in self.policies.items():
            for outcome in [n for n in self.outcome_names() if n in policy.outcomes]:
                found = policy.outcomes[outcome]
                pair = [found.estimate(), found.difference and found.difference.estimate()]
                ends = [[e.value, e.low, e.high] if e else [None] * 3 for e in pair]
                rows.append([name, outcome, *ends[0], *ends[1]])
            if "clicks" in policy.regret:  # called so in comparison.csv too
                lost = policy.regret["clicks"].estimate()
                rows.append([name, "regret", lost.value, lost.low, lost.high, None, None, None])
        return csv_text(header, rows)


def compare_outcomes(
    outcomes: Mapping[str, RolloutResult], candidates: tuple[str, ...]
) -> Evaluation:
    """Compare policies that met the same sessions.

    Args:
        outcomes: by policy name.
        candidates: names among which the best unprivileged one (:data:`RANKED_BY`) is the
            reference; all unprivileged policies if none of them is.

    Raises:
        ValueError: the policies met different sessions.
    """
    first = next(iter(outcomes.values()))
    for name, other in outcomes.items():
        if other.seed != first.seed or other.sessions.tolist() != first.sessions.tolist():
            raise ValueError(f"'{name}' was evaluated on other sessions than the rest")
    by = next(name for name in RANKED_BY if name in first.per_session)
    ranked = {name: found.means()[by] for name, found in outcomes.items()}
    fair = [name for name, found in outcomes.items() if not found.privileged]
    pool = [name for name in fair if name in candidates] or fair or list(outcomes)
    reference = max(pool, key=ranked.__getitem__)
    # In every file and table alike: those who were not candidates, then the others, best last.
    order = sorted(outcomes, key=lambda n: (n in candidates, outcomes[n].privileged, ranked[n]))
    oracle = max((n for n in outcomes if n not in fair), key=ranked.__getitem__, default=None)

    return Evaluation(
        sessions=int(first.sessions.numel()),
        seed=first.seed,
        reference=reference,
        oracle=oracle,
        policies={
            name: _policy(
                outcomes[name],
                outcomes[reference] if name != reference else None,
                outcomes[oracle] if oracle not in (None, name) else None,
            )
            for name in order
        },
    )


def _policy(
    found: RolloutResult,
    reference: RolloutResult | None,
    oracle: RolloutResult | None,
) -> PolicyNumbers:
    """Return a policy's numbers; without what it is itself, it has no difference to that."""
    outcomes, values = {}, found.per_session
    base = {} if reference is None else reference.per_session
    for metric, value in values.items():
        outcomes[metric] = Numbers.of(mean_estimate(value.numpy()))
        if metric in base:
            pair = paired_difference(value.numpy(), base[metric].numpy())
            factor = finite_or_none(pair.pairing_factor)
            outcomes[metric].difference = Numbers.of(pair, pairing_factor=factor)
    best = {} if oracle is None else oracle.per_session
    grouped = [m for m in GROUP_OUTCOMES if m in outcomes] if found.group_names else []
    by_group = {m: _by_group(found, m) for m in grouped}
    shown = found.impressions
    return PolicyNumbers(
        privileged=found.privileged,
        outcomes=outcomes,
        regret={
            m: Numbers.of(paired_difference(best[m].numpy(), values[m].numpy()))
            for m in REGRETTED
            if m in best and m in values
        },
        cohort={"coverage": coverage(shown), "gini": gini(shown.numpy())} if len(shown) else {},
        groups={metric: groups for metric, (groups, _) in by_group.items()},
        gaps={metric: gaps for metric, (_, gaps) in by_group.items()},
        exposure={
            division: Shares.of(found.impressions, found.clicks, of_item)
            for division, of_item in found.item_groups.items()
        },
        funnel={
            stage: finite_or_none(float(count.nanmean())) for stage, count in found.funnel.items()
        },
        **({} if found.sample is None else {"sample": found.sample}),
    )


def _by_group(found: RolloutResult, metric: str) -> tuple[dict[str, Numbers], dict[str, Numbers]]:
    """Return an outcome by user group, and the gaps between groups.

    Two groups are compared as they are named. Of more, ``best - worst group`` picks two by their
    values, which makes the gap look larger than it is. ``known - new users`` follows. A gap without
    users on either side is left out.
    """
    values = found.per_session[metric]
    parts = {n: values[found.group == k].numpy() for k, n in enumerate(found.group_names)}
    known, new = values[~found.is_new].numpy(), values[found.is_new].numpy()
    means = {name: mean_estimate(part) for name, part in parts.items()}
    there = {name: part for name, part in parts.items() if means[name].count}
    gaps = {}
    if len(there) == 2:
        gaps[" - ".join(there)] = mean_difference(*there.values())
    elif len(there) > 2:
        ordered = sorted(there, key=lambda name: means[name].value)
        gaps["best - worst group"] = mean_difference(there[ordered[-1]], there[ordered[0]])
    if known.size and new.size:
        gaps["known - new users"] = mean_difference(known, new)
    means |= {"new users": mean_estimate(new), "known users": mean_estimate(known)}
    groups, apart = ({n: Numbers.of(e) for n, e in part.items()} for part in (means, gaps))
    return groups, apart
