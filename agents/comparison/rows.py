"""What is compared: experiments over their seeds, and policies that were evaluated beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from agents.comparison.grouping import Group, refuse_other_topics, users_of, world_of
from agents.comparison.runs import TRAINED, Run, topics_of
from agents.runs.manifest import read_manifest
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError, RunError
from marec_env.evaluation.comparison import RANKED_BY, Evaluation, PolicyNumbers, Shares
from marec_env.evaluation.statistics import Estimate, finite_or_none, seeds_interval
from marec_env.io import read_json
from marec_env.shipped import typed

Kind = Literal["trained", "baseline", "oracle"]
Key = tuple[str, ...]
PARTS = ("values", "differences", "funnel", "passing", "groups", "gaps", "gini")
"""What is known of a policy: by quantity its value and the difference to the best unprivileged
baseline of its evaluation; by stage the relevant items a request, and what gets past it as a share
of what reached it (above 1: a gain); by outcome and group, and gap; by division of the catalog."""
REGRET = "regret"
_LOWEST = Estimate(-np.inf)
_COHORT = ("coverage", "gini")
_SAME = 1e-6  # relative; evaluations of one deterministic policy differ by rounding at most
_TELLING = ("clicks", "length", "satisfaction")  # not F: rewards may differ between experiments
_ELSEWHERE = ("return", "length")  # where there are no clicks
_TRAINED_LEVEL = "trained: "  # how the game's report calls the runs it was given


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of the funnel, and who decides what gets past it."""

    key: str
    title: str
    decides: str
    """Components, or the user; empty where nobody does."""


STAGES = (
    Stage("relevant", "relevant to the user", ""),
    Stage("candidates", "among the candidates", "profile and recall"),
    Stage("scored", "best by score", "feature and ranking: score"),
    Stage("slate", "shown", "ranking: diversity, exploration"),
    Stage("clicked", "clicked", "the user"),
)
"""Stages of the funnel in order."""


@dataclass(frozen=True, eq=False)
class Row:
    """One experiment or policy with everything that is known of it."""

    label: str
    kind: Kind
    over: Literal["seeds", "sessions"]
    """What the intervals are over: training seeds, or sessions given this one policy."""
    count: int
    """How many of them."""
    found: dict[Key, Estimate]
    """By part of the evaluation and the names within it, see :data:`PARTS`."""
    seeds: tuple[int, ...] = ()
    by_seed: dict[str, list[float]] = field(default_factory=dict)
    """By quantity, one value a seed; experiments only."""
    exposure: dict[str, Shares] = field(default_factory=dict)
    """By division of the catalog; averaged over seeds."""

    def part(self, name: str) -> dict[str, Estimate]:
        """Return a part by the last of its names."""
        return {key[-1]: value for key, value in self.found.items() if key[:-1] == (name,)}

    def nested(self, name: str) -> dict[str, dict[str, Estimate]]:
        """Return a part of two names by the first and the second."""
        keys = [key for key in self.found if key[0] == name]
        return {first: {k[2]: self.found[k] for k in keys if k[1] == first} for _, first, _ in keys}

    @property
    def values(self) -> dict[str, Estimate]:
        """By quantity."""
        return self.part("values")

    @property
    def ranked(self) -> Estimate:
        """What policies are ranked by."""
        return next((self.values[key] for key in RANKED_BY if key in self.values), _LOWEST)


