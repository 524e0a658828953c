"""Price of anarchy and of stability, measured: selfish play over the joint optimum.

Selfish (or mixed-motive) play is where iterated best responses end, from several starts; the joint
optimum is the best decision that any search found. Ratios are of session means on the same held-out
sessions, with paired bootstrap intervals; 1 says that nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agents.studies.equilibrium.best_response import SearchPlan, Stable, iterated_best_responses
from agents.studies.equilibrium.common import Finding, Settings, estimate_lines
from agents.studies.equilibrium.decisions import PipelineGame, search
from agents.studies.equilibrium.normal_form import Floats
from agents.studies.records import plain, spread
from marec_env.evaluation.statistics import Estimate, bootstrap_means
from marec_env.reporting.drawing import Figure
from marec_env.reporting.page import Section
from marec_env.reporting.table import TextTable

SLACK = 0.01
"""How far stable play may lie above the optimum found before its search is called too small."""
SHOWN = ("team", "clicks", "length")


@dataclass(frozen=True, slots=True)
class AnarchyPoint:
    """What a mixture of motives costs in one game."""

    own_share: float
    """λ: 1 is selfish play, 0 shared reward."""
    stable: tuple[Stable, ...] = field(repr=False)
    """One a start."""
    anarchy: Mapping[str, Estimate]
    """Per outcome (``team`` and the user's) the ratio at the play of the lowest F, of those that
    settled (of all, if none did)."""
    stability: Mapping[str, Estimate]
    """The same at the play of the highest F."""
    means: tuple[Mapping[str, float], ...] = field(repr=False)
    """Means an outcome at the optimum, then at each play in ``stable``, on held-out sessions."""
    warnings: tuple[str, ...]


def measure_anarchy(
    game: PipelineGame,
    plan: SearchPlan,
    own_shares: Sequence[float],
    starts: Sequence[Floats],
    max_rounds: int = 8,
    from_optimum: bool = False,
) -> tuple[Floats, list[AnarchyPoint]]:
    """Find stable play for each λ and compare it with the joint optimum, ``[D]``, also returned.

    The optimum's search gets as many evaluations as one round of everybody's best responses at each
    of two starts: the default decision and the best stable play. It is the best, on the training
    sessions, of these and of every stable play itself, since a cooperative team could always play
    that; with λ = 0 among the mixtures that includes components that take turns raising F.

    There is a point for each λ in ``own_shares``. Best responses begin at ``starts``, ``[D]`` each,
    and, if ``from_optimum``, at the best decision of the first joint search, which is where an
    equilibrium that costs nothing would be.
    """

    def worth(points: Floats) -> Floats:
        return np.asarray(game.play(points, plan.train).team.mean(axis=1))

    def searched(start: Floats) -> Floats:
        budget = plan.budget * len(game.components)
        found = [search(worth, budget, start, seed) for seed in plan.seeds]
        return max(found, key=lambda one: one.value).best

    def best_of(candidates: Sequence[Floats]) -> Floats:
        return candidates[int(np.argmax([worth(c[None])[0] for c in candidates]))]

    candidates = [game.default(), searched(game.default())]
    if from_optimum:
        starts = [*starts, best_of(candidates)]
    plays = {
        share: tuple(
            iterated_best_responses(game, start, plan, share, max_rounds) for start in starts
        )
        for share in own_shares
    }
    stable = [s.decision for stables in plays.values() for s in stables]
    decision = best_of([*candidates, *stable, searched(best_of(stable))])
    return decision, [
        _point(game, plan, share, stables, decision) for share, stables in plays.items()
    ]


def _point(
    game: PipelineGame,
    plan: SearchPlan,
    own_share: float,
    stables: tuple[Stable, ...],
    optimum: Floats,
) -> AnarchyPoint:
    played = game.play(np.stack([optimum, *(s.decision for s in stables)]), plan.held_out)
    rows = [row for row, s in enumerate(stables, 1) if s.settled] or [*range(1, 1 + len(stables))]
    worth = played.team.mean(axis=1)
    worst, best = min(rows, key=lambda row: worth[row]), max(rows, key=lambda row: worth[row])
    warnings = [s.warning for s in stables if s.warning]
    warnings += [r.warning for s in stables for r in s.responses if r.warning]
    stability = _ratios(played.values, best)
    if stability["team"].value > 1.0 + SLACK:
        warnings.append(
            "stable play beats the optimum found on held-out sessions (ratio "
            f"{stability['team']}): the search for the optimum was too small; raise the "
            "budget or the sessions"
        )
    return AnarchyPoint(
        own_share=own_share,
        stable=stables,
        anarchy=_ratios(played.values, worst),
        stability=stability,
        means=tuple(
            {name: float(v[row].mean()) for name, v in played.values.items()}
            for row in range(1 + len(stables))
        ),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _ratios(values: Mapping[str, Floats], row: int) -> dict[str, Estimate]:
    """Return the ratio of means of a row to the optimum's, which is row 0; NaN if that is ≤ 0."""

    def ratio(means: Mapping[str, Floats]) -> dict[str, float]:
        return {
            name: float(pair[1] / pair[0]) if pair[0] > 0 else float("nan")
            for name, pair in means.items()
        }

    return bootstrap_means({name: v[[0, row]].T for name, v in values.items()}, ratio)


def anarchy_curves(
    game_of_width: Callable[[int], PipelineGame], settings: Settings, say: Callable[[str], None]
) -> Iterator[Finding]:
    """Yield the ratios of stable to optimal play, after every width all that is known by then.

    A wide funnel takes an hour; who stops the study keeps the widths that are done. Best responses
    start from the default decision, the optimum found, and random decisions.
    """
    record: dict[str, Any] = {}
    points: list[tuple[int, AnarchyPoint]] = []
    for width in settings.widths:
        say(f"price of anarchy: {width} candidates")
        game = game_of_width(width)
        generator = np.random.default_rng(0)
        others = [generator.random(sum(game.dims)) for _ in range(settings.starts - 2)]
        optimum, of_width = measure_anarchy(
            game,
            settings.plan(),
            settings.own_shares,
            [game.default(), *others],
            settings.rounds,
            from_optimum=settings.starts > 1,
        )
        points += [(width, point) for point in of_width]
        best = {"decision": optimum, "means": of_width[0].means[0]}
        record[str(width)] = plain({"optimum": best, "points": list(map(_record, of_width))})
        yield Finding(dict(record), _section(points, settings.per))


def _record(point: AnarchyPoint) -> dict[str, Any]:
    stable = [
        {
            "decision": s.decision,
            "means": means,
            "rounds": len(s.history),
            "settled": s.settled,
            "left_to_gain": {
                r.component: {"own": r.gain_own, "team": r.gain_team} for r in s.responses
            },
        }
        for s, means in zip(point.stable, point.means[1:], strict=True)
    ]
    return {**plain(point), "stable": stable}


def _section(points: Sequence[tuple[int, AnarchyPoint]], per: str) -> Section:
    own = "a request" if per == "request" else "summed over the session"
    rows = [
        (
            str(width),
            f"{point.own_share:g}",
            *(spread(point.anarchy[name], 2) for name in SHOWN),
            *(spread(point.stability[name], 2) for name in SHOWN[:2]),
            f"{sum(s.settled for s in point.stable)} of {len(point.stable)}",
        )
        for width, point in points
    ]
    worst, best = ("F, worst", "clicks there", "length there"), ("F, best", "clicks there")
    table = TextTable(
        "Stable play over the joint optimum (1 = nothing lost), ± half the interval",
        ("C", "λ", *worst, *best, "settled"),
        rows,
        (
            f"λ = 1: each component maximises its own f_i ({own}); λ = 0: all maximise F.",
            "Worst and best by F of the plays that settled (of all, if none did): price of "
            "anarchy, of stability. F is not comparable across widths; ratios are within "
            "one width.",
        ),
    )
    warnings = [
        f"C = {width}, λ = {point.own_share:g}: {warning}"
        for width, point in points
        for warning in point.warnings
    ]
    return Section(
        "Price of anarchy and of stability", (table,), tuple(_figures(points)), notes=warnings
    )


def _figures(points: Sequence[tuple[int, AnarchyPoint]]) -> Iterator[Figure]:
    axes = (
        ("candidates C", "λ = {:g}", "the funnel's width", "mixture of motives", "x"),
        ("λ: share of own objective", "C = {}", "the mixture of motives", "width", ""),
    )
    for along, (label, line, over, each, log) in enumerate(axes):
        series: dict[str, list[tuple[float, Estimate]]] = {}
        for width, point in points:
            at = (width, point.own_share)
            shown = {"": point.anarchy}
            if len(point.stable) > 1:
                shown = {", worst": point.anarchy, ", best": point.stability}
            for which, ratios in shown.items():
                name = line.format(at[1 - along]) + which
                series.setdefault(name, []).append((at[along], ratios["clicks"]))
        # A line of one point says nothing that the table does not.
        if len({x for points in series.values() for x, _ in points}) > 1:
            caption = f"Clicks at stable play over {over}, a line for each {each}"
            yield estimate_lines(series, (label, "clicks over the optimum's"), caption, 1.0, log)
