"""The figures of a comparison, from its summary and its runs' learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from agents.comparison.grouping import Group
from agents.comparison.rows import REGRET, STAGES, Row
from agents.comparison.runs import Run
from agents.comparison.summary import Summary
from agents.comparison.tables import OBJECTIVE, heading, name_of
from marec_env.evaluation.quantities import OF_RUNS, OF_STEPS
from marec_env.evaluation.statistics import FEWEST_TO_RESAMPLE, bootstrap_band
from marec_env.reporting.charts import Bar, Line, bars_figure, groups_figure, lines_figure
from marec_env.reporting.drawing import NEUTRAL, ORACLE, Figure, color_of, sentence, shown

_MOST_BARS = 24  # rows that a bar chart shows; the table has all
_MOST_LINES = 7  # colours that are told apart
_CURVES = {
    "evaluation/clicks": "clicks a session of the evaluation's cohort",
    "evaluation/return": "F a session of the evaluation's cohort",
    "episode/clicks": "clicks a session",
    "episode/length": "session length in requests",
    "episode/satisfaction_per_request": "satisfaction a request",
    "episode/return": "F a session",
}
"""What is drawn over env steps, by its name in ``metrics.jsonl``."""
_EPISODE_CURVES = {
    "evaluation/return": "return of the evaluation's episodes, mean of agents",
    "episode/return": "return an episode, mean of agents",
    "episode/length": "episode length in steps",
}
"""The same on other people's environments."""
_FAMILIES = {
    family: {**OF_STEPS, **OF_RUNS}[family]
    for family in (
        "term/", "objective/", "entropy/", "kl/", "policy_loss/", "value_loss/",
        "explained_variance/",
    )
}  # fmt: skip
"""What is drawn by part of the team, by how its names begin."""
_BARS = {
    "clicks": "clicks a session",
    "satisfaction": "satisfaction (0 to 1), session mean",
    "length": "session length in requests",
    REGRET: "regret: clicks a session below the oracle",
    "return": "F a session",
}
_BY_GROUP = {
    "clicks": "clicks a session",
    "satisfaction": "satisfaction (0 to 1)",
    "length": "session length in requests",
}


def outcome_figures(summary: Summary) -> list[Figure]:
    """Draw bars of user outcomes, with intervals."""
    figures = []
    for quantity, title in _BARS.items():
        rows = [row for row in summary.rows if quantity in row.values][:_MOST_BARS]
        if not any(row.seeds for row in rows):
            continue
        if not summary.users:
            title = heading(quantity, summary)
        elif quantity == "return":  # neutral values in place of objectives would mislead
            rows = [row for row in rows if any(key.startswith(OBJECTIVE) for key in row.values)]
        bars = [Bar(name_of(r), r.values[quantity], _color(summary, r)) for r in rows]
        caption = f"{sentence(heading(quantity, summary))}, with 95 % intervals"
        if summary.users or quantity != "length":  # elsewhere longer may be worse
            caption += f"; {'lower' if quantity == REGRET else 'higher'} is better"
        figures.append(bars_figure(title, bars, f"{caption}."))
    return figures


def _color(summary: Summary, row: Row) -> str:
    if row.kind == "trained":
        return color_of(summary.experiments.index(row))
    return ORACLE if row.kind == "oracle" else NEUTRAL


def curve_figures(groups: Sequence[Group], others: Sequence[Row] = ()) -> list[Figure]:
    """Draw learning curves; policies evaluated beside are called and ordered as ``others``."""
    names = {row.label: name_of(row) for row in others}
    order = list(names)
    wanted = {}
    users = "episode/clicks" in _logged(groups)
    for name, title in (_CURVES if users else _EPISODE_CURVES).items():
        baselines = [n for n in _logged(groups) if n.startswith(f"{name}/")]  # the same in all
        lines = {group.label: (group, name) for group in groups}
        beside = {}
        for n in baselines:
            _, place = max((_end(group.runs[0], n), -k) for k, group in enumerate(groups))
            beside[n.removeprefix(f"{name}/")] = (groups[-place], n)
        for label in sorted(beside, key=lambda n: order.index(n) if n in names else len(order)):
            lines[names.get(label, label)] = beside[label]
        wanted[title] = lines
    return _curves(wanted)


def training_figures(groups: Sequence[Group]) -> list[Figure]:
    """Draw terms, objectives and what the learner says of itself, by part of one experiment."""
    if len(groups) != 1:
        return []
    [group] = groups
    logged = _logged(groups)
    return _curves(
        {
            title: {n.removeprefix(prefix): (group, n) for n in logged if n.startswith(prefix)}
            for prefix, title in _FAMILIES.items()
        }
    )


def _curves(wanted: Mapping[str, Mapping[str, tuple[Group, str]]]) -> list[Figure]:
    """Draw a figure for each title: by label, of a group a metric."""
    figures = []
    for title, lines in wanted.items():
        found = {label: learning_curve(group, name) for label, (group, name) in lines.items()}
        curves = {label: curve for label, curve in found.items() if curve is not None}
        if not curves:
            continue
        band = (
            ": interquartile mean over seeds, band: 95 % bootstrap interval (of fewer than "
            f"{FEWEST_TO_RESAMPLE} seeds: mean and range), thin lines: seeds"
            if any(curve.low is not None for curve in curves.values())
            else ""
        )
        ends = "; ".join(f"{n} {shown(np.asarray(c.y)[-1])}" for n, c in curves.items())
        figures.append(
            lines_figure(
                curves,
                ("env steps trained on", title),
                f"{sentence(title)} while training{band}.",
                alt=f"Learning curves of {title}, at the end: {ends}.",
            )
        )
    return figures