def _measures(evaluation: Evaluation, name: str) -> dict[Key, Estimate]:
    """Return every number that an evaluation has of a policy and that exists."""
    policy = evaluation.policies[name]
    found: dict[Key, Estimate] = {}
    for key, numbers in policy.outcomes.items():
        found["values", key] = numbers.estimate()
        if numbers.difference is not None:
            found["differences", key] = numbers.difference.estimate()
    for key in _COHORT:
        if (value := policy.cohort.get(key)) is not None:
            found["values", key] = Estimate(value, count=1)
    bounds = [p.clicks for p in evaluation.policies.values() if p.privileged]
    if "clicks" in policy.regret:
        found["values", REGRET] = policy.regret["clicks"].estimate()
    elif bounds:  # the oracle itself has none, nor have the levels of a game
        found["values", REGRET] = Estimate(max(bounds) - policy.clicks, count=1)
    stages = {s.key: v for s in STAGES if (v := policy.funnel.get(s.key)) is not None}
    found |= {("funnel", stage): Estimate(value, count=1) for stage, value in stages.items()}
    for (_, before), (stage, value) in pairwise(stages.items()):
        if before > 0:
            found["passing", stage] = Estimate(value / before, count=1)
    for part, content in (("groups", policy.groups), ("gaps", policy.gaps)):
        for outcome, groups in content.items():
            found |= {(part, outcome, group): x.estimate() for group, x in groups.items()}
    for division, shares in policy.exposure.items():
        found["gini", division] = Estimate(shares.gini, count=1)
    return {key: value for key, value in found.items() if np.isfinite(value.value)}


def group_row(group: Group) -> Row:
    """Return an experiment's row."""
    return _row(group.runs, TRAINED, group.label, "trained")


def _row(runs: Sequence[Run], name: str, label: str, kind: Kind) -> Row:
    """Return what evaluations found of one policy.

    Of several runs they are interquartile means over seeds (of few seeds: means), and what a seed
    lacks is left out. One run has no such interval; its intervals are over sessions.

    Args:
        runs: whose evaluations have it.
        name: there.
        label: in tables.
        kind: of policy.
    """
    seeds = tuple(run.seed for run in runs) if kind == "trained" else ()
    measured = [_measures(run.evaluated, name) for run in runs]
    common = [key for key in measured[0] if all(key in measures for measures in measured)]
    lists = {key: [measures[key].value for measures in measured] for key in common}
    several = len(runs) > 1
    return Row(
        label=label,
        kind=kind,
        over="seeds" if several else "sessions",
        count=len(runs) if several else runs[0].evaluated.sessions,
        found={k: seeds_interval(v) for k, v in lists.items()} if several else measured[0],
        seeds=seeds,
        by_seed={k[1]: values for k, values in lists.items() if seeds and k[0] == "values"},
        exposure=_mean_exposure([run.evaluated.policies[name] for run in runs]),
    )


def _mean_exposure(teams: Sequence[PolicyNumbers]) -> dict[str, Shares]:
    found = {}
    for division, first in teams[0].exposure.items():
        parts = [team.exposure.get(division) for team in teams]
        shares = [part for part in parts if part is not None and part.groups == first.groups]
        if len(shares) == len(teams):
            lists = ("impressions", "clicks", "rates")
            kept: dict[str, object] = {name: _mean(shares, name) for name in lists}
            kept["items"] = first.items if kept["impressions"] else []
            found[division] = first.model_copy(update=kept)
    return found


def _mean(shares: Sequence[Shares], name: str) -> list[float | None]:
    """Return the mean of a list that all have; ``None`` where one of them has no value."""
    lists = [getattr(part, name) for part in shares]
    if not all(lists):
        return []
    means = np.array(lists, dtype=float).mean(axis=0)  # None is NaN
    return [finite_or_none(value) for value in means.tolist()]


def baseline_rows(groups: Sequence[Group]) -> list[Row]:
    """Return the policies evaluated beside the runs, best by clicks last within their kind.

    A baseline that came out differently beside different experiments (another pipeline, another
    version of the code) is one row for each of them, labelled so.
    """
    found: dict[str, list[tuple[str, Run]]] = {}
    for group in groups:
        for run in group.runs:
            for name, policy in run.evaluated.policies.items():
                known = found.setdefault(name, [])
                if not any(_equal(policy, other.evaluated.policies[name]) for _, other in known):
                    known.append((group.label, run))
    rows = []
    for name, variants in found.items():
        for label, run in variants if name != TRAINED else ():
            shown = name if len(variants) == 1 else f"{name} (beside {label}, seed {run.seed})"
            rows.append(_other_row(run, name, shown))
    rows.sort(key=lambda row: (row.kind == "oracle", row.ranked.value))
    return rows


