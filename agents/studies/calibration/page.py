"""The calibration report for readers: its tables, for terminal and page alike, and the page."""

from __future__ import annotations

from agents.studies.calibration.plots import draw_plots
from agents.studies.calibration.report import Calibration
from marec_env.reporting import page
from marec_env.reporting.table import TextTable

__all__ = ["render_page", "tables_of"]

_NONE = "–"
_TINY = 0.01  # numbers below it are shown with two significant digits
_NORMAL_95 = 1.96  # standard errors to either side of a 95 % interval


def _number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return _NONE
    if 0 < abs(value) < _TINY:
        return f"{value:.2g}"
    return f"{value:.{digits}f}" if abs(value) < 100 else f"{value:.0f}"


def _click_model(report: Calibration) -> TextTable:
    rows = []
    for task in report.tasks:
        forecast = task.forecast
        rows.append(
            (
                task.question,
                f"{forecast.cases:,}",
                f"{forecast.auc:.3f} ± {_NORMAL_95 * forecast.auc_error:.3f}",
                f"{forecast.log_loss:.3f}",
                f"{forecast.null_log_loss:.3f}",
                f"{forecast.calibration_error:.3f}",
                f"{task.fitted.scale:.1f}",
                f"{task.configured_auc:.3f}",
                f"{task.configured_slope:.2f}",
            )
        )
    return TextTable(
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
        rows,
        (
            "Factors from the first 60 % of the log, coefficients from the next 20 %, judged on "
            "the last 20 %. Of rate: log loss of the constant forecast. ECE: expected calibration "
            "error. κ: fitted scale. Own AUC and slope: of the simulator's own logit, as "
            "configured; a slope below 1 says that the simulated users are more decided than "
            "held-out behaviour shows, part of which is the noise of estimated factors.",
        ),
    )


def _comparison(report: Calibration) -> TextTable:
    rows = [
        (
            row.name,
            _number(row.log),
            _number(row.simulated),
            f"{row.distance:.3f} ({row.distance_name})" if row.distance is not None else _NONE,
        )
        for row in report.comparisons
    ]
    return TextTable(
        "Log and simulation",
        ("quantity", "log", "simulated", "distance"),
        rows,
        (
            "Simulated under a platform that shows items in proportion to their popularity in the "
            f"log. {_NONE}: the log, or the user model, does not have it.",
        ),
    )


def _random_policy(report: Calibration) -> TextTable:
    found = report.random_policy
    measured = found.measured
    return TextTable(
        "Random policy: click probability of an examined item drawn evenly",
        ("", "value"),
        [
            ("calibrated to (population.random_click_rate)", _number(found.promised)),
            (
                "simulated, before boredom",
                f"{measured.value:.3f} ± {(measured.high - measured.low) / 2:.3f}",
            ),
            ("log, impressions by inverse propensity", _number(found.log_estimate)),
            (
                "log, likes, if all that users did not consume were disliked",
                _number(found.liked_density),
            ),
            ("log, likes, if users consumed blindly", _number(found.liked_share)),
        ],
        (
            "The last two bound the like rate of random items; a log without impressions says no "
            "more.",
        ),
    )


def _debiasing(report: Calibration) -> TextTable:
    found = report.debiasing
    return TextTable(
        "Learning from a popularity-biased log (simulated)",
        ("what", "value"),
        [
            ("click rate of random items: truth", _number(found.random)),
            ("… read off the biased log", _number(found.naive_rate)),
            ("… repaired by propensities", _number(found.weighted_rate)),
            ("true click rate of 50 picks: best possible", _number(found.best)),
            ("… by clicks in the biased log", _number(found.by_clicks)),
            ("… by click rate repaired by propensities", _number(found.by_weighted_rate)),
            ("share of the picks by clicks among the 50 most shown", _number(found.popular_share)),
        ],
        (
            "Where popular items are also good ones, ranking by clicks is hard to beat; the rates "
            "are misread all the same.",
        ),
    )


def _suggestions(report: Calibration) -> TextTable:
    return TextTable(
        "Settings that would bring the simulation closer to the log",
        ("key", "value"),
        [(key, _number(value)) for key, value in report.suggestions.items()],
        ("Estimates from the log; nothing was changed.",),
    )


def tables_of(report: Calibration) -> list[TextTable]:
    """Return the report's tables in order of reading; empty ones are left out."""
    tables = [
        _click_model(report),
        _comparison(report),
        _random_policy(report),
        _debiasing(report),
        _suggestions(report),
    ]
    return [table for table in tables if table.rows]


def render_page(report: Calibration) -> str:
    """Return the page; titles and names from the data are escaped."""
    size = ", ".join(f"{count:,} {name}" for name, count in report.size.items() if count)
    tables = page.Section("Tables", tables_of(report))
    plots = page.Section("Plots", figures=draw_plots(report))
    log = page.Section("The log", verbatim=[f"SHA-256 {report.fingerprint}"])
    return page.render_page(f"Calibration: {report.source}", [size], (), [tables, plots, log])
