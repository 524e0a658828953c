"""Which runs are seeds of one experiment, what to call it, and what may not be mixed."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from agents.comparison.runs import Run
from agents.config import evaluation_environment
from agents.runs.manifest import CodeVersion, flatten
from marec_env.errors import RunError
from marec_env.shipped import typed

_FREE = ("rewards", "state", "device", "pipeline", "measure", "num_envs", "text")
"""Parts of an environment that leave users and sessions as they are; all others must be equal."""
_LABELS = ("name", "seed", "output", "tracking.", "evaluation.", "training.checkpoint_every",
           "training.keep_checkpoints", "sampling.torch_threads")  # fmt: skip
"""Keys that no experiment differs by."""
_SHOWN_KEYS = 3  # differing keys a label may name; with more, a piece of the hash is shorter
_HASH_DIGITS = 6


@dataclass(frozen=True)
class Group:
    """The sound seeds of one experiment."""

    label: str
    runs: tuple[Run, ...]

    @property
    def seeds(self) -> list[int]:
        """The runs' seeds, ascending as the runs are."""
        return [run.seed for run in self.runs]


@dataclass(frozen=True)
class Grouping:
    """All experiments, with what a reader must know of the runs behind them."""

    groups: tuple[Group, ...]
    left_out: tuple[Run, ...]
    notes: tuple[str, ...]

    def differences(self) -> dict[str, list[str]]:
        """Return the configuration keys in which experiments differ: one value an experiment."""
        return _differences([group.runs[0] for group in self.groups])


def group_runs(runs: Sequence[Run], mixed_code: bool = False) -> Grouping:
    """Group sound runs by configuration, in the order given; refuse what may not be mixed.

    Args:
        runs: any number of seeds of any number of experiments.
        mixed_code: average seeds of one experiment that different code trained; the note says so.

    Raises:
        RunError: no sound run; other users or evaluation sessions; a seed given twice; seeds of one
            experiment trained by different code.
    """
    left_out = tuple(run for run in runs if run.defects)
    notes = [f"{run.path} is left out: {'; '.join(run.defects)}" for run in left_out]
    sound = [run for run in runs if not run.defects]
    if not sound:
        raise RunError("no run can be compared: " + "; ".join(notes))
    _refuse_other_worlds(sound)
    _refuse_other_sessions(sound)
    found: dict[str, list[Run]] = {}
    for run in sound:
        found.setdefault(run.experiment, []).append(run)
    members = [sorted(group, key=lambda run: run.seed) for group in found.values()]
    labels = _labels([group[0] for group in members])
    groups = tuple(Group(label, tuple(group)) for label, group in zip(labels, members, strict=True))
    for group in groups:
        _refuse_twins(group)
    notes += dict.fromkeys(f"data: {line}" for run in sound for line in run.warnings)
    notes += _code_notes(groups, mixed_code)
    notes += _difference_notes(groups)
    return Grouping(groups, left_out, tuple(notes))


def comparable(runs: Sequence[Run]) -> list[list[Run]]:
    """Return evaluated runs, those together that can be compared: on one world, and on the same
    sessions.
    """
    found: dict[str, list[Run]] = {}
    for run in runs:
        met = [run.topics, run.evaluated.sessions, run.evaluated.seed]
        found.setdefault(str([world_of(run), *met]), []).append(run)
    return list(found.values())


def seed_ranges(seeds: Iterable[int]) -> str:
    """Return seeds as ``0-4, 7``."""
    parts: list[list[int]] = []
    for seed in sorted(seeds):
        if parts and seed == parts[-1][1] + 1:
            parts[-1][1] = seed
        else:
            parts.append([seed, seed])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in parts)


def world_of(run: Run) -> dict[str, Any]:
    """Return what decides on which users a run was evaluated, flat."""
    return users_of(run.config.get("environment", {}), run.config.get("evaluation", {}))


