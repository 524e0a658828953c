"""What is compared: experiments over their seeds, and policies that were evaluated beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from agents.comparison.grouping import Group
from agents.comparison.quantities import COHORT, REGRET, STAGES
from agents.comparison.runs import TRAINED, Run
from marec_env.errors import ConfigError
from marec_env.evaluation.statistics import Estimate, bootstrap_interval

__all__ = ["Exposure", "Row", "baseline_rows", "group_row", "rows_of_file"]

Kind = Literal["trained", "baseline", "oracle"]
_SAME = 1e-6  # relative; evaluations of one deterministic policy differ by rounding at most
_TELLING = ("clicks", "length", "satisfaction")  # not F: rewards may differ between experiments
_NAN = float("nan")


@dataclass(frozen=True)
class Exposure:
    """What groups of items get of the users' attention."""

    groups: int
    gini: Estimate
    items: list[float]
    """Each group's share of the catalog; empty where there are too many groups to list."""
    impressions: list[float]
    """Each group's share of what was shown."""


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
    """Return an experiment's interquartile means over seeds with bootstrap intervals.

    One seed has no such interval; its intervals are over sessions.
    """
    if len(group.runs) == 1:
        run = group.runs[0]
        return _policy_row(run, TRAINED, group.label, "trained", seeds=(run.seed,))
    teams = [run.team for run in group.runs]
    by_seed = {
        **_stack(teams, lambda team: {k: v["mean"] for k, v in team["outcomes"].items()}),
        **_stack(teams, lambda team: {q.key: team.get("cohort", {}).get(q.key) for q in COHORT}),
        **_stack(group.runs, lambda run: {REGRET: _regret(run, TRAINED).value}),
    }
    return Row(
        label=group.label,
        kind="trained",
        over="seeds",
        count=len(group.runs),
        values=_intervals(by_seed),
        differences=_intervals(_stack(teams, _difference_means)),
        by_seed=by_seed,
        seeds=tuple(group.seeds),
        funnel=_intervals(_stack(teams, lambda team: team.get("funnel", {}))),
        passing=_intervals(_stack(teams, lambda team: _passing(team.get("funnel", {})))),
        groups=_nested_intervals(teams, "groups"),
        gaps=_nested_intervals(teams, "gaps"),
        exposure=_mean_exposure(teams),
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
            rows.append(_policy_row(run, name, shown, "oracle" if privileged else "baseline"))
    rows.sort(key=lambda row: (row.kind == "oracle", _value(row, "clicks")))
    return rows


def rows_of_file(path: Path, like: Run) -> tuple[list[Row], list[str]]:
    """Return further rows from an ``evaluation.json`` or from the report of ``evaluate.py game``.

    Args:
        path: the file; its trained teams are left out, unless it is a report's.
        like: a run whose evaluation the file's sessions must equal.

    Returns:
        The rows, and notes on what could not be checked.

    Raises:
        ConfigError: the file is neither, or was made on other sessions.
    """
    assert like.evaluation is not None
    try:
        document = json.loads(path.read_text())
        game = "levels" in document
        plan = document["plan"] if game else document
        seed, sessions = plan["cohort" if game else "seed"], plan["sessions"]
        policies = (
            {name: {"outcomes": level} for name, level in document["levels"].items()}
            if game
            else {n: policy for n, policy in document["policies"].items() if n != TRAINED}
        )
        for name, policy in policies.items():
            policy.setdefault("privileged", name.startswith("oracle"))
            float(policy["outcomes"]["clicks"]["mean"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is neither an evaluation.json nor a report of 'evaluate.py game' "
            f"({type(error).__name__}: {error})"
        ) from error
    if seed != like.evaluation["seed"]:
        raise ConfigError(
            f"{path} was made on other sessions (seed {seed}) than the runs were evaluated on "
            f"({like.evaluation['seed']}); make it anew with that seed"
        )
    notes = []
    if sessions != like.evaluation["sessions"]:
        notes.append(
            f"the rows from {path} are over {sessions} sessions of the same seed, the runs over "
            f"{like.evaluation['sessions']}"
        )
    environment = document.get("environment")
    if environment is None:
        notes.append(f"{path} does not say on which environment it was made: not checked")
    elif environment != like.config.get("environment"):
        raise ConfigError(f"{path} was made on another environment than {like.path}")
    source = Run(
        path, -1, {}, "", like.code, evaluation={"sessions": sessions, "policies": policies}
    )
    rows = [
        _policy_row(source, name, name, "oracle" if policy["privileged"] else "baseline")
        for name, policy in policies.items()
    ]
    return rows, notes


def _value(row: Row, key: str) -> float:
    return row.values[key].value if key in row.values else -np.inf


def _policy_row(run: Run, name: str, label: str, kind: Kind, seeds: tuple[int, ...] = ()) -> Row:
    policy = run.policies[name]
    values = {key: _estimate(numbers) for key, numbers in policy["outcomes"].items()}
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
            key: _estimate(numbers["difference"])
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
        passing=_intervals(_stack([policy], lambda p: _passing(p.get("funnel", {})))),
        groups=_nested(policy, "groups"),
        gaps=_nested(policy, "gaps"),
        exposure=_mean_exposure([policy]),
    )


def _difference_means(team: Mapping[str, Any]) -> dict[str, float | None]:
    found = {key: numbers.get("difference") for key, numbers in team["outcomes"].items()}
    return {key: gap["mean"] for key, gap in found.items() if gap is not None}


def _passing(funnel: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return each stage's count over that of the stage before, of the stages there are."""
    present = [(s.key, value) for s in STAGES if (value := funnel.get(s.key)) is not None]
    return {
        key: value / before if before > 0 else None
        for (_, before), (key, value) in pairwise(present)
    }


def _regret(run: Run, name: str) -> Estimate:
    """Return the clicks that the oracle of a run's evaluation reaches more than a policy.

    Evaluations from before regret was written have the means, from which its value follows.
    """
    policy = run.policies[name]
    known = policy.get("regret", {}).get("clicks")
    if known is not None:
        return _estimate(known)
    bounds = [p["outcomes"]["clicks"]["mean"] for p in run.policies.values() if p.get("privileged")]
    if not bounds:
        return Estimate(_NAN, _NAN, _NAN, _NAN, 0)
    gap = max(bounds) - policy["outcomes"]["clicks"]["mean"]
    return Estimate(gap, _NAN, _NAN, _NAN, 1)


def _estimate(numbers: Mapping[str, Any]) -> Estimate:
    """Return what a file says of a value; what it does not say is NaN."""
    value, low, high, error = (
        _NAN if numbers.get(key) is None else float(numbers[key])
        for key in ("mean", "low", "high", "standard_error")
    )
    return Estimate(value, low, high, error, int(numbers.get("sessions", 0)))


def _stack(
    sources: Sequence[Any], read: Callable[[Any], Mapping[str, float | None]]
) -> dict[str, list[float]]:
    """Return, by name, one value a source; names that any source lacks are left out."""
    read_all = [
        {k: v for k, v in read(source).items() if v is not None and np.isfinite(v)}
        for source in sources
    ]
    names = [name for name in read_all[0] if all(name in values for values in read_all)]
    return {name: [float(values[name]) for values in read_all] for name in names}


def _intervals(by_seed: Mapping[str, Sequence[float]]) -> dict[str, Estimate]:
    return {name: bootstrap_interval(values) for name, values in by_seed.items()}


def _is_nested(policy: Mapping[str, Any], part: str) -> bool:
    """Whether a part is outcome by group, as evaluations have it since gaps are reported."""
    return "gaps" in policy and part in policy


def _nested(policy: Mapping[str, Any], part: str) -> dict[str, dict[str, Estimate]]:
    if not _is_nested(policy, part):
        return {}
    return {
        outcome: {name: _estimate(numbers) for name, numbers in found.items()}
        for outcome, found in policy[part].items()
    }


def _nested_intervals(
    teams: Sequence[Mapping[str, Any]], part: str
) -> dict[str, dict[str, Estimate]]:
    if not all(_is_nested(team, part) for team in teams):
        return {}

    def reader(outcome: str) -> Callable[[Any], dict[str, float | None]]:
        return lambda team: {k: v["mean"] for k, v in team[part].get(outcome, {}).items()}

    return {outcome: _intervals(_stack(teams, reader(outcome))) for outcome in teams[0][part]}


def _mean_exposure(teams: Sequence[Mapping[str, Any]]) -> dict[str, Exposure]:
    found = {}
    for division, first in teams[0].get("exposure", {}).items():
        parts = [team.get("exposure", {}).get(division) for team in teams]
        if any(part is None or part["groups"] != first["groups"] for part in parts):
            continue
        listed = all("impressions" in part for part in parts)
        found[division] = Exposure(
            groups=first["groups"],
            gini=bootstrap_interval([part["gini"] for part in parts]),
            items=list(first["items"]) if listed else [],
            impressions=np.mean([p["impressions"] for p in parts], axis=0).tolist()
            if listed
            else [],
        )
    return found


def _equal(policy: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two evaluations of a policy came out the same to its users."""
    first, second = (
        [p["outcomes"].get(key, {}).get("mean", _NAN) for key in _TELLING] for p in (policy, other)
    )
    return bool(np.allclose(first, second, rtol=_SAME, equal_nan=True))
