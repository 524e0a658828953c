"""Who earned the team's gain over the default pipeline, and what swapped components cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agents.studies.equilibrium.credit import coalitions
from agents.studies.equilibrium.figures import bars
from agents.studies.equilibrium.lineups import ReplayEnv
from agents.studies.equilibrium.replacement import measure_credit, swap_test
from agents.studies.equilibrium.studies.common import Play, Section, Settings, short
from marec_env.reporting.table import TextTable

__all__ = ["credit", "swaps"]

VALUES = ("team", "clicks")


def credit(env: ReplayEnv, plays: Sequence[Play], default: Play, settings: Settings) -> Section:
    """Return Shapley values and difference rewards of every play over the default pipeline."""
    tables, figures = [], []
    record: dict[str, Any] = {}
    for play in plays:
        for value in VALUES:
            found = measure_credit(env, play.policy, default.policy, settings.held_out(), value)
            title = f"Credit in {value} a session: {play.name} over {default.name}"
            rows = [
                (name, short(shapley, 3), short(difference, 3), short(alone, 3))
                for name, shapley, difference, alone in zip(
                    found.components, found.shapley, found.difference, found.alone, strict=True
                )
            ]
            total = sum(interval.value for interval in found.shapley)
            tables.append(
                TextTable(
                    title,
                    ("component", "Shapley value", "difference reward", "alone"),
                    [*rows, ("whole team", short(found.total, 3), "", "")],
                    (f"Shapley values sum to {total:.6f}, the total is {found.total.value:.6f}.",),
                )
            )
            figures.append(
                bars(
                    title,
                    "Bars of each component's Shapley value, difference reward and effect alone.",
                    found.components,
                    {
                        "Shapley value": found.shapley,
                        "difference reward": found.difference,
                        "alone": found.alone,
                    },
                    f"{value} a session",
                )
            )
            record.setdefault(play.name, {})[value] = {
                "components": list(found.components),
                "shapley": [i.as_json() for i in found.shapley],
                "difference": [i.as_json() for i in found.difference],
                "alone": [i.as_json() for i in found.alone],
                "total": found.total.as_json(),
                "worth": {
                    "+".join(c for c, m in zip(found.components, members, strict=True) if m)
                    or "nobody": float(worth)
                    for members, worth in zip(
                        coalitions(len(found.components)), found.worth, strict=True
                    )
                },
            }
    return Section("credit", "Credit: who earned it", record, tuple(tables), tuple(figures))


def swaps(env: ReplayEnv, plays: Sequence[Play], settings: Settings) -> Section:
    """Return what each host team loses when a component comes from another team."""
    teams = {play.name: play.policy for play in plays}
    tables = []
    record: dict[str, Any] = {}
    for value in VALUES:
        changes = swap_test(env, teams, settings.held_out(), value)
        for component, found in changes.items():
            tables.append(
                TextTable(
                    f"Swap {component}: change of {value} a session, ± half the interval",
                    ("host ↓, donor →", *teams),
                    [(host, *(short(found[host, donor]) for donor in teams)) for host in teams],
                )
            )
            record.setdefault(value, {})[component] = [
                {"host": host, "donor": donor, **interval.as_json()}
                for (host, donor), interval in found.items()
            ]
    return Section("swaps", "Swap tests: partners never trained with", record, tuple(tables))
