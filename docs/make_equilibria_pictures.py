"""Draws the pictures of equilibria.md: ``python docs/make_equilibria_pictures.py`` (a minute).

Every number in them is computed by agents/studies/equilibrium, the measured ones as on the
simulator.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np

from agents.studies.equilibrium.anarchy import measure_anarchy
from agents.studies.equilibrium.best_response import SearchPlan, iterated_best_responses
from agents.studies.equilibrium.common import heat_map
from agents.studies.equilibrium.credit import difference_rewards, shapley_values
from agents.studies.equilibrium.normal_form import matrix_game
from marec_env.io import write_text
from marec_env.reporting.drawing import PALETTE, Figure, draw

FOLDER = Path(__file__).parent / "pictures"
TESTS = Path(__file__).parents[1] / "tests/agents/studies/equilibrium"
PublicGoods = runpy.run_path(str(TESTS / "public_goods.py"))["PublicGoods"]
GAME = PublicGoods(benefit=1.2, crowding=0.25, noise=0.1)
PLAN = SearchPlan(np.arange(200), np.arange(1000, 1200), budget=65, seeds=(0, 1, 2))
COMPONENTS = ("profile", "recall")
WORTH = (20.0, 26.0, 24.0, 38.0)
"""Clicks a session, made up: nobody, recall alone, profile alone, both."""


def best_responses() -> Figure:
    """Draw F over both decisions, both best responses, and how selfish play gets there."""
    stable = iterated_best_responses(GAME, np.array([0.95, 0.1]), PLAN)
    path = [np.array([0.95, 0.1])]
    for after in stable.history:  # components move in turn
        path += [np.array([after[0], path[-1][1]]), after]
    nash, optimum = GAME.equilibrium(), GAME.optimum()

    def paint(axes: Any) -> None:
        x = np.linspace(0, 1, 101)
        grid = np.stack(np.meshgrid(x, x), axis=-1)
        contours = axes.contourf(
            x, x, GAME.mean_objectives(grid).sum(-1), levels=14, cmap="Greens", alpha=0.8
        )
        axes.figure.colorbar(contours, ax=axes, label="team objective F")
        reply = (GAME.benefit / 2 - GAME.crowding * x) / GAME.cost
        axes.plot(reply, x, color=PALETTE[0], label="profile's best response")
        axes.plot(x, reply, color=PALETTE[1], linestyle="--", label="recall's best response")
        axes.plot(*np.array(path).T, color="#333333", marker="o", markersize=3, linewidth=1,
                  label="taking turns (measured)")  # fmt: skip
        axes.plot(*nash, "X", color=PALETTE[0], markersize=11, label="Nash equilibrium")
        axes.plot(*optimum, "*", color=PALETTE[1], markersize=14, label="joint optimum")
        axes.set_xlabel("profile's decision")
        axes.set_ylabel("recall's decision")
        axes.legend(fontsize=7, loc="lower left")

    return draw(
        "Best responses",
        "Two best-response lines cross at the Nash equilibrium, below the joint optimum.",
        4.4,
        paint,
        width=6.4,
    )


def price_of_anarchy() -> Figure:
    """Draw the measured share of the optimum over the mixture of motives, and the known curve."""
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    _, points = measure_anarchy(GAME, PLAN, shares, [GAME.default(), np.ones(2)])

    def paint(axes: Any) -> None:
        fine = np.linspace(0, 1, 51)
        axes.plot(fine, [GAME.price_of_anarchy(s) for s in fine], color="#888888",
                  label="known in closed form")  # fmt: skip
        ratios = [point.anarchy["team"] for point in points]
        axes.errorbar(
            shares,
            [r.value for r in ratios],
            yerr=[[r.value - r.low for r in ratios], [r.high - r.value for r in ratios]],
            fmt="o",
            color=PALETTE[0],
            capsize=3,
            label="measured, 95 % interval",
        )
        axes.set_xlabel("λ: 0 everybody maximises F, 1 everybody its own f_i")
        axes.set_ylabel("F at stable play / F at optimum")
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)

    return draw(
        "Price of anarchy",
        "The share of the optimum falls from 1 as components turn selfish.",
        3.6,
        paint,
        width=6.4,
    )


def penalty() -> Figure:
    """Draw the penalty game with its pure equilibria."""
    game = matrix_game("penalty:-25")
    marks = dict.fromkeys(game.pure_equilibria(), "Nash")
    best = {(0, 2): "Nash best", (2, 0): "Nash best"}
    names = ("0", "1", "2")
    return heat_map(
        "The penalty game",
        "Nine cells of what both are paid; three are equilibria, two of them optimal.",
        game.payoffs[0].tolist(),
        names,
        names,
        ("first player", "second player"),
        {**marks, **best},
        "paid to both",
    )


def credit() -> Figure:
    """Draw what a component adds when it joins first and last, and the mean, its Shapley value."""
    worth = np.array(WORTH)
    first = np.array([worth[2] - worth[0], worth[1] - worth[0]])
    columns = {
        "joins first": first,
        "joins last (difference reward)": difference_rewards(worth),
        "mean of both (Shapley value)": shapley_values(worth),
    }

    def paint(axes: Any) -> None:
        for number, (name, values) in enumerate(columns.items()):
            left = np.arange(2) + (number - 1) * 0.27
            drawn = axes.bar(left, values, 0.25, label=name, color=PALETTE[number])
            axes.bar_label(drawn, fmt="%.0f", fontsize=8)
        axes.set_xticks(range(2), COMPONENTS)
        axes.set_ylabel("clicks added a session")
        axes.set_title(f"together they add {worth[3] - worth[0]:.0f}", fontsize=9)
        axes.margins(y=0.25)
        axes.legend(frameon=False, fontsize=8)

    return draw(
        "Credit",
        "Each component adds more when it joins last; Shapley values are the mean.",
        3.6,
        paint,
        width=6.4,
    )


PICTURES = {
    "best_responses": best_responses,
    "price_of_anarchy": price_of_anarchy,
    "penalty": penalty,
    "credit": credit,
}


def main() -> None:
    """Write all pictures."""
    for name, picture in PICTURES.items():
        place = FOLDER / f"equilibria_{name}.svg"
        write_text(place, picture().svg)
        print(place)


if __name__ == "__main__":
    main()