def users_of(
    environment: Mapping[str, Any], evaluation: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """Return what decides who the users of an environment's evaluation are, flat."""
    if changes := evaluation.get("environment"):
        environment = evaluation_environment(environment, changes).model_dump(mode="json")
    world = {key: value for key, value in environment.items() if key not in _FREE}
    embeddings = dict(environment.get("embeddings") or {})
    embeddings.pop("finetune", None)  # what the recommender knows; topics are not its encoder's
    relevant = environment.get("measure", {}).get("true_top")  # what counts as relevant
    return flatten({**world, "embeddings": embeddings, "measure.true_top": relevant})


def _refuse_other_worlds(runs: Sequence[Run]) -> None:
    first = world_of(runs[0])
    for run in runs[1:]:
        other = world_of(run)
        keys = sorted(k for k in first.keys() | other.keys() if first.get(k) != other.get(k))
        if keys:
            shown = ", ".join(
                f"environment.{key}: {other.get(key)} and {first.get(key)}" for key in keys[:3]
            )
            more = f" and {len(keys) - 3} more keys" if len(keys) > 3 else ""
            raise RunError(
                f"{run.path} and {runs[0].path} are on different users, whose outcomes cannot be "
                f"compared ({shown}{more}); compare them apart"
            )
        refuse_other_topics(runs[0], run)


def refuse_other_topics(one: Run, other: Run) -> None:
    """Refuse two runs whose environments came out differently though configured alike.

    Raises:
        RunError: both kept a hash of their topics, and the hashes differ.
    """
    if one.topics and other.topics and one.topics != other.topics:
        raise RunError(
            f"{other.path} and {one.path} are on different users: the embeddings were rounded "
            "differently (another processor, or another precision by embeddings.dtype: auto), and "
            "items fell into other topics; train and evaluate both on one machine"
        )


def _refuse_other_sessions(runs: Sequence[Run]) -> None:
    cohorts = [(run.evaluated.sessions, run.evaluated.seed) for run in runs]
    [((sessions, seed), _)] = Counter(cohorts).most_common(1)
    others = [run for run, met in zip(runs, cohorts, strict=True) if met != (sessions, seed)]
    if others:
        sizes = "; ".join(
            f"{run.path}: {run.evaluated.sessions} of seed {run.evaluated.seed}" for run in others
        )
        paths = shlex.join(str(run.path) for run in others)
        raise RunError(
            f"the runs were evaluated on different sessions ({sizes}; the others: {sessions} of "
            f"seed {seed}); make them equal with: {typed('evaluate')} {paths} "
            f"--sessions {sessions} --seed {seed} --replace"
        )


def _refuse_twins(group: Group) -> None:
    for one, other in pairwise(group.runs):
        if one.seed == other.seed:
            raise RunError(
                f"seed {one.seed} of {group.label} is given twice: {one.path} and {other.path}; "
                "leave one out"
            )


def _code_notes(groups: Sequence[Group], mixed_code: bool) -> list[str]:
    """Compare the code behind the runs; seeds trained by different code are refused or marked."""
    notes = []
    for group in groups:
        if len(_versions(code for run in group.runs for code in run.codes)) < 2:
            continue
        by_code: dict[str, list[int]] = {}
        for run in group.runs:
            by_code.setdefault(run.code, []).append(run.seed)
        shown = "; ".join(f"{code}: seeds {seed_ranges(s)}" for code, s in by_code.items())
        if not mixed_code:
            raise RunError(
                f"the seeds of {group.label} were trained by different code ({shown}); train them "
                "anew, or average them all the same, marked, with --mixed-code"
            )
        notes.append(f"{group.label} averages seeds trained by different code: {shown}")
    codes = [code for group in groups for run in group.runs for code in run.codes]
    if not notes and len(_versions(codes)) > 1:
        shown = ", ".join(f"{group.label}: {group.runs[0].codes[0]}" for group in groups)
        notes.append(f"the experiments were trained by different versions of the code ({shown})")
    elif any(code.dirty for code in codes):
        notes.append("some runs were trained by code with uncommitted changes")
    judges = _versions(CodeVersion.of({"git": r.evaluated.git}) for g in groups for r in g.runs)
    if len(judges) > 1:
        shown = ", ".join(sorted(map(str, judges)))
        notes.append(
            f"the runs were evaluated by different versions of the code ({shown}); "
            f"'{typed('evaluate')} RUN...' evaluates them anew by one"
        )
    return notes


def _versions(codes: Iterable[CodeVersion]) -> list[CodeVersion]:
    """Return one of each version that decides what is learned or measured."""
    found: list[CodeVersion] = []
    for code in codes:
        if not any(code.same(other) for other in found):
            found.append(code)
    return found


def _difference_notes(groups: Sequence[Group]) -> list[str]:
    """Tell where seeds, budgets, F or the pipeline, though not the users, are not the same."""
    notes = []
    if len({tuple(group.seeds) for group in groups}) > 1:
        listed = "; ".join(f"{group.label}: {seed_ranges(group.seeds)}" for group in groups)
        notes.append(f"the experiments were run with different seeds ({listed})")
    budgets = {g.label: g.runs[0].config.get("training", {}).get("env_steps") for g in groups}
    if len(set(budgets.values())) > 1:
        listed = ", ".join(f"{label}: {steps:,}" for label, steps in budgets.items())
        notes.append(f"the experiments were trained for different numbers of requests ({listed})")
    keys = _differences([group.runs[0] for group in groups])
    plays = {g.label: g.runs[0].evaluated.play for g in groups}
    if len(set(plays.values())) > 1:
        listed = ", ".join(f"{label}: {play}" for label, play in plays.items())
        notes.append(f"not all teams took their most probable actions ({listed})")
    # Who is paid what does not change what F is; weights and terms do.
    paid = ("environment.rewards.mode", "environment.rewards.mix", "environment.rewards.shaping")
    rewards = [k for k in keys if k.startswith("environment.rewards.") and not k.startswith(paid)]
    if rewards:
        notes.append(f"F is not the same sum everywhere ({', '.join(rewards)}): compare outcomes")
    # In which numbers components say what they decide changes nothing that is measured.
    coding = {"environment.pipeline.actions"}
    pipeline = [k for k in keys if k.startswith("environment.pipeline.") and k not in coding]
    if pipeline:
        notes.append(
            f"the pipelines differ ({', '.join(pipeline)}): F, f_i and the funnel cannot be "
            "compared between them, user outcomes can"
        )
    return notes


def _differences(runs: Sequence[Run]) -> dict[str, list[str]]:
    flat = [flatten(run.config) for run in runs]
    keys = sorted({key for values in flat for key in values if not key.startswith(_LABELS)})
    rows = {key: [str(values.get(key, "-")) for values in flat] for key in keys}
    return {key: cells for key, cells in rows.items() if len(set(cells)) > 1}


def _labels(runs: Sequence[Run]) -> list[str]:
    """Return a name for each experiment: the run's name and algorithm, and what else differs."""
    names = {run.name for run in runs}
    kinds = {run.algorithm for run in runs}
    labels = []
    for run in runs:
        parts = [run.name] if len(names) > 1 else []
        if (len(kinds) > 1 or len(names) == 1) and run.algorithm not in re.split(
            r"[-_.]", run.name
        ):
            parts.append(run.algorithm)
        labels.append(" ".join(parts) or run.name)
    counts = Counter(labels)
    for label in [label for label, count in counts.items() if count > 1]:
        places = [i for i, other in enumerate(labels) if other == label]
        keys = _differences([runs[i] for i in places])
        for row, place in enumerate(places):
            shown = ", ".join(f"{_short(key, keys)}={cells[row]}" for key, cells in keys.items())
            if len(keys) > _SHOWN_KEYS or not keys:
                shown = f"#{runs[place].experiment[:_HASH_DIGITS]}"
            labels[place] = f"{label} {shown}"
    return labels


def _short(key: str, keys: Iterable[str]) -> str:
    """Return the shortest end of a dotted key that no other of the keys ends in."""
    parts = key.split(".")
    for length in range(1, len(parts)):
        end = ".".join(parts[-length:])
        if sum(f".{other}".endswith(f".{end}") for other in keys) == 1:
            return end
    return key
