"""Price of anarchy over funnel widths and mixtures of motives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from agents.equilibrium.anarchy import AnarchyPoint, Optimum, measure_anarchy
from agents.equilibrium.figures import Figure, lines
from agents.equilibrium.intervals import Interval
from agents.equilibrium.normal_form import Floats
from agents.equilibrium.pipeline_game import PipelineGame
from agents.equilibrium.studies.common import Section, Settings, short
from agents.equilibrium.tables import Table

__all__ = ["anarchy_curves", "starting_points"]

SHOWN = ("team", "clicks", "length")


def starting_points(game: PipelineGame, count: int) -> list[Floats]:
    """Return the default decision and random ones; the second start, the optimum, is not known yet.

    Args:
        game: the game.
        count: starts in all, the optimum included.
    """
    generator = np.random.default_rng(0)
    return [game.default()] + [generator.random(sum(game.dims)) for _ in range(count - 2)]


def anarchy_curves(
    game_of_width: Callable[[int], PipelineGame], settings: Settings, say: Callable[[str], None]
) -> Section:
    """Return the ratios of stable to optimal play for every width and mixture.

    Args:
        game_of_width: the game with that many candidates.
        settings: budgets, widths, mixtures.
        say: is told of progress.
    """
    points: dict[int, list[AnarchyPoint]] = {}
    optima: dict[int, Optimum] = {}
    rows, warnings = [], []
    for width in settings.widths:
        say(f"price of anarchy: {width} candidates")
        game = game_of_width(width)
        optima[width], points[width] = measure_anarchy(
            game,
            settings.plan(),
            settings.own_shares,
            starting_points(game, settings.starts),
            max_rounds=settings.rounds,
            from_optimum=settings.starts > 1,
        )
        for point in points[width]:
            rows.append(_row(width, point))
            warnings += [f"C = {width}, λ = {point.own_share:g}: {w}" for w in point.warnings]
    return Section(
        "anarchy",
        "Price of anarchy and of stability",
        {
            str(width): {
                "optimum": {
                    "decision": optima[width].decision.tolist(),
                    "means": dict(optima[width].means),
                },
                "points": [_record(p) for p in found],
            }
            for width, found in points.items()
        },
        (
            Table(
                "Stable play over the joint optimum (1 = nothing lost), ± half the interval",
                (
                    "C",
                    "λ",
                    "F, worst",
                    "clicks, worst",
                    "length, worst",
                    "F, best",
                    "clicks, best",
                    "settled",
                ),
                rows,
                (
                    "λ = 1: each component maximises its own f_i "
                    f"({'a request' if settings.per == 'request' else 'summed over the session'}); "
                    "λ = 0: all maximise F.",
                    "Worst and best of the stable plays found (price of anarchy, of stability). "
                    "F is not comparable across widths; ratios are within one width.",
                ),
            ),
        ),
        tuple(_figures(points)),
        tuple(warnings),
    )


def _row(width: int, point: AnarchyPoint) -> tuple[str, ...]:
    return (
        str(width),
        f"{point.own_share:g}",
        *(short(point.anarchy[name]) for name in SHOWN),
        *(short(point.stability[name]) for name in SHOWN[:2]),
        f"{sum(s.settled for s in point.stable)} of {len(point.stable)}",
    )


def _record(point: AnarchyPoint) -> dict[str, Any]:
    return {
        "own_share": point.own_share,
        "anarchy": {k: v.as_json() for k, v in point.anarchy.items()},
        "stability": {k: v.as_json() for k, v in point.stability.items()},
        "means": dict(point.means),
        "stable": [
            {
                "decision": s.decision.tolist(),
                "rounds": s.rounds,
                "settled": s.settled,
                "left_to_gain": {
                    r.component: {"own": r.gain_own.as_json(), "team": r.gain_team.as_json()}
                    for r in s.responses
                },
            }
            for s in point.stable
        ],
        "warnings": list(point.warnings),
    }


def _figures(points: dict[int, list[AnarchyPoint]]) -> Sequence[Figure]:
    by_share: dict[str, list[tuple[float, Interval]]] = {}
    by_width: dict[str, list[tuple[float, Interval]]] = {}
    for width, found in points.items():
        for point in found:
            ratio = point.anarchy["clicks"]
            by_share.setdefault(f"λ = {point.own_share:g}", []).append((float(width), ratio))
            by_width.setdefault(f"C = {width}", []).append((point.own_share, ratio))
    ylabel = "clicks over the optimum's"
    # A line of one point says nothing that the table does not.
    figures = []
    if len(by_width) > 1:
        figures.append(
            lines(
                "Price of anarchy in clicks over the funnel's width",
                "Lines of the ratio of clicks at stable play to clicks at the joint optimum over "
                "the number of candidates, one line a mixture of motives.",
                by_share,
                "candidates C",
                ylabel,
                log_x=True,
                reference=1.0,
            )
        )
    if len(by_share) > 1:
        figures.append(
            lines(
                "Price of anarchy in clicks over the mixture of motives",
                "The same ratios over the share of own objective, one line a funnel width.",
                by_width,
                "λ: share of own objective",
                ylabel,
                reference=1.0,
            )
        )
    return figures
