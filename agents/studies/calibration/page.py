"""The calibration report for readers: its tables, for terminal and page alike, and the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from agents.studies.calibration.click_model import Floats
from agents.studies.calibration.reference import Reference
from agents.studies.calibration.report import Calibration
from agents.studies.records import spread
from marec_env.errors import visible
from marec_env.evaluation.statistics import Estimate
from marec_env.reporting import page
from marec_env.reporting.charts import Line, groups_figure, lines_figure
from marec_env.reporting.drawing import Figure
from marec_env.reporting.table import TextTable

_NONE = "–"
_TINY = 0.01  # numbers below it are shown with two significant digits
_NORMAL_95 = 1.96  # standard errors to either side of a 95 % interval
_STYLES = {"log": "-", "simulated": "--"}
_SHORT = 28  # letters of a topic's name
_RANDOM = {
    "promised": "calibrated to (population.random_click_rate)",
    "measured": "simulated, before boredom",
    "log_estimate": "log, impressions by inverse propensity",
    "liked_density": "log, likes, if all that users did not consume were disliked",
    "liked_share": "log, likes, if users consumed blindly",
}
_DEBIASING = {
    "random": "click rate of random items: truth",
    "naive_rate": "… read off the biased log",
    "weighted_rate": "… repaired by propensities",
    "best": "true click rate of 50 picks: best possible",
    "by_clicks": "… by clicks in the biased log",
    "by_weighted_rate": "… by click rate repaired by propensities",
    "popular_share": "share of the picks by clicks among the 50 most shown",
}


def _number(value: float | Estimate | None) -> str:
    if value is None:
        return _NONE
    if isinstance(value, Estimate):
        return spread(value)
    if 0 < abs(value) < _TINY:
        return f"{value:.2g}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"


def _labelled(
    labels: Mapping[str, str], found: Mapping[str, float | Estimate | None]
) -> list[tuple[str, str]]:
    return [(label, _number(found[key])) for key, label in labels.items()]


def tables_of(report: Calibration) -> list[TextTable]:
    """Return the report's tables in order of reading; empty ones are left out."""
    tables = [
        TextTable(
            "Click model on held-out interactions",
            (
                "question",
                "cases",
                "AUC, 95 %",
                "log loss",
                "of rate",
                "ECE",
                "κ",
                "own AUC",
                "slope",
            ),
            [
                (
                    task.question,
                    f"{task.forecast.cases:,}",
                    f"{task.forecast.auc:.3f} ± {_NORMAL_95 * task.forecast.auc_error:.3f}",
                    f"{task.forecast.log_loss:.3f}",
                    f"{task.forecast.null_log_loss:.3f}",
                    f"{task.forecast.calibration_error:.3f}",
                    f"{task.fitted.scale:.1f}",
                    f"{task.configured_auc:.3f}",
                    f"{task.configured_slope:.2f}",
                )
                for task in report.tasks
            ],
            (
                "Factors from the first 60 % of the log, coefficients from the next 20 %, judged "
                "on the last 20 %. Of rate: log loss of the constant forecast. ECE: expected "
                "calibration error. κ: fitted scale. Own AUC and slope: of the simulator's own "
                "logit, as configured; a slope below 1 says that the simulated users are more "
                "decided than held-out behaviour shows, part of which is the noise of estimated "
                "factors.",
            ),
        ),
        TextTable(
            "Log and simulation",
            ("quantity", "log", "simulated", "distance"),
            [
                (
                    row.name,
                    _number(row.log),
                    _number(row.simulated),
                    _NONE if row.distance is None else f"{row.distance:.3f} ({row.distance_name})",
                )
                for row in report.comparisons
            ],
            (
                "Simulated under a platform that shows items in proportion to their popularity in "
                f"the log. {_NONE}: the log, or the user model, does not have it.",
            ),
        ),
        TextTable(
            "Random policy: click probability of an examined item drawn evenly",
            ("", "value"),
            _labelled(_RANDOM, report.random_policy),
            (
                "The last two bound the like rate of random items; a log without impressions says "
                "no more.",
            ),
        ),
        TextTable(
            "Learning from a popularity-biased log (simulated)",
            ("what", "value"),
            _labelled(_DEBIASING, report.debiasing),
            (
                "Where popular items are also good ones, ranking by clicks is hard to beat; the "
                "rates are misread all the same.",
            ),
        ),
        TextTable(
            "Settings that would bring the simulation closer to the log",
            ("key", "value"),
            _labelled({key: key for key in report.suggestions}, report.suggestions),
            ("Estimates from the log; nothing was changed.",),
        ),
        *(_reference_tables(report.reference) if report.reference else ()),
    ]
    return [table for table in tables if table.rows]


def _reference_tables(found: Reference) -> list[TextTable]:
    """Return the gate, with what follows from it, and what a model that passed it says."""
    gain = spread(found.gain, sign="+")
    verdict = f"The model's picks beat popularity's ({gain}): it may judge."
    if not found.passed:
        verdict = (
            f"The model's picks do not beat popularity's ({gain}): it may judge nothing, and was "
            "asked no more."
        )
    if found.unanswered:
        verdict += f" {found.unanswered} questions it did not answer."
    gate = TextTable(
        f"Users by a language model, the gate: {found.model}",
        ("who picks", "share of held-out likes found"),
        [(name, _number(value)) for name, value in found.hits.items()],
        (
            f"{found.personas} users of the log, each told by what it liked and did not like in "
            f"the log's first part; of {found.slate} items one is what the user liked later, the "
            f"others are drawn by popularity. Chance finds {1 / found.slate:.3f}. {verdict}",
        ),
    )
    if found.picks is None:
        return [gate]
    picks = found.picks
    rows: dict[str, float | Estimate] = {
        "agreement with the parametric users (correlation within a slate)": picks.agreement,
        "slates without a click: model": picks.no_click["model"],
        "slates without a click: parametric users": picks.no_click["parametric"],
        "slope: factor on the parametric logits that the picks fit best": picks.slope,
        **{f"would agree: {key}": value for key, value in picks.suggestions.items()},
    }
    return [
        gate,
        TextTable(
            "Users by a language model, their picks",
            ("", "value"),
            [(name, _number(value)) for name, value in rows.items()],
            (f"{picks.slates} slates drawn by popularity. Nothing was changed.",),
        ),
    ]


