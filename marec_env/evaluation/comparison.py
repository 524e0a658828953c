"""Several policies on the same sessions: every outcome with its interval and paired difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from marec_env.evaluation.metrics import coverage
from marec_env.evaluation.rollout import RolloutResult
from marec_env.evaluation.statistics import (
    Estimate,
    PairedDifference,
    finite_or_none,
    gini,
    mean_difference,
    mean_estimate,
    paired_difference,
)
from marec_env.reporting.table import csv_text

__all__ = ["Comparison", "compare_outcomes", "exposure_by_group"]

RANKED_BY = "clicks"
"""What the best baseline is chosen by: an outcome that every kind of policy has in one unit."""
GROUP_OUTCOMES = ("clicks", "satisfaction", "length", "ndcg")
"""Outcomes that are also reported by user group."""
REGRETTED = ("return", "clicks", "length", "satisfaction")
"""Outcomes whose distance to the oracle is reported."""
MAX_LISTED_GROUPS = 100  # of items; more are summed up by their Gini index alone


@dataclass(frozen=True, slots=True)
class Comparison:
    """Policies by name, in order of evaluation."""

    outcomes: dict[str, RolloutResult]
    privileged: dict[str, bool]
    reference: str
    """The unprivileged baseline that the others are compared with."""

    def metric_names(self) -> list[str]:
        """Return every outcome that any of the policies has."""
        return list(dict.fromkeys(n for o in self.outcomes.values() for n in o.per_session))

    def estimate(self, policy: str, metric: str) -> Estimate | None:
        """Return a policy's mean over sessions, ``None`` if it has no such outcome."""
        values = self.outcomes[policy].per_session.get(metric)
        return None if values is None else mean_estimate(values.numpy())

    def difference(self, policy: str, metric: str) -> PairedDifference | None:
        """Return the paired difference to the reference, ``None`` if either lacks the outcome."""
        return self._paired(policy, self.reference, metric)

    @property
    def oracle(self) -> str | None:
        """The best privileged policy by clicks a session, ``None`` where none was evaluated."""
        bounds = [name for name in self.outcomes if self.privileged[name]]
        return max(bounds, key=lambda n: self.outcomes[n].means()[RANKED_BY], default=None)

    def regret(self, policy: str, metric: str) -> PairedDifference | None:
        """Return how much more the oracle reaches on the same sessions, ``None`` without one."""
        return None if self.oracle is None else self._paired(self.oracle, policy, metric)

    def _paired(self, first: str, second: str, metric: str) -> PairedDifference | None:
        found = [self.outcomes[name].per_session.get(metric) for name in (first, second)]
        if first == second or found[0] is None or found[1] is None:
            return None
        return paired_difference(found[0].numpy(), found[1].numpy())

    def cohort(self, policy: str) -> dict[str, float]:
        """Return outcomes of the cohort as a whole: catalog coverage and Gini of exposure."""
        shown = self.outcomes[policy].impressions
        return {"coverage": coverage(shown), "gini": gini(shown.numpy())}

    def by_group(self, policy: str, metric: str) -> dict[str, Estimate]:
        """Return an outcome by user group, and for new and known users."""
        found = self.outcomes[policy]
        values = found.per_session[metric]
        parts = {name: found.group == index for index, name in enumerate(found.group_names)}
        parts |= {"new users": found.is_new, "known users": ~found.is_new}
        return {name: mean_estimate(values[there].numpy()) for name, there in parts.items()}

    def gaps(self, policy: str, metric: str) -> dict[str, Estimate]:
        """Return how far user groups lie apart, with Welch's interval.

        Two groups are compared as they are named. Of more, ``best - worst group`` picks two by
        their values, which makes the gap look larger than it is. ``known - new users`` follows. A
        gap without users on either side is left out.
        """
        found = self.outcomes[policy]
        values = found.per_session[metric]
        parts = {n: values[found.group == k].numpy() for k, n in enumerate(found.group_names)}
        parts = {name: part for name, part in parts.items() if mean_estimate(part).count}
        gaps = {}
        if len(parts) == 2:
            gaps[" - ".join(parts)] = mean_difference(*parts.values())
        elif len(parts) > 2:
            ordered = sorted(parts.values(), key=lambda part: mean_estimate(part).value)
            gaps["best - worst group"] = mean_difference(ordered[-1], ordered[0])
        known, new = values[~found.is_new].numpy(), values[found.is_new].numpy()
        if known.size and new.size:
            gaps["known - new users"] = mean_difference(known, new)
        return gaps

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it: numbers that do not exist are null."""
        first = next(iter(self.outcomes.values()))
        return {
            "sessions": int(first.sessions.numel()),
            "seed": first.seed,
            "reference": self.reference,
            "oracle": self.oracle,
            "policies": {name: self._policy(name) for name in self.outcomes},
        }

    def _policy(self, name: str) -> dict[str, Any]:
        outcomes: dict[str, Any] = {}
        for metric in self.outcomes[name].per_session:
            estimate, paired = self.estimate(name, metric), self.difference(name, metric)
            assert estimate is not None
            outcomes[metric] = _numbers(estimate)
            if paired is not None:
                factor = finite_or_none(paired.pairing_factor)
                outcomes[metric]["difference"] = {
                    **_numbers(paired.difference),
                    "pairing_factor": factor,
                }
        present = self.outcomes[name]
        by_group = [metric for metric in GROUP_OUTCOMES if metric in outcomes]
        regrets = {metric: self.regret(name, metric) for metric in REGRETTED}
        return {
            "privileged": self.privileged[name],
            "outcomes": outcomes,
            "regret": {m: _numbers(r.difference) for m, r in regrets.items() if r is not None},
            "cohort": self.cohort(name),
            "groups": {metric: _all_numbers(self.by_group(name, metric)) for metric in by_group},
            "gaps": {metric: _all_numbers(self.gaps(name, metric)) for metric in by_group},
            "exposure": {
                division: exposure_by_group(present.impressions, present.clicks, of_item)
                for division, of_item in present.item_groups.items()
            },
            "funnel": {
                stage: finite_or_none(float(values.nanmean()))
                for stage, values in present.funnel.items()
            },
        }

    def as_csv(self) -> str:
        """Return one row for each policy and outcome."""
        header = ["policy", "outcome", "mean", "low", "high", "difference", "diff_low", "diff_high"]
        rows = []
        for name in self.outcomes:
            for metric in self.metric_names():
                estimate, paired = self.estimate(name, metric), self.difference(name, metric)
                if estimate is None:
                    continue
                gap = paired.difference if paired else None
                row = [name, metric, estimate.value, estimate.low, estimate.high]
                rows.append(row + ([gap.value, gap.low, gap.high] if gap else [None] * 3))
        return csv_text(header, rows)


def compare_outcomes(
    outcomes: Mapping[str, RolloutResult],
    privileged: Mapping[str, bool],
    candidates: tuple[str, ...],
) -> Comparison:
    """Compare policies that met the same sessions.

    Args:
        outcomes: by policy name.
        privileged: by policy name: whether it reads hidden state.
        candidates: names among which the best unprivileged one, by clicks a session, is the
            reference; all unprivileged policies if none of them is.

    Raises:
        ValueError: the policies met different sessions.
    """
    first = next(iter(outcomes.values()))
    for name, other in outcomes.items():
        if other.seed != first.seed or other.sessions.tolist() != first.sessions.tolist():
            raise ValueError(f"'{name}' was evaluated on other sessions than the rest")
    fair = [name for name in outcomes if not privileged[name]]
    pool = [name for name in fair if name in candidates] or fair or list(outcomes)
    reference = max(pool, key=lambda name: outcomes[name].means()[RANKED_BY])
    return Comparison(dict(outcomes), dict(privileged), reference)


def exposure_by_group(impressions: Tensor, clicks: Tensor, groups: Tensor) -> dict[str, Any]:
    """Return each item group's shares of catalog, impressions and clicks.

    Exposure in proportion to the catalog would give every group a share of impressions equal to its
    share of items (Singh and Joachims, "Fairness of Exposure in Rankings", KDD 2018, with equal
    merit).

    Args:
        impressions: float32 ``[N]``, how often each item was shown.
        clicks: float32 ``[N]``.
        groups: int64 ``[N]``, the group of each item; groups without items do not count.

    Returns:
        ``groups`` (their number), ``gini`` of impressions an item over the groups, and, for up to
        :data:`MAX_LISTED_GROUPS`, lists in the order of the groups' numbers: ``items``,
        ``impressions`` and ``clicks``, shares that sum to 1 (to 0 where there were none).
    """
    place = torch.unique(groups, return_inverse=True)[1]
    items = torch.bincount(place).to(torch.float64)
    shown, clicked = (torch.bincount(place, weights=w.double()) for w in (impressions, clicks))
    found: dict[str, Any] = {"groups": items.numel(), "gini": gini((shown / items).numpy())}
    if items.numel() <= MAX_LISTED_GROUPS:
        for name, sums in (("items", items), ("impressions", shown), ("clicks", clicked)):
            found[name] = (sums / sums.sum().clamp(min=1.0)).tolist()
    return found


def _numbers(estimate: Estimate) -> dict[str, Any]:
    return {**estimate.as_json("mean"), "sessions": estimate.count}


def _all_numbers(found: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: _numbers(estimate) for name, estimate in found.items()}
