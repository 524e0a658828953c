"""``python evaluate.py compare RUN...``: algorithms beside each other, seeds as the unit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agents.commands.console import table_console

if TYPE_CHECKING:
    from marec_env.evaluation.page import Curve, TextTable

__all__ = ["Run", "command", "compare_runs", "read_run"]

OUTCOMES = ("return", "clicks", "length", "satisfaction", "precision", "recall", "f1", "ndcg")
_CURVES = ("episode/return", "return", "team_reward")
"""Names under which a run's metrics may hold F, in order of preference."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a comparison reads of a run's folder."""

    path: Path
    algorithm: str
    seed: int
    environment: dict[str, Any]
    config: dict[str, Any]
    commit: str | None
    metrics: list[dict[str, float | None]]
    evaluation: dict[str, Any] | None
    defects: tuple[str, ...]
    """Why the run's numbers do not enter any average; empty for a sound run."""


def command(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, any number of seeds each.")],
    output: Annotated[Path, typer.Option(help="Folder for the written files.")] = Path(
        "comparison"
    ),
) -> None:
    """Compare algorithms over seeds: table, comparison.json, comparison.csv, comparison.html."""
    from rich.table import Table

    from marec_env.evaluation.page import render_page
    from marec_env.io import write_json, write_text

    result = compare_runs([read_run(path) for path in runs])
    table, notes = result["table"], result["notes"]
    shown = Table(title=table.title, title_justify="left")
    for index, cell in enumerate(table.header):
        shown.add_column(cell, justify="left" if index == 0 else "right")
    for row in table.rows:
        shown.add_row(*row)
    console = table_console()
    console.print(shown)
    for note in notes:
        console.print(f"note: {note}", style="yellow")
    write_json(output / "comparison.json", result["document"])
    write_text(output / "comparison.csv", result["csv"])
    page = render_page("Comparison", notes, [table, *result["more"]], result["figures"])
    write_text(output / "comparison.html", page)
    typer.echo(f"written: {output}/comparison.json, .csv, .html")


def read_run(path: Path) -> Run:
    """Read a run; damage and missing parts become :attr:`Run.defects`.

    Raises:
        RunError: the folder is not a run's, or its manifest is missing.
        ConfigError: its configuration does not fit this version.
    """
    from agents.config import RunConfig
    from agents.runs.folder import open_run
    from agents.runs.manifest import read_manifest
    from agents.runs.metrics_log import read_metrics
    from marec_env.config.loader import load
    from marec_env.errors import RunError

    folder = open_run(path)
    config = load(folder.config, RunConfig, [])
    defects: list[str] = []
    metrics: list[dict[str, float | None]] = []
    try:
        metrics = read_metrics(folder.metrics)
    except RunError as error:
        defects.append(f"damaged metrics ({error})")
    steps = max((row.get("env_steps") or 0 for row in metrics), default=0)
    if not defects and steps < config.training.env_steps:
        defects.append(f"unfinished ({steps:,.0f} of {config.training.env_steps:,} env steps)")
    evaluation = None
    try:
        evaluation = json.loads(folder.evaluation.read_text())
    except FileNotFoundError:
        defects.append("not evaluated (python evaluate.py run RUN)")
    except (OSError, ValueError) as error:
        defects.append(f"damaged evaluation.json ({error})")
    document = config.model_dump(mode="json")
    git = read_manifest(folder.manifest).get("git") or {}
    return Run(
        path=path,
        algorithm=config.algorithm.kind,
        seed=config.seed,
        environment=document["environment"],
        config=document,
        commit=git.get("commit"),
        metrics=metrics,
        evaluation=evaluation,
        defects=tuple(defects),
    )


