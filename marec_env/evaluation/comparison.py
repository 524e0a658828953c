"""Several policies on the same sessions: every outcome with its interval and paired difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from marec_env.evaluation.exposure import exposure_by_group
from marec_env.evaluation.metrics import coverage
from marec_env.evaluation.outcomes import Outcomes
from marec_env.evaluation.statistics import (
    Estimate,
    PairedDifference,
    finite_or_none,
    mean_difference,
    mean_estimate,
    paired_difference,
)
from marec_env.inequality import gini
from marec_env.reporting.table import csv_text

__all__ = ["GROUP_OUTCOMES", "REGRETTED", "Comparison", "compare_outcomes"]

RANKED_BY = "clicks"
"""What the best baseline is chosen by: an outcome that every kind of policy has in one unit."""


GROUP_OUTCOMES = ("clicks", "satisfaction", "length", "ndcg")
"""Outcomes that are also reported by user group."""
REGRETTED = ("return", "clicks", "length", "satisfaction")
"""Outcomes whose distance to the oracle is reported."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Policies by name, in order of evaluation."""

    outcomes: dict[str, Outcomes]
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
        values = self.outcomes[policy].per_session.get(metric)
        others = self.outcomes[self.reference].per_session.get(metric)
        if policy == self.reference or values is None or others is None:
            return None
        return paired_difference(values.numpy(), others.numpy())

    @property
    def oracle(self) -> str | None:
        """The best privileged policy by clicks a session, ``None`` where none was evaluated."""
        bounds = [name for name in self.outcomes if self.privileged[name]]
        return max(bounds, key=lambda n: self.outcomes[n].means()[RANKED_BY], default=None)

    def regret(self, policy: str, metric: str) -> PairedDifference | None:
        """Return how much more the oracle reaches on the same sessions, ``None`` without one."""
        if self.oracle is None or policy == self.oracle:
            return None
        bound = self.outcomes[self.oracle].per_session.get(metric)
        values = self.outcomes[policy].per_session.get(metric)
        if bound is None or values is None:
            return None
        return paired_difference(bound.numpy(), values.numpy())

    def cohort(self, policy: str) -> dict[str, float]:
        """Return outcomes of the cohort as a whole: catalog coverage and Gini of exposure."""
        shown = self.outcomes[policy].impressions
        return {"coverage": coverage(shown), "gini": gini(shown.numpy())}

    def by_group(self, policy: str, metric: str) -> dict[str, Estimate]:
        """Return an outcome by user group, and for new and known users."""
        outcomes = self.outcomes[policy]
        values = outcomes.per_session[metric]
        found = {
            name: mean_estimate(values[outcomes.group == index].numpy())
            for index, name in enumerate(outcomes.group_names)
        }
        found["new users"] = mean_estimate(values[outcomes.is_new].numpy())
        found["known users"] = mean_estimate(values[~outcomes.is_new].numpy())
        return found

    def gaps(self, policy: str, metric: str) -> dict[str, Estimate]:
        """Return how far user groups lie apart, with Welch's interval.

        Two groups are compared as they are named. Of more, ``best - worst group`` picks two by
        their values, which makes the gap look larger than it is. ``known - new users`` follows. A
        gap without users on either side is left out.
        """
        outcomes = self.outcomes[policy]
        values = outcomes.per_session[metric]
        parts = {
            name: values[outcomes.group == index].numpy()
            for index, name in enumerate(outcomes.group_names)
        }
        parts = {name: part for name, part in parts.items() if mean_estimate(part).count}
        found = {}
        if len(parts) == 2:
            first, second = parts.values()
            found[" - ".join(parts)] = mean_difference(first, second)
        elif len(parts) > 2:
            ordered = sorted(parts.values(), key=lambda part: mean_estimate(part).value)
            found["best - worst group"] = mean_difference(ordered[-1], ordered[0])
        if bool(outcomes.is_new.any()) and not bool(outcomes.is_new.all()):
            found["known - new users"] = mean_difference(
                values[~outcomes.is_new].numpy(), values[outcomes.is_new].numpy()
            )
        return found

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
        for metric in self.metric_names():
            estimate = self.estimate(name, metric)
            if estimate is None:
                continue
            outcomes[metric] = _numbers(estimate)
            difference = self.difference(name, metric)
            if difference is not None:
                outcomes[metric]["difference"] = {
                    **_numbers(difference.difference),
                    "pairing_factor": finite_or_none(difference.pairing_factor),
                }
        present = self.outcomes[name]
        by_group = [metric for metric in GROUP_OUTCOMES if metric in present.per_session]
        regrets = {metric: self.regret(name, metric) for metric in REGRETTED}
        return {
            "privileged": self.privileged[name],
            "outcomes": outcomes,
            "regret": {m: _numbers(r.difference) for m, r in regrets.items() if r is not None},
            "cohort": self.cohort(name),
            "groups": {
                metric: {g: _numbers(e) for g, e in self.by_group(name, metric).items()}
                for metric in by_group
            },
            "gaps": {
                metric: {g: _numbers(e) for g, e in self.gaps(name, metric).items()}
                for metric in by_group
            },
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
    outcomes: Mapping[str, Outcomes], privileged: Mapping[str, bool], candidates: tuple[str, ...]
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


def _numbers(estimate: Estimate) -> dict[str, Any]:
    return {**estimate.as_json("mean"), "sessions": estimate.count}
