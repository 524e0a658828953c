"""What a trained team goes by, on average over many requests of many users."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from agents.learners.policy import TrainedPolicy
from agents.studies.explain.team import (
    Answered,
    MaskedTeam,
    OpenTeam,
    answered_requests,
    attribution_by_group,
    completeness_gap,
    input_groups,
    integrated_gradients,
)
from agents.studies.records import spread
from marec_env.evaluation.rollout import rollout
from marec_env.evaluation.statistics import (
    Estimate,
    mean_estimate,
    paired_difference,
)
from marec_env.pipeline.reasons import decision_names
from marec_env.reporting.table import TextTable
from marec_env.simulator import Simulator
from marec_env.world import World

OUTCOMES = ("clicks", "return")
"""What masking a group is judged by, a session."""
_REPLAY_EVERY = 4  # requests between those whose slates are made again without a group
_ATTRIBUTED = 512  # requests whose decisions are attributed, evenly spread over the cohort


@dataclass(frozen=True, slots=True)
class GroupEffect:
    """One group of a component's input."""

    share: float
    """Of the component's attributions, in [0, 1]: mean size over requests and decisions."""
    decision_change: float
    """Mean size of the change of its expected decisions when the group is masked."""
    items_changed: Estimate
    """Items of a slate that are others when the group is masked in that request alone."""
    worth: dict[str, Estimate]
    """By outcome: a session of the team less the same session with the group masked throughout."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One number that a component decides."""

    mean: float
    attribution: dict[str, float]
    """Mean size of its attribution to each group."""


@dataclass(frozen=True, slots=True)
class ComponentExplanation:
    """One component on average."""

    completeness_gap: float
    """Largest error of the quadrature over requests and decisions."""
    groups: dict[str, GroupEffect]
    decisions: dict[str, Decision]

    def ranked(self) -> list[tuple[str, GroupEffect]]:
        """Return the groups by their share, largest first."""
        return sorted(self.groups.items(), key=lambda group: -group[1].share)


@dataclass(frozen=True, slots=True)
class TeamExplanation:
    """A team on average over a cohort, and the inputs that stand for an average request."""

    sessions: int
    seed: int
    requests: int
    """Answered in the cohort; the average input is over all of them."""
    slate_size: int
    components: dict[str, ComponentExplanation]
    baselines: dict[str, Tensor] = field(repr=False)
    """Per agent, the average input, float32 ``[d + h]``."""


def _items_changed(simulator: Simulator, team: MaskedTeam, requests: list[Answered]) -> Estimate:
    """Return how many items of a slate are others under a masked team, over sessions."""
    total = torch.zeros(simulator.num_envs, device=simulator.device)
    count = torch.zeros_like(total)
    for request in requests:
        other = request.again(simulator, team)
        kept = (other.unsqueeze(2) == request.slate.unsqueeze(1)).any(dim=1)
        total += request.alive * (~kept).sum(dim=1)
        count += request.alive
    return mean_estimate((total / count.clamp(min=1)).cpu().numpy())