def _logged(groups: Sequence[Group]) -> list[str]:
    """Return the names of runs' metrics, in the order of their first appearance."""
    runs = [run for group in groups for run in group.runs]
    return list(dict.fromkeys(name for run in runs for row in run.metrics for name in row))


def learning_curve(group: Group, name: str) -> Line | None:
    """Return a metric over env steps, ``None`` where a run did not log it.

    The band is a bootstrap interval, and from the lowest to the highest of too few seeds for one.
    Seeds that logged at different steps are interpolated to those of the first, as far as all go.
    """
    series = [_series(run, name) for run in group.runs]
    if any(len(found) == 0 for found in series):
        return None
    end = min(found[-1, 0] for found in series)
    steps = series[0][series[0][:, 0] <= end, 0]
    if steps.size == 0:
        return None
    if len(series) == 1:
        return Line(steps, series[0][: steps.size, 1])
    seeds = np.stack([np.interp(steps, found[:, 0], found[:, 1]) for found in series])
    if len(seeds) < FEWEST_TO_RESAMPLE:
        return Line(steps, seeds.mean(axis=0), seeds.min(axis=0), seeds.max(axis=0), seeds)
    return Line(steps, *bootstrap_band(seeds), seeds)


def _series(run: Run, name: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    points = [(row.get("env_steps"), row.get(name)) for row in run.metrics]
    found = [(steps, value) for steps, value in points if steps is not None and value is not None]
    return np.array(found, dtype=np.float64).reshape(-1, 2)


def _end(run: Run, name: str) -> float:
    """Return the last step at which a run logged a metric, -1 if it never did."""
    series = _series(run, name)
    return float(series[-1, 0]) if len(series) else -1.0


def profile_figures(summary: Summary) -> list[Figure]:
    """Draw the seeds' performance profile, if there are several seeds."""
    profile = summary.profile
    if profile is None:
        return []
    axis = "clicks a session" if summary.users else heading(profile.quantity, summary)
    if profile.normalised:
        axis += ", as a share of the way from random play (0) to the oracle (1)"
    caption = (
        "Performance profile: share of seeds that reach more than the value below; band: 95 % "
        "bootstrap interval. A curve further to the right is better."
    )
    lines = {name: Line(profile.thresholds, *band) for name, band in profile.bands.items()}
    halves = "; ".join(
        f"{name} {shown(float(profile.thresholds[middle >= 0.5].max()))}"
        for name, (middle, _, _) in profile.bands.items()
    )
    return [
        lines_figure(
            lines,
            (axis, "share of seeds"),
            caption,
            alt=f"Performance profile: half of the seeds reach {halves}.",
            marked=False,
            steps="steps-post",
            span=(-0.02, 1.05),
        )
    ]


def _line_rows(summary: Summary, rows: Sequence[Row]) -> list[Row]:
    """Return the rows that lines are drawn for: experiments first, as many as can be told apart."""
    return list(rows)[: max(_MOST_LINES, len(summary.experiments))]


def funnel_figures(summary: Summary) -> list[Figure]:
    """Draw how many relevant items survive, and what each stage lets past."""
    funnels = {row: [found.value for found in row.part("funnel").values()] for row in summary.rows}
    rows = _line_rows(summary, [row for row, f in funnels.items() if len(f) == len(STAGES)])
    if not rows:
        return []
    series = {name_of(row): Line(range(len(STAGES)), funnels[row]) for row in rows}
    caption = "Relevant items that survive each stage of a request, on a logarithmic scale."
    ticks = [stage.title for stage in STAGES]
    shares = {
        stage.decides: {name_of(r): r.found[key] for r in rows if key in r.found}
        for stage in STAGES[1:]
        if (key := ("passing", stage.key))
    }
    passing = "share of the relevant items that get past"
    return [
        lines_figure(series, ("", "relevant items a request"), caption, ticks=ticks, log="y"),
        groups_figure(passing, shares, "Where relevant items get lost: what each stage lets past."),
    ]


def group_figures(summary: Summary) -> list[Figure]:
    """Draw outcomes by user group."""
    figures = []
    for outcome, title in _BY_GROUP.items():
        found = {name_of(row): row.nested("groups").get(outcome) for row in summary.experiments}
        rows = {name: groups for name, groups in found.items() if groups}
        if rows:
            caption = f"{sentence(outcome)} by user group, with 95 % intervals."
            figures.append(groups_figure(title, rows, caption))
    return figures


def exposure_figures(summary: Summary) -> list[Figure]:
    """Draw exposure of providers and of items by popularity."""
    figures = []
    for division, axis in (("provider", "providers"), ("popularity", "items")):
        found = [(row, row.exposure[division]) for row in summary.rows if division in row.exposure]
        rows = [row for row, shares in found if shares.impressions and shares.groups > 1]
        if not rows:
            continue
        kept = _line_rows(summary, rows)
        exposure = {name_of(row): row.exposure[division].ratios() for row in kept}
        count = rows[0].exposure[division].groups
        if division == "popularity":
            ticks = [f"band {k + 1}" for k in range(count)]
            ticks[0], ticks[-1] = "least popular fifth", "most popular fifth"
        else:
            # Providers have no names; each line is sorted by itself, from least to most shown.
            exposure = {name: sorted(values) for name, values in exposure.items()}
            ticks = ["least shown", *[""] * (count - 2), "most shown"]
        caption = (
            f"Impressions of {axis} in proportion to their share of the catalog; 1 (dotted) is "
            "proportionate."
        )
        labels = ("", f"exposure of {axis}: impressions / catalog")
        lines = {name: Line(range(len(values)), values) for name, values in exposure.items()}
        figures.append(lines_figure(lines, labels, caption, ticks=ticks, reference=1.0))
    return figures
