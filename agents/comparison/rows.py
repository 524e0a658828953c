"""What is compared: experiments over their seeds, and policies that were evaluated beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from agents.comparison.grouping import Group
from agents.comparison.parts import (
    Exposure,
    difference_means,
    estimate_of,
    intervals,
    mean_exposure,
    nested,
    nested_intervals,
    passing_of,
    stack,
)
from agents.comparison.quantities import COHORT, REGRET
from agents.comparison.runs import TRAINED, Run
from marec_env.evaluation.statistics import Estimate

__all__ = ["Row", "baseline_rows", "group_row", "policy_row"]

Kind = Literal["trained", "baseline", "oracle"]
_SAME = 1e-6  # relative; evaluations of one deterministic policy differ by rounding at most
_TELLING = ("clicks", "length", "satisfaction")  # not F: rewards may differ between experiments
_NAN = float("nan")


@dataclass(frozen=True)
class Row:
    """One experiment or policy with everything that is known of it."""

    label: str
    kind: Kind
    over: Literal["seeds", "sessions"]
    """What the intervals are over: training seeds, or sessions given this one policy."""
    count: int
    """How many of them."""
    values: dict[str, Estimate]
    """By quantity."""
    differences: dict[str, Estimate] = field(default_factory=dict)
    """By quantity: to the best unprivileged baseline of the run's evaluation, session by session;
    for experiments, over seeds."""
    by_seed: dict[str, list[float]] = field(default_factory=dict)
    """By quantity, one value a seed; experiments only."""
    seeds: tuple[int, ...] = ()
    funnel: dict[str, Estimate] = field(default_factory=dict)
    """By stage: relevant items a request."""
    passing: dict[str, Estimate] = field(default_factory=dict)
    """By stage: how many get past it, as a share of those that reached it (above 1: a gain)."""
    groups: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    """By outcome, then by user group."""
    gaps: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    """By outcome, then by kind of gap."""
    exposure: dict[str, Exposure] = field(default_factory=dict)
    """By division of the catalog."""


def group_row(group: Group) -> Row:
    """Return an experiment's interquartile means (of few seeds: means) with their intervals.

    One seed has no such interval; its intervals are over sessions.
    """
    if len(group.runs) == 1:
        run = group.runs[0]
        return policy_row(run, TRAINED, group.label, "trained", seeds=(run.seed,))
    teams = [run.team for run in group.runs]
    by_seed = {
        **stack(teams, lambda team: {k: v["mean"] for k, v in team["outcomes"].items()}),
        **stack(teams, lambda team: {q.key: team.get("cohort", {}).get(q.key) for q in COHORT}),
        **stack(group.runs, lambda run: {REGRET: _regret(run, TRAINED).value}),
    }
    return Row(
        label=group.label,
        kind="trained",
        over="seeds",
        count=len(group.runs),
        values=intervals(by_seed),
        differences=intervals(stack(teams, difference_means)),
        by_seed=by_seed,
        seeds=tuple(group.seeds),
        funnel=intervals(stack(teams, lambda team: team.get("funnel", {}))),
        passing=intervals(stack(teams, lambda team: passing_of(team.get("funnel", {})))),
        groups=nested_intervals(teams, "groups"),
        gaps=nested_intervals(teams, "gaps"),
        exposure=mean_exposure(teams),
    )


def baseline_rows(groups: Sequence[Group]) -> list[Row]:
    """Return the policies evaluated beside the runs, best by clicks last within their kind.

    A baseline that came out differently beside different experiments (another pipeline, another
    version of the code) is one row for each of them, labelled so.
    """
    found: dict[str, list[tuple[str, Run]]] = {}
    for group in groups:
        for run in group.runs:
            for name, policy in run.policies.items():
                if name == TRAINED:
                    continue
                known = found.setdefault(name, [])
                if not any(_equal(policy, other.policies[name]) for _, other in known):
                    known.append((group.label, run))
    rows = []
    for name, variants in found.items():
        for label, run in variants:
            shown = name if len(variants) == 1 else f"{name} (beside {label}, seed {run.seed})"
            privileged = run.policies[name].get("privileged", False)
            rows.append(policy_row(run, name, shown, "oracle" if privileged else "baseline"))
    rows.sort(key=lambda row: (row.kind == "oracle", _value(row, "clicks")))
    return rows


def _value(row: Row, key: str) -> float:
    return row.values[key].value if key in row.values else -np.inf


def policy_row(run: Run, name: str, label: str, kind: Kind, seeds: tuple[int, ...] = ()) -> Row:
    """Return one evaluated policy, with intervals over sessions.

    Args:
        run: whose evaluation has it.
        name: there.
        label: in tables.
        kind: of policy.
        seeds: of a trained team.
    """
    policy = run.policies[name]
    values = {key: estimate_of(numbers) for key, numbers in policy["outcomes"].items()}
    for quantity in COHORT:
        if (value := policy.get("cohort", {}).get(quantity.key)) is not None:
            values[quantity.key] = Estimate(value, _NAN, _NAN, _NAN, 1)
    regret = _regret(run, name)
    if np.isfinite(regret.value):
        values[REGRET] = regret
    return Row(
        label=label,
        kind=kind,
        over="sessions",
        count=int((run.evaluation or {}).get("sessions", 0)),
        values=values,
        differences={
            key: estimate_of(numbers["difference"])
            for key, numbers in policy["outcomes"].items()
            if "difference" in numbers
        },
        by_seed={key: [found.value] for key, found in values.items()} if seeds else {},
        seeds=seeds,
        funnel={
            stage: Estimate(value, _NAN, _NAN, _NAN, 1)
            for stage, value in policy.get("funnel", {}).items()
            if value is not None
        },
        passing=intervals(stack([policy], lambda p: passing_of(p.get("funnel", {})))),
        groups=nested(policy, "groups"),
        gaps=nested(policy, "gaps"),
        exposure=mean_exposure([policy]),
    )


def _regret(run: Run, name: str) -> Estimate:
    """Return the clicks that the oracle of a run's evaluation reaches more than a policy.

    Evaluations from before regret was written have the means, from which its value follows.
    """
    policy = run.policies[name]
    known = policy.get("regret", {}).get("clicks")
    if known is not None:
        return estimate_of(known)
    bounds = [p["outcomes"]["clicks"]["mean"] for p in run.policies.values() if p.get("privileged")]
    if not bounds:
        return Estimate(_NAN, _NAN, _NAN, _NAN, 0)
    gap = max(bounds) - policy["outcomes"]["clicks"]["mean"]
    return Estimate(gap, _NAN, _NAN, _NAN, 1)


def _equal(policy: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two evaluations of a policy came out the same to its users."""
    first, second = (
        [p["outcomes"].get(key, {}).get("mean", _NAN) for key in _TELLING] for p in (policy, other)
    )
    return bool(np.allclose(first, second, rtol=_SAME, equal_nan=True))
