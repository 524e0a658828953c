"""Games in normal form as records and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from agents.studies.equilibrium.normal_form import (
    MixedProfile,
    NormalFormGame,
    efficiency,
    find_equilibria,
)
from marec_env.reporting.table import TextTable

__all__ = ["game_record", "game_tables", "profile_names"]

SHOWN = 1e-6  # probabilities below this are not printed


def game_record(game: NormalFormGame) -> dict[str, Any]:
    """Return equilibria, optimum, prices and the exploitability of uniform play, for JSON."""
    found = find_equilibria(game)
    anarchy, stability = efficiency(game, found.profiles)
    optimum, welfare = game.social_optimum()
    uniform = game.uniform()
    return {
        "players": list(game.players),
        "shape": list(game.shape),
        "uniform": {
            "nash_conv": game.nash_conv(uniform),
            "exploitability": game.nash_conv(uniform) / len(game.players),
            "gains": game.gains(uniform).tolist(),
        },
        "equilibria": [
            {
                "kind": "pure" if all(np.max(p) > 1.0 - SHOWN for p in profile) else "mixed",
                "profile": profile_names(game, profile),
                "payoffs": game.expected(profile).tolist(),
                "welfare": game.expected_welfare(profile),
                "nash_conv": game.nash_conv(profile),
            }
            for profile in found.profiles
        ],
        "complete": found.complete,
        "degenerate": found.degenerate,
        "notes": list(found.notes),
        "optimum": {"profile": profile_names(game, game.pure(optimum)), "welfare": welfare},
        "price_of_anarchy": anarchy,
        "price_of_stability": stability,
    }


def profile_names(game: NormalFormGame, profile: MixedProfile) -> dict[str, dict[str, float]]:
    """Return per player the probability of every action it plays."""
    return {
        player: {
            label: float(weight)
            for label, weight in zip(labels, weights, strict=True)
            if weight > SHOWN
        }
        for player, labels, weights in zip(game.players, game.labels, profile, strict=True)
    }


def game_tables(
    name: str, record: Mapping[str, Any], notes: tuple[str, ...] = ()
) -> list[TextTable]:
    """Return a :func:`game_record` as tables; ``notes`` go below the second."""
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
        ],
        notes,
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
