"""Everything about a normal-form game as one JSON-able record and as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from agents.studies.equilibrium.correlated import correlated_equilibrium
from agents.studies.equilibrium.estimated import EstimatedGame, cross_fitted_gains, solve_estimated
from agents.studies.equilibrium.intervals import mean_interval
from agents.studies.equilibrium.mixed import Equilibria, find_equilibria
from agents.studies.equilibrium.normal_form import MixedProfile, NormalFormGame, efficiency
from marec_env.reporting.table import TextTable

__all__ = ["estimated_record", "game_record", "game_tables"]

SHOWN = 1e-6  # probabilities below this are not printed


def game_record(game: NormalFormGame) -> dict[str, Any]:
    """Return equilibria, optimum, prices and the exploitability of uniform play."""
    return _record(game, find_equilibria(game))


def _record(game: NormalFormGame, found: Equilibria) -> dict[str, Any]:
    anarchy, stability = efficiency(game, found.profiles)
    optimum, welfare = game.social_optimum()
    uniform = game.uniform()
    return {
        "players": list(game.players),
        "shape": list(game.shape),
        "uniform": {
            "nash_conv": game.nash_conv(uniform),
            "exploitability": game.exploitability(uniform),
            "gains": game.gains(uniform).tolist(),
        },
        "equilibria": [_equilibrium(game, profile) for profile in found.profiles],
        "complete": found.complete,
        "degenerate": found.degenerate,
        "notes": list(found.notes),
        "optimum": {"profile": _names(game, game.pure(optimum)), "welfare": welfare},
        "price_of_anarchy": anarchy,
        "price_of_stability": stability,
        "correlated": {
            name: correlated_equilibrium(game, best=best).welfare
            for name, best in (("best", True), ("worst", False))
        },
    }


def _equilibrium(game: NormalFormGame, profile: MixedProfile) -> dict[str, Any]:
    return {
        "kind": "pure" if all(np.max(p) > 1.0 - SHOWN for p in profile) else "mixed",
        "profile": _names(game, profile),
        "payoffs": game.expected(profile).tolist(),
        "welfare": game.expected_welfare(profile),
        "nash_conv": game.nash_conv(profile),
    }


def _names(game: NormalFormGame, profile: MixedProfile) -> dict[str, dict[str, float]]:
    """Return per player the probability of every action it plays."""
    return {
        player: {
            label: float(weight)
            for label, weight in zip(labels, weights, strict=True)
            if weight > SHOWN
        }
        for player, labels, weights in zip(game.players, game.labels, profile, strict=True)
    }


def estimated_record(
    estimated: EstimatedGame, played: MixedProfile | None = None, resamples: int = 400
) -> dict[str, Any]:
    """Return the record of a measured game, with intervals and the doubt in its equilibria."""
    solved = solve_estimated(estimated, played, resamples)
    record = _record(solved.game, solved.equilibria)
    record["intervals"] = {name: i.as_json() for name, i in solved.intervals.items()}
    record["support"] = [
        {
            "profile": _names(solved.game, solved.game.pure(actions)),
            "share_of_resamples": share,
            "gains_on_other_half": [
                mean_interval(gain).as_json() for gain in cross_fitted_gains(estimated, actions).T
            ],
        }
        for actions, share in solved.support.items()
    ]
    record["payoffs"] = solved.game.payoffs.tolist()
    record["welfare"] = solved.game.welfare.tolist()
    record["labels"] = [list(names) for names in solved.game.labels]
    return record


def game_tables(name: str, record: Mapping[str, Any]) -> list[TextTable]:
    """Return the record as tables."""
    equilibria = TextTable(
        f"{name}: {'all' if record['complete'] else 'some'} equilibria",
        ("equilibrium", "kind", "payoffs", "welfare", "NashConv"),
        [
            (
                _profile_text(e["profile"]),
                e["kind"],
                ", ".join(f"{p:.3f}" for p in e["payoffs"]),
                f"{e['welfare']:.3f}",
                f"{abs(e['nash_conv']):.3f}",
            )
            for e in record["equilibria"]
        ],
        record["notes"],
        prose=True,
    )
    uniform = record["uniform"]
    summary = TextTable(
        f"{name}: play and optimum",
        ("measure", "value"),
        [
            ("NashConv of uniform play", f"{uniform['nash_conv']:.3f}"),
            ("best unilateral gains", ", ".join(f"{g:.3f}" for g in uniform["gains"])),
            ("social optimum", _profile_text(record["optimum"]["profile"])),
            ("welfare there", f"{record['optimum']['welfare']:.3f}"),
            ("price of anarchy (worst equilibrium / optimum)", _ratio(record["price_of_anarchy"])),
            ("price of stability (best / optimum)", _ratio(record["price_of_stability"])),
            ("correlated equilibria, worst … best welfare", _span(record["correlated"])),
        ],
        prose=True,
    )
    return [equilibria, summary]


def _profile_text(profile: Mapping[str, Mapping[str, float]]) -> str:
    return " | ".join(
        " + ".join(
            label if weight > 1.0 - SHOWN else f"{weight:.3f}·{label}"
            for label, weight in weights.items()
        )
        for weights in profile.values()
    )


def _ratio(value: float | None) -> str:
    return "undefined (optimum not positive)" if value is None else f"{value:.3f}"


def _span(correlated: Mapping[str, float]) -> str:
    return f"{correlated['worst']:.3f} … {correlated['best']:.3f}"