def compare_runs(runs: list[Run]) -> dict[str, Any]:
    """Average the sound runs of each algorithm; mark the others.

    Raises:
        RunError: runs on different environments or evaluated on different sessions, a seed given
            twice, different seeds of the algorithms, or no sound run.
    """
    from agents.commands.evaluate import TRAINED
    from marec_env.errors import RunError
    from marec_env.evaluation.page import TextTable, curves_figure
    from marec_env.evaluation.statistics import bootstrap_interval, seeds_warning

    sound = [run for run in runs if not run.defects]
    notes = [f"{run.path} is left out: {'; '.join(run.defects)}" for run in runs if run.defects]
    if not sound:
        raise RunError("no run can be compared: " + "; ".join(notes))
    _refuse_mixtures(sound)
    commits = {run.commit for run in sound}
    if len(commits) > 1:
        shown = ", ".join(sorted(str(c)[:10] for c in commits))
        notes.append(f"the runs were made by different versions of the code: {shown}")
    groups: dict[str, list[Run]] = {}
    for run in sound:
        groups.setdefault(run.algorithm, []).append(run)
    if (warning := seeds_warning(min(len(g) for g in groups.values()))) is not None:
        notes.append(warning)
    rows, lines = [], ["algorithm,seeds,outcome,iqm,low,high"]
    document: dict[str, Any] = {"notes": notes, "algorithms": {}}
    for name, members in groups.items():
        cells, entry = [name, str(len(members))], {}
        for outcome in OUTCOMES:
            values = [
                run.evaluation["policies"][TRAINED]["outcomes"][outcome]["mean"]
                for run in members
                if run.evaluation is not None
            ]
            found = bootstrap_interval(values)
            known = found.count > 1
            entry[outcome] = {
                "iqm": found.value,
                "low": found.low if known else None,
                "high": found.high if known else None,
                "values": values,
            }
            lines.append(
                f"{name},{found.count},{outcome},{found.value},"
                + (f"{found.low},{found.high}" if known else ",")
            )
            interval = f"\n[{found.low:.3g}, {found.high:.3g}]" if known else ""
            cells.append(f"{found.value:.3g}{interval}")
        rows.append(cells)
        document["algorithms"][name] = {
            "seeds": sorted(run.seed for run in members), "outcomes": entry
        }  # fmt: skip
    table = TextTable(
        "Interquartile mean over seeds [95 % interval]",
        ["algorithm", "seeds", *("F" if o == "return" else o for o in OUTCOMES)],
        rows,
    )
    curves = {name: c for name, g in groups.items() if (c := _curve(g)) is not None}
    return {
        "table": table,
        "notes": notes,
        "document": document,
        "csv": "\n".join(lines) + "\n",
        "more": _differences(groups),
        "figures": [curves_figure(curves, "F")] if curves else [],
    }


def _refuse_mixtures(runs: list[Run]) -> None:
    from marec_env.errors import RunError

    first = runs[0]
    for run in runs[1:]:
        if run.environment != first.environment:
            raise RunError(f"{run.path} and {first.path} are on different environments")
        assert run.evaluation is not None and first.evaluation is not None
        for key in ("seed", "sessions"):
            if run.evaluation[key] != first.evaluation[key]:
                raise RunError(
                    f"{run.path} and {first.path} were evaluated on different sessions "
                    f"({key} {run.evaluation[key]} and {first.evaluation[key]}); evaluate them anew"
                )
    seeds: dict[str, list[int]] = {}
    for run in runs:
        known = seeds.setdefault(run.algorithm, [])
        if run.seed in known:
            raise RunError(f"{run.path}: seed {run.seed} of {run.algorithm} is given twice")
        known.append(run.seed)
    if len({tuple(sorted(found)) for found in seeds.values()}) > 1:
        listed = "; ".join(f"{name}: {sorted(found)}" for name, found in seeds.items())
        raise RunError(f"the algorithms were run with different seeds ({listed})")


def _curve(runs: list[Run]) -> Curve | None:
    """Return F over env steps of runs that logged at the same steps, else ``None``."""
    import numpy as np

    from marec_env.evaluation.page import Curve

    name = next((n for n in _CURVES if any(n in row for row in runs[0].metrics)), None)
    if name is None:
        return None
    series = []
    for run in runs:
        kept = [(r["env_steps"], r[name]) for r in run.metrics if r.get(name) is not None]
        series.append(np.array(kept, dtype=np.float64).reshape(-1, 2))
    length = min(len(s) for s in series)
    if length == 0 or any(not np.array_equal(s[:length, 0], series[0][:length, 0]) for s in series):
        return None
    return Curve(series[0][:length, 0], np.stack([s[:length, 1] for s in series]))


def _differences(groups: dict[str, list[Run]]) -> list[TextTable]:
    """Return a table of the configuration keys in which the algorithms differ."""
    from marec_env.evaluation.page import TextTable

    flat = {name: _flatten(group[0].config) for name, group in groups.items()}
    keys = sorted({key for values in flat.values() for key in values} - {"seed", "name", "output"})
    rows = []
    for key in keys:
        cells = [str(values.get(key, "-")) for values in flat.values()]
        if len(set(cells)) > 1:
            rows.append([key, *cells])
    return [TextTable("Configuration differences", ["key", *groups], rows)] if rows else []


def _flatten(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, dict):
            found |= _flatten(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