def _other_row(run: Run, name: str, label: str) -> Row:
    privileged = run.evaluated.policies[name].privileged
    return _row([run], name, label, "oracle" if privileged else "baseline")


def _equal(policy: PolicyNumbers, other: PolicyNumbers) -> bool:
    """Whether two evaluations of a policy came out the same to its users."""
    telling = _TELLING if "clicks" in policy.outcomes else _ELSEWHERE
    first, second = (
        [p.outcomes[key].estimate().value if key in p.outcomes else np.nan for key in telling]
        for p in (policy, other)
    )
    return bool(np.allclose(first, second, rtol=_SAME, equal_nan=True))


def rows_of_file(path: Path, like: Run) -> tuple[list[Row], list[str]]:
    """Return further rows from an ``evaluation.json`` or from the report of ``evaluate.py game``.

    Args:
        path: the file; its trained teams, and their controls, are left out.
        like: a run whose evaluation the file's sessions must equal.

    Returns:
        The rows, and notes on what could not be checked.

    Raises:
        ConfigError: the file is neither, or was made on other sessions.
    """
    try:
        document = read_json(path, dict[str, Any])
        found = Evaluation.model_validate(_as_evaluation(document))
    except (RunError, KeyError, TypeError, AttributeError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{path} is neither an evaluation.json nor a report of '{typed('game')}' ({reason})"
        ) from error
    if found.seed != like.evaluated.seed:
        raise ConfigError(
            f"{path} was made on other sessions (seed {found.seed}) than the runs were evaluated "
            f"on ({like.evaluated.seed}); make it anew with that seed"
        )
    notes = []
    if found.sessions != like.evaluated.sessions:
        notes.append(
            f"the rows from {path} are over {found.sessions} sessions of the same seed, the runs "
            f"over {like.evaluated.sessions}"
        )
    environment = document.get("environment")
    if environment is None:
        notes.append(f"{path} does not say on which environment it was made: not checked")
    elif users_of(_completed(environment)) != world_of(like):
        raise ConfigError(f"{path} was made on another environment than {like.path}: other users")
    elif _completed(environment) != like.config.get("environment"):
        notes.append(f"{path} is of another pipeline or rewards: F and the funnel differ in kind")
    topics = _topics(path, document)
    source = Run(path, -1, {}, "", like.codes, evaluation=found, topics=topics)
    refuse_other_topics(like, source)
    names = [n for n in found.policies if n != TRAINED and not n.startswith(_TRAINED_LEVEL)]
    return [_other_row(source, name, name) for name in names], notes


def _as_evaluation(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the levels of the game's report as policies of an evaluation."""
    if "levels" not in document:
        return document
    levels = {
        name: {"outcomes": level, "privileged": name.startswith("oracle")}
        for name, level in document["levels"].items()
    }
    plan = document["plan"]
    return {"seed": plan["cohort"], "sessions": plan["sessions"], "policies": levels}


def _topics(path: Path, document: Mapping[str, Any]) -> str | None:
    """Return the hash of the topics behind a file: its own, or of the run that it evaluates."""
    if document.get("inputs") is not None or not (path.parent / "manifest.json").is_file():
        return topics_of(document.get("inputs"))
    manifest = read_manifest(path.parent / "manifest.json")
    evaluation = manifest.get("config", {}).get("evaluation", {})
    return topics_of(manifest.get("inputs"), evaluation.get("environment"))


def _completed(environment: Any) -> Any:
    """Return an environment with the settings that it does not name yet, as runs are read."""
    try:
        found = EnvironmentConfig.model_validate(environment, strict=False)
    except ValidationError:
        return environment  # of another kind or version: equal to none of the runs'
    return found.model_dump(mode="json")