def render_page(report: Calibration) -> str:
    """Return the page; titles and names from the data are escaped."""
    size = ", ".join(f"{count:,} {name}" for name, count in report.size.items() if count)
    plots = (_reliability, _sessions, _positions, _popularity, _topics, _topic_share)
    sections = [
        page.Section("Tables", tables_of(report)),
        page.Section("Plots", figures=[plot(report) for plot in plots]),
        page.Section("The log", verbatim=[f"SHA-256 {report.fingerprint}"]),
    ]
    return page.render_page(f"Calibration: {report.source}", [size], (), sections)


def _reliability(report: Calibration) -> Figure:
    curves = {task.question: np.array(task.forecast.curve)[:, :2].T for task in report.tasks}
    top = max(float(points.max()) for points in curves.values())
    words = "; ".join(
        f"{task.question}: AUC {task.forecast.auc:.3f}, calibration error "
        f"{task.forecast.calibration_error:.3f}"
        for task in report.tasks
    )
    return lines_figure(
        {
            **{question: Line(mean, seen) for question, (mean, seen) in curves.items()},
            "perfect": Line([0.0, top], [0.0, top], style=":"),
        },
        ("forecast probability", "observed rate"),
        "Click model on held-out interactions. Each point is a tenth of the held-out cases. On the "
        "diagonal, events come as often as forecast.",
        alt=f"Calibration curves. {words}.",
    )


def _both(
    values: Mapping[str, list[float]], points: Callable[[Floats], tuple[ArrayLike, ArrayLike]]
) -> dict[str, Line]:
    """Return a line for the log, where it says anything, and one for the simulation."""
    return {
        name: Line(*points(np.array(values[name])), style=style)
        for name, style in _STYLES.items()
        if name in values
    }


def _sessions(report: Calibration) -> Figure:
    values = report.distributions["session_lengths"]
    means = ", ".join(f"{name} {np.mean(values[name] or [0]):.1f}" for name in values)
    return lines_figure(
        _both(values, lambda v: (np.sort(v), 1.0 - np.arange(v.size) / max(v.size, 1))),
        ("clicks in the session", "share of sessions at least as long"),
        "Session length. A log's sessions are cut at pauses of 30 minutes. Sessions without clicks "
        "do not count, since a log does not show them.",
        alt=f"Share of sessions with at least so many clicks. Means: {means}.",
        log="x",
        marked=False,
        steps="steps-pre",
    )


def _positions(report: Calibration) -> Figure:
    curves = report.distributions["positions"]
    note = (
        "Where the log states propensities its impressions are weighted by their inverse, so that "
        "better items at the top do not pass for attention."
        if "log" in curves
        else "The log does not say what was shown where; only the simulation has a curve."
    )
    told = "; ".join(f"{name} from {c[0]:.3f} to {c[-1]:.3f}" for name, c in curves.items())
    return lines_figure(
        _both(curves, lambda v: (range(1, v.size + 1), v)),
        ("position", "clicks per impression"),
        f"Position. {note}",
        alt=f"Clicks per impression by position, evenly chosen items: {told}.",
        span=(0.0, None),
    )


def _popularity(report: Calibration) -> Figure:
    values = report.distributions["popularity"]
    tops = ", ".join(f"{name} {100 * sum(part[:100]):.0f} %" for name, part in values.items())
    return lines_figure(
        _both(values, lambda v: (range(1, int((v > 0).sum()) + 1), v[v > 0])),
        ("rank of the item", "share of all clicks"),
        "Popularity. The simulated platform shows items in proportion to their popularity in the "
        "log.",
        alt=f"Share of clicks by rank of the item. The first hundred items have: {tops}.",
        log="xy",
        marked=False,
    )


def _topics(report: Calibration) -> Figure:
    values = report.distributions["topics"]
    rows = {
        f"{place + 1}. {_shortened(name)}": {
            side: Estimate(values[side][place]) for side in _STYLES
        }
        for place, name in enumerate(report.topic_names)
    }
    return groups_figure("share of clicks", rows, "Topics. They are clusters of the items' texts.")


def _shortened(title: str) -> str:
    name = visible(title)
    return name if len(name) <= _SHORT else f"{name[: _SHORT - 1]}…"


def _topic_share(report: Calibration) -> Figure:
    share, auc = np.array(report.topic_shares).T
    told = ", ".join(f"{x:.1f}: {y:.3f}" for x, y in report.topic_shares)
    return lines_figure(
        {"held-out AUC": Line(share, auc)},
        ("share w of topic identity in true tastes", "held-out AUC of u·x"),
        "What the log says of topics. The share is a choice of the scenario "
        "(population.topic_share); this is what it costs or brings in agreement with the log.",
        alt=f"Held-out AUC of taste against random items by the share of topic identity: {told}.",
    )
