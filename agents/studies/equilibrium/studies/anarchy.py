"""Price of anarchy over funnel widths and mixtures of motives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from agents.studies.equilibrium.anarchy import AnarchyPoint, Optimum, measure_anarchy
from agents.studies.equilibrium.figures import lines
from agents.studies.equilibrium.intervals import Interval
from agents.studies.equilibrium.normal_form import Floats
from agents.studies.equilibrium.pipeline_game import PipelineGame
from agents.studies.equilibrium.studies.common import Section, Settings, short
from marec_env.reporting.drawing import Figure
from marec_env.reporting.table import TextTable

__all__ = ["anarchy_curves", "starting_points"]

SHOWN = ("team", "clicks", "length")

Found = tuple[Optimum, list[AnarchyPoint]]
"""What one width gave."""


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
) -> Iterator[Section]:
    """Yield the ratios of stable to optimal play, after every width all that is known by then.

    A wide funnel takes an hour; who stops the study keeps the widths that are done.

    Args:
        game_of_width: the game with that many candidates.
        settings: budgets, widths, mixtures.
        say: is told of progress.
    """
    found: dict[int, Found] = {}
    for width in settings.widths:
        say(f"price of anarchy: {width} candidates")
        game = game_of_width(width)
        found[width] = measure_anarchy(
            game,
            settings.plan(),
            settings.own_shares,
            starting_points(game, settings.starts),
            max_rounds=settings.rounds,
            from_optimum=settings.starts > 1,
        )
        yield _section(found, settings.per)


def _section(found: Mapping[int, Found], per: str) -> Section:
    points = [(width, point) for width, (_, of_width) in found.items() for point in of_width]
    own = "a request" if per == "request" else "summed over the session"
    return Section(
        "anarchy",
        "Price of anarchy and of stability",
        {str(width): _record(*of_width) for width, of_width in found.items()},
        (
            TextTable(
                "Stable play over the joint optimum (1 = nothing lost), ± half the interval",
                (
                    "C",
                    "λ",
                    "F, worst",
                    "clicks there",
                    "length there",
                    "F, best",
                    "clicks there",
                    "settled",
                ),
                [_row(width, point) for width, point in points],
                (
                    f"λ = 1: each component maximises its own f_i ({own}); λ = 0: all maximise F.",
                    "Worst and best by F of the plays that settled (of all, if none did): price of "
                    "anarchy, of stability. F is not comparable across widths; ratios are within "
                    "one width.",
                ),
            ),
        ),
        tuple(_figures(points)),
        tuple(
            f"C = {width}, λ = {point.own_share:g}: {warning}"
            for width, point in points
            for warning in point.warnings
        ),
    )


def _row(width: int, point: AnarchyPoint) -> tuple[str, ...]:
    return (
        str(width),
        f"{point.own_share:g}",
        *(short(point.anarchy[name]) for name in SHOWN),
        *(short(point.stability[name]) for name in SHOWN[:2]),
        f"{sum(s.settled for s in point.stable)} of {len(point.stable)}",
    )


def _record(optimum: Optimum, points: Sequence[AnarchyPoint]) -> dict[str, Any]:
    return {
        "optimum": {"decision": optimum.decision.tolist(), "means": dict(optimum.means)},
        "points": [_point_record(point) for point in points],
    }


def _point_record(point: AnarchyPoint) -> dict[str, Any]:
    return {
        "own_share": point.own_share,
        "anarchy": {k: v.as_json() for k, v in point.anarchy.items()},
        "stability": {k: v.as_json() for k, v in point.stability.items()},
        "stable": [
            {
                "decision": s.decision.tolist(),
                "means": dict(means),
                "rounds": s.rounds,
                "settled": s.settled,
                "left_to_gain": {
                    r.component: {"own": r.gain_own.as_json(), "team": r.gain_team.as_json()}
                    for r in s.responses
                },
            }
            for s, means in zip(point.stable, point.means, strict=True)
        ],
        "warnings": list(point.warnings),
    }


def _figures(points: Sequence[tuple[int, AnarchyPoint]]) -> Sequence[Figure]:
    by_share: dict[str, list[tuple[float, Interval]]] = {}
    by_width: dict[str, list[tuple[float, Interval]]] = {}
    for width, point in points:
        shown = {"": point.anarchy}
        if len(point.stable) > 1:
            shown = {", worst": point.anarchy, ", best": point.stability}
        for which, ratios in shown.items():
            share = point.own_share
            by_share.setdefault(f"λ = {share:g}{which}", []).append((width, ratios["clicks"]))
            by_width.setdefault(f"C = {width}{which}", []).append((share, ratios["clicks"]))
    ylabel = "clicks over the optimum's"
    # A line of one point says nothing that the table does not.
    figures = []
    if len({width for width, _ in points}) > 1:
        figures.append(
            lines(
                "Clicks at selfish play over the funnel's width",
                "Lines of the ratio of clicks at stable play to clicks at the joint optimum over "
                "the number of candidates, one line a mixture of motives; where there are several "
                "stable plays, those of the lowest and the highest F.",
                by_share,
                "candidates C",
                ylabel,
                log_x=True,
                reference=1.0,
            )
        )
    if len({point.own_share for _, point in points}) > 1:
        figures.append(
            lines(
                "Clicks at stable play over the mixture of motives",
                "The same ratios over the share of own objective, a line for each funnel width.",
                by_width,
                "λ: share of own objective",
                ylabel,
                reference=1.0,
            )
        )
    return figures
