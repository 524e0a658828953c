"""What happens when components of a trained team are replaced: credit and swap tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agents.studies.equilibrium.credit import (
    coalitions,
    difference_rewards,
    shapley_values,
    stand_alone,
)
from agents.studies.equilibrium.decision_game import Sessions
from agents.studies.equilibrium.intervals import Interval, mean_interval
from agents.studies.equilibrium.lineups import ReplayEnv, play_lineups
from agents.studies.equilibrium.normal_form import Floats
from marec_env.evaluation.policies import TeamPolicy

__all__ = ["Credit", "measure_credit", "swap_test"]


@dataclass(frozen=True, slots=True)
class Credit:
    """Each component's credit, in units of the measured value a session."""

    components: tuple[str, ...]
    shapley: tuple[Interval, ...]
    difference: tuple[Interval, ...]
    alone: tuple[Interval, ...]
    total: Interval
    """The team's value minus the defaults'; the Shapley values sum to it."""
    worth: Floats
    """``[2^n]``: mean worth of every coalition, in the order of
    :func:`agents.studies.equilibrium.credit.coalitions`."""


def measure_credit(
    env: ReplayEnv,
    policy: TeamPolicy,
    default: TeamPolicy,
    sessions: Sessions,
    value: str = "team",
) -> Credit:
    """Play all ``2^n`` coalitions of a team on the same sessions and share out the gain.

    Args:
        env: the environment.
        policy: plays the components inside the coalition.
        default: plays those outside.
        sessions: int64 ``[S]``.
        value: ``team``, or an outcome: ``clicks``, ``length``.
    """
    agents = env.agents
    outcome = play_lineups(
        env,
        [
            {a: policy if member else default for a, member in zip(agents, members, strict=True)}
            for members in coalitions(len(agents))
        ],
        sessions,
    )
    worth = (outcome.team if value == "team" else outcome.outcomes[value]).T  # [S, 2^n]

    def intervals(shares: Floats) -> tuple[Interval, ...]:
        return tuple(mean_interval(shares[:, i]) for i in range(len(agents)))

    return Credit(
        components=tuple(agents),
        shapley=intervals(shapley_values(worth)),
        difference=intervals(difference_rewards(worth)),
        alone=intervals(stand_alone(worth)),
        total=mean_interval(worth[:, -1] - worth[:, 0]),
        worth=worth.mean(axis=0),
    )


def swap_test(
    env: ReplayEnv,
    teams: Mapping[str, TeamPolicy],
    sessions: Sessions,
    value: str = "team",
) -> dict[str, dict[tuple[str, str], Interval]]:
    """Replace one component of a team by another team's: partners it never trained with.

    Args:
        env: the environment.
        teams: named policies.
        sessions: int64 ``[S]``.
        value: ``team``, or an outcome.

    Returns:
        Per component, for each (host, donor), the change of the host's value a session, paired on
        sessions; zero where host and donor are the same team.
    """
    names, agents = list(teams), env.agents
    pairs: Sequence[tuple[str, str]] = [(host, donor) for host in names for donor in names]
    changes: dict[str, dict[tuple[str, str], Interval]] = {}
    for component in agents:
        lineups = [
            {a: teams[donor if a == component else host] for a in agents} for host, donor in pairs
        ]
        outcome = play_lineups(env, lineups, sessions)
        values = outcome.team if value == "team" else outcome.outcomes[value]
        at = {pair: row for row, pair in enumerate(pairs)}
        changes[component] = {
            (host, donor): mean_interval(values[at[host, donor]] - values[at[host, host]])
            for host, donor in pairs
        }
    return {component: dict(found) for component, found in changes.items()}
