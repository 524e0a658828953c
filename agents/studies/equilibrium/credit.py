"""Who earned what: Shapley values, difference rewards and swap tests over components.

A coalition plays its learned policies while everybody else plays the default action; its worth
``v`` is measured for all ``2^n`` coalitions on the same users with the same luck.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import comb
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from agents.studies.equilibrium.common import Finding, Play, Settings
from agents.studies.equilibrium.lineups import Replay, Sessions, play_lineups
from agents.studies.equilibrium.normal_form import Floats
from agents.studies.records import plain, spread
from marec_env.evaluation.policies import TeamPolicy
from marec_env.evaluation.statistics import Estimate, mean_estimate
from marec_env.reporting.charts import groups_figure
from marec_env.reporting.page import Section
from marec_env.reporting.table import TextTable

VALUES = ("team", "clicks")


def coalitions(n: int) -> list[tuple[bool, ...]]:
    """Return the ``2^n`` coalitions in the order of a ``[2] * n`` array's cells."""
    return [tuple(bool(m) for m in members) for members in product((0, 1), repeat=n)]


def _marginal(worth: ArrayLike, weight: Callable[[int, int], float]) -> Floats:
    """Return weighted sums of what each component adds to the coalitions without it, ``[..., n]``.

    Args:
        worth: ``[..., 2^n]``, in the order of :func:`coalitions`.
        weight: from the size of the coalition joined, and n.
    """
    values = np.asarray(worth, dtype=np.float64)
    n = int(values.shape[-1]).bit_length() - 1
    if values.shape[-1] != 1 << n or n == 0:
        raise ValueError(f"the last axis must hold all 2^n coalitions, not {values.shape[-1]}")
    members = np.array(coalitions(n))
    weights = np.array([weight(int(size), n) for size in members.sum(axis=1)])
    shares = []
    for component in range(n):
        without = np.flatnonzero(~members[:, component])
        joined = without + (1 << (n - 1 - component))  # component 0 has the highest bit
        shares.append((values[..., joined] - values[..., without]) @ weights[without])
    return np.stack(shares, axis=-1)


def shapley_values(worth: ArrayLike) -> Floats:
    """Return each component's mean marginal contribution over all orders of joining.

    Shapley, "A value for n-person games", 1953. Values sum to ``v(all) - v(nobody)``; a component
    that changes nothing gets zero; two that are interchangeable get the same. Worths are
    ``[..., 2^n]``, in the order of :func:`coalitions`, values ``[..., n]``.
    """
    return _marginal(worth, lambda size, n: 1.0 / (n * comb(n - 1, size)) if size < n else 0.0)


def difference_rewards(worth: ArrayLike) -> Floats:
    """Return what the whole team loses when a component falls back to its default, ``[..., n]``.

    Wolpert and Tumer, "Optimal payoff functions for members of collectives", 2001.
    """
    return _marginal(worth, lambda size, n: float(size == n - 1))


def stand_alone(worth: ArrayLike) -> Floats:
    """Return what a component alone adds to the defaults, ``[..., n]``."""
    return _marginal(worth, lambda size, n: float(size == 0))


@dataclass(frozen=True, slots=True)
class Credit:
    """Each component's credit, in units of the measured value a session."""

    components: tuple[str, ...]
    shapley: tuple[Estimate, ...]
    difference: tuple[Estimate, ...]
    alone: tuple[Estimate, ...]
    total: Estimate
    """The team's value minus the defaults'; the Shapley values sum to it."""
    worth: dict[str, float]
    """Mean worth of every coalition by its members' names, in the order of :func:`coalitions`."""


def measure_credit(
    replay: Replay, policy: TeamPolicy, default: TeamPolicy, sessions: Sessions
) -> dict[str, Credit]:
    """Play all ``2^n`` coalitions on the same sessions and share out what a policy, which plays the
    components inside, gains over the default: by value, ``team`` or ``clicks``.
    """
    agents = tuple(replay.agents)
    inside = [
        [agent for agent, member in zip(agents, members, strict=True) if member]
        for members in coalitions(len(agents))
    ]
    lineups = [{a: policy if a in names else default for a in agents} for names in inside]
    played = play_lineups(replay, lineups, sessions).values
    names = ["+".join(names) or "nobody" for names in inside]
    return {value: _shared_out(agents, names, played[value].T) for value in VALUES}


