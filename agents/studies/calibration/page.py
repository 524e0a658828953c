"""The calibration page: one self-contained HTML file, readable without network or script."""

from __future__ import annotations

from agents.studies.calibration.plots import draw_plots
from agents.studies.calibration.report import Calibration
from agents.studies.calibration.tables import tables_of
from marec_env.reporting import page

__all__ = ["render_page"]


def render_page(report: Calibration) -> str:
    """Return the page; titles and names from the data are escaped."""
    size = ", ".join(f"{count:,} {name}" for name, count in report.size.items() if count)
    tables = page.Section("Tables", tables_of(report))
    plots = page.Section("Plots", figures=draw_plots(report))
    log = page.Section("The log", verbatim=[f"SHA-256 {report.fingerprint}"])
    return page.render_page(f"Calibration: {report.source}", [size], (), [tables, plots, log])
