"""``python evaluate.py run RUN...``: a trained team beside baselines, on the same users."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from dataclasses import replace as changed
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agents.commands.shared import Cohort, open_run, print_narrow, written
from marec_env.errors import ConfigError, RunError, visible

if TYPE_CHECKING:
    from agents.config import EvaluationConfig
    from marec_env.evaluation.comparison import Evaluation
    from marec_env.evaluation.policies import Policy
    from marec_env.evaluation.rollout import RolloutResult
    from marec_env.world import World

__all__ = [
    "WATCHED",
    "EvaluationCohort",
    "command",
    "evaluate_run",
    "prepare_baselines",
    "write_comparison",
]

WATCHED = ("clicks", "satisfaction", "length", "return")
"""Outcomes whose curves are drawn while a team trains."""
_TRIAL = 2  # sessions on which a user's own baseline is tried
_LONGEST = 60  # characters of a file's name that tell the baselines
_PRIVILEGED = (
    "(p) privileged: reads the users' hidden state; F of slate policies counts neutral component "
    "objectives"
)


def command(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    baselines: Annotated[
        str | None, typer.Option(help="Comma-separated names; by default those of the run.")
    ] = None,
    sessions: Annotated[
        int | None, typer.Option(min=2, help="Sessions; by default those of the run.")
    ] = None,
    seed: Cohort = None,
    best: Annotated[
        bool,
        typer.Option("--best", help="The best checkpoint (evaluation.every), not the newest."),
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda:i; by default that of training.")
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Put it in the place of an evaluation of other settings."),
    ] = False,
) -> None:
    """Evaluate trained teams beside baselines on the same users; write evaluation.json, .csv,
    report.html.

    A run's evaluation.json is replaced by one of the same sessions, seed and baselines only; others
    are written beside it, for example as evaluation-8sessions.json.
    """
    from marec_env.world import build_world

    names = None if baselines is None else [n.strip() for n in baselines.split(",") if n.strip()]
    asked = {"baselines": names, "sessions": sessions, "seed": seed}
    given = {key: value for key, value in asked.items() if value is not None}
    for path in runs:
        run = changed(open_run(path, device), best=best)
        policy, steps = run.policy, run.newest().progress.env_steps
        settings = run.config.evaluation.model_copy(update=given)
        world = build_world(run.environment)
        made = prepare_baselines(world, settings.baselines)()
        cohort = EvaluationCohort(world, made, settings)
        _, places = evaluate_run(path, cohort, policy, steps, replace=replace, best=best)
        if places[0] != (known := path / "evaluation.json"):
            typer.echo(
                f"{visible(str(known))} is of another checkpoint, other sessions or baselines and "
                "stays as it is; --replace puts this evaluation in its place"
            )
        written(*places)


def prepare_baselines(world: World, names: Sequence[str]) -> Callable[[], dict[str, Policy]]:
    """Build baselines, and try those of the user's own on a few sessions.

    Returns:
        A function that hands them out; a user's own are built anew, as if they had not been tried.

    Raises:
        ConfigError: a baseline is unknown, or no policy.
        PluginError: one of the user's own cannot be built, or fails on its first sessions.
    """
    from agents.baselines import BASELINES
    from marec_env.evaluation.rollout import rollout
    from marec_env.registry import is_own, naming
    from marec_env.simulator import Simulator

    for name in names:
        BASELINES.get(name)  # an unknown name is told before anything is computed
    simulator = Simulator(world, 1, autoreset=False)
    made = {name: _built(name, simulator) for name in names}
    own = [name for name in names if is_own(name)]
    for name in own:
        with naming(f"baseline '{name}' on its first sessions"):
            rollout(world, made[name], _TRIAL, seed=0)
    return lambda: {**made, **{name: _built(name, simulator) for name in own}}


def _built(name: str, simulator: Any) -> Policy:
    from agents.baselines import build_baseline
    from marec_env.evaluation.policies import SlatePolicy, TeamPolicy
    from marec_env.registry import is_own, naming

    with naming(f"baseline '{name}'") if is_own(name) else nullcontext():
        found = build_baseline(name, simulator)
    if not isinstance(found, TeamPolicy | SlatePolicy):
        raise ConfigError(
            f"baseline '{name}' is {type(found).__name__}, neither a team's policy (act, reset) "
            "nor one of slates (recommend)"
        )
    return found


class EvaluationCohort:
    """Sessions on which trained policies meet baselines; each baseline plays them once."""

    def __init__(
        self, world: World, baselines: Mapping[str, Policy], settings: EvaluationConfig
    ) -> None:
        """Args:
        world: whose users these are.
        baselines: by name.
        settings: how many sessions, and their seed.
        """
        self.baselines = baselines
        self._world, self._settings = world, settings

    def play(self, policy: Policy) -> RolloutResult:
        """Return what came of a policy."""
        from marec_env.evaluation.rollout import rollout

        return rollout(self._world, policy, self._settings.sessions, self._settings.seed)

    @cached_property
    def outcomes(self) -> dict[str, RolloutResult]:
        """What came of each baseline."""
        return {name: self.play(policy) for name, policy in self.baselines.items()}

    def point(self, policy: Policy) -> dict[str, float]:
        """Return a point of learning curves: ``evaluation/<outcome>`` of a policy in training, and
        ``evaluation/<outcome>/<baseline>``, which stay the same.
        """
        means = {"": self.play(policy).means()}
        means |= {f"/{name}": found.means() for name, found in self.outcomes.items()}
        return {
            f"evaluation/{outcome}{name}": found[outcome]
            for name, found in means.items()
            for outcome in WATCHED
        }


def evaluate_run(
    folder: Path, cohort: EvaluationCohort, policy: Policy, env_steps: int, *, replace: bool,
    best: bool = False,
) -> tuple[Evaluation, tuple[Path, ...]]:  # fmt: skip
    """Roll out a trained policy beside the baselines; write what came of it into the run's folder,
    print it, and return it with the places of its files.
    """
    from agents.comparison.runs import TRAINED
    from marec_env.evaluation.comparison import compare_outcomes

    policies = {TRAINED: policy, **cohort.baselines}
    outcomes = {TRAINED: cohort.play(policy), **cohort.outcomes}
    privileged = {name: bool(getattr(p, "privileged", False)) for name, p in policies.items()}
    found = compare_outcomes(outcomes, privileged, tuple(cohort.baselines))
    places = write_comparison(found, folder, env_steps=env_steps, replace=replace, best=best)
    _print_evaluation(folder, places[0].name)
    return found, places


def write_comparison(
    comparison: Evaluation, folder: Path, *, env_steps: int, replace: bool = False,
    best: bool = False,
) -> tuple[Path, ...]:  # fmt: skip
    """Write an evaluation, its table and its page into a run's folder; return their places.

    An ``evaluation.json`` of other sessions, seed or baselines is replaced if asked for; otherwise
    the files get names of their own.
    """
    from agents.comparison.report import write_run_report
    from agents.runs.manifest import CodeVersion
    from marec_env.io import write_json, write_text

    content = comparison.as_dict()
    suffix = "" if replace else _suffix(content, folder / "evaluation.json")
    if best and not replace:
        suffix = f"-best{suffix}"
    places = folder / f"evaluation{suffix}.json", folder / f"evaluation{suffix}.csv"
    code = asdict(CodeVersion.here())
    write_json(places[0], {**content, "env_steps": env_steps, "git": code})
    write_text(places[1], comparison.as_csv())
    return *places, write_run_report(folder, suffix)


def _suffix(content: Mapping[str, Any], known: Path) -> str:
    """Return what tells an evaluation from the one that is there; empty if nothing does."""
    from agents.comparison.runs import TRAINED
    from marec_env.io import read_json

    try:
        before = read_json(known, dict[str, Any])
        names = sorted(set(before["policies"]) - {TRAINED})
        sessions, seed = before["sessions"], before["seed"]
    except (RunError, KeyError, TypeError):
        return ""  # none is there, or none that can be read
    parts = []
    if content["sessions"] != sessions:
        parts.append(f"{content['sessions']}sessions")
    if content["seed"] != seed:
        parts.append(f"seed{content['seed']}")
    ours = sorted(set(content["policies"]) - {TRAINED})
    if ours != names:
        told = re.sub(r"[^A-Za-z0-9_+.]", "_", "+".join(ours)) or "no_baselines"
        if len(told) > _LONGEST:
            told = f"{len(ours)}baselines_{hashlib.sha256(told.encode()).hexdigest()[:8]}"
        parts.append(told)
    return "".join(f"-{part}" for part in parts)


def _print_evaluation(folder: Path, evaluation: str = "evaluation.json") -> None:
    """Print what a run's page says of its evaluation: outcomes, ranking metrics, differences to the
    best baseline, objectives, reward terms.
    """
    from agents.comparison import tables
    from agents.comparison.runs import read_run
    from agents.comparison.summary import summarise

    summary = summarise([changed(read_run(folder, evaluation), defects=())])
    wanted = (
        tables.outcomes_table,
        tables.quality_table,
        tables.difference_table,
        tables.further_table,
        tables.objectives_table,
        tables.terms_table,
    )
    print_narrow([table(summary) for table in wanted], (*summary.notes, _PRIVILEGED))