def _shared_out(agents: tuple[str, ...], coalition: Sequence[str], worth: Floats) -> Credit:
    """Return the credits of worths ``[S, 2^n]``."""

    def estimates(shares: Floats) -> tuple[Estimate, ...]:
        return tuple(mean_estimate(share) for share in shares.T)

    return Credit(
        components=agents,
        shapley=estimates(shapley_values(worth)),
        difference=estimates(difference_rewards(worth)),
        alone=estimates(stand_alone(worth)),
        total=mean_estimate(worth[:, -1] - worth[:, 0]),
        worth=dict(zip(coalition, worth.mean(axis=0).tolist(), strict=True)),
    )


def credit(replay: Replay, plays: Sequence[Play], default: Play, settings: Settings) -> Finding:
    """Return Shapley values and difference rewards of every play over the default pipeline."""
    tables, figures = [], []
    record: dict[str, Any] = {}
    for play in plays:
        credited = measure_credit(replay, play.policy, default.policy, settings.held_out())
        for value, found in credited.items():
            title = f"Credit in {value} a session: {play.name} over {default.name}"
            names = ("Shapley value", "difference reward", "alone")
            columns = found.shapley, found.difference, found.alone
            credits = dict(zip(found.components, zip(*columns, strict=True), strict=True))
            total = sum(estimate.value for estimate in found.shapley)
            tables.append(
                TextTable(
                    title,
                    ("component", *names),
                    [
                        *((who, *(spread(cell, 3) for cell in of)) for who, of in credits.items()),
                        ("whole team", spread(found.total, 3), "", ""),
                    ],
                    (f"Shapley values sum to {total:.6f}, the total is {found.total.value:.6f}.",),
                )
            )
            dots = {who: dict(zip(names, of, strict=True)) for who, of in credits.items()}
            figures.append(groups_figure(f"{value} a session", dots, title))
        record[play.name] = credited
    return Finding(record, Section("Credit: who earned it", tables, figures))


def swap_test(
    replay: Replay, teams: Mapping[str, TeamPolicy], sessions: Sessions
) -> dict[str, dict[str, dict[tuple[str, str], Estimate]]]:
    """Replace one component of a team by another team's: partners it never trained with.

    Returns:
        Per value (``team``, ``clicks``) and component, for each (host, donor), the change of the
        host's value a session, paired on sessions; zero where host and donor are the same team.
    """
    pairs = list(product(teams, repeat=2))
    changes: dict[str, dict[str, dict[tuple[str, str], Estimate]]] = {v: {} for v in VALUES}
    for component in replay.agents:
        lineups = [
            {a: teams[donor if a == component else host] for a in replay.agents}
            for host, donor in pairs
        ]
        played = play_lineups(replay, lineups, sessions).values
        for value, of_component in changes.items():
            values = dict(zip(pairs, played[value], strict=True))
            of_component[component] = {
                (host, donor): mean_estimate(values[host, donor] - values[host, host])
                for host, donor in pairs
            }
    return changes


def swaps(replay: Replay, plays: Sequence[Play], settings: Settings) -> Finding:
    """Return what each host team loses when a component comes from another team."""
    teams = {play.name: play.policy for play in plays}
    tables = []
    record: dict[str, Any] = {}
    for value, changes in swap_test(replay, teams, settings.held_out()).items():
        for component, found in changes.items():
            tables.append(
                TextTable(
                    f"Swap {component}: change of {value} a session, ± half the interval",
                    ("host ↓, donor →", *teams),
                    [(host, *(spread(found[host, donor], 2) for donor in teams)) for host in teams],
                )
            )
            record.setdefault(value, {})[component] = [
                {"host": host, "donor": donor, **plain(estimate)}
                for (host, donor), estimate in found.items()
            ]
    return Finding(record, Section("Swap tests: partners never trained with", tables))