def explain_team(
    world: World,
    policy: TrainedPolicy,
    sessions: int,
    seed: int,
    say: Callable[[str], None] = lambda line: None,
) -> TeamExplanation:
    """Explain each component of a team, which takes its most probable actions, on average over a
    cohort of at least 2 sessions; ``say`` receives a line as each component begins.
    """
    team = OpenTeam(policy)
    simulator = Simulator(world, sessions, autoreset=False)
    player = MaskedTeam(team)
    seen: dict[str, list[Tensor]] = {agent: [] for agent in team.agents}
    replayed = []
    for request in answered_requests(
        simulator, player, torch.arange(sessions), seed, lambda number: number % _REPLAY_EVERY == 0
    ):
        for agent, rows in player.seen.items():
            seen[agent].append(rows[request.alive])
        if request.state:
            replayed.append(request)
    inputs = {agent: torch.cat(rows) for agent, rows in seen.items()}
    baselines = {agent: rows.mean(dim=0) for agent, rows in inputs.items()}
    whole = rollout(world, MaskedTeam(team), sessions, seed).per_session

    def effect(agent: str, rows: Tensor, columns: slice, share: float) -> GroupEffect:
        average = baselines[agent][columns]
        masked = MaskedTeam(team, agent, columns, average)
        blind = rows.clone()
        blind[:, columns] = average
        with torch.no_grad():
            change = (team.decisions(agent, rows) - team.decisions(agent, blind)).abs().mean()
        without = rollout(world, masked, sessions, seed).per_session
        return GroupEffect(
            share=share,
            decision_change=float(change),
            items_changed=_items_changed(simulator, masked, replayed),
            worth={
                name: paired_difference(whole[name].numpy(), without[name].numpy())
                for name in OUTCOMES
            },
        )

    components = {}
    for agent in team.agents:
        groups = input_groups(simulator, agent, team.actor(agent).memory_size)
        say(f"{agent}: {len(groups)} groups of inputs")
        rows = inputs[agent][:: max(1, inputs[agent].shape[0] // _ATTRIBUTED)]
        decide = partial(team.decisions, agent)
        found = integrated_gradients(decide, rows, baselines[agent])
        sizes = attribution_by_group(found, groups).abs().mean(dim=0)  # [m, groups]
        shares = sizes.sum(dim=0) / sizes.sum().clamp(min=torch.finfo(sizes.dtype).tiny)
        with torch.no_grad():
            means = decide(inputs[agent]).mean(dim=0).tolist()
        names = decision_names(simulator.pipeline, agent, len(means))
        components[agent] = ComponentExplanation(
            completeness_gap=completeness_gap(decide, rows, baselines[agent], found),
            groups={
                name: effect(agent, rows, columns, share)
                for (name, columns), share in zip(groups.items(), shares.tolist(), strict=True)
            },
            decisions={
                name: Decision(mean, dict(zip(groups, row, strict=True)))
                for name, mean, row in zip(names, means, sizes.tolist(), strict=True)
            },
        )
    return TeamExplanation(
        sessions=sessions,
        seed=seed,
        requests=inputs[team.agents[0]].shape[0],
        slate_size=world.config.pipeline.slate_size,
        components=components,
        baselines=baselines,
    )


def average_table(average: TeamExplanation) -> TextTable:
    """Return what each component goes by, and what it is worth."""
    rows = [
        (
            "" if place else agent,
            name,
            f"{group.share:.0%}",
            f"{group.decision_change:.3f}",
            f"{group.items_changed.value:.2f}",
            *(spread(worth, 2, "+") + "*" * worth.significant for worth in group.worth.values()),
        )
        for agent, component in average.components.items()
        for place, (name, group) in enumerate(component.ranked())
    ]
    size = f"items of {average.slate_size}"
    return TextTable(
        f"What each component goes by: {average.sessions} sessions, {average.requests:,} requests",
        ("component", "inputs", "share", "decision", size, "clicks", "F"),
        rows,
        (
            "share: of integrated gradients from the average input; the other columns mask the "
            "group: mean change of a decision, items of a slate that are others, and what a "
            "session loses (mean ± half the 95 % interval; * zero lies outside)",
        ),
    )


def average_sentences(average: TeamExplanation) -> list[str]:
    """Return one sentence a component, then what that is based on."""
    lines = []
    for agent, component in average.components.items():
        ranked = component.ranked()
        first, group = ranked[0]
        gap = group.worth["clicks"]
        worth = f"{spread(gap, 1).removeprefix('-')} clicks a session"
        verdict = f"knowing it {'is worth' if gap.value > 0 else 'costs'} {worth}"
        if not gap.significant:
            verdict += ", which is not told apart from nothing"
        chief = " and ".join(f"{name} ({one.share:.0%})" for name, one in ranked[:2])
        lines.append(
            f"{agent} goes chiefly by {chief}. Without {first}, {group.items_changed.value:.1f} "
            f"of {average.slate_size} items of a slate would be others; {verdict}."
        )
    return [
        *lines,
        f"Based on {average.requests:,} requests of {average.sessions} sessions (seed "
        f"{average.seed}); a masked input shows the average of these requests instead.",
    ]
