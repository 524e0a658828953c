"""What a trained team goes by, on average over many requests of many users."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from agents.studies.explain.gradients import completeness_gap, integrated_gradients
from agents.studies.explain.names import InputGroup, decision_names, input_groups
from agents.studies.explain.team import MaskedTeam, OpenTeam
from marec_env.evaluation.rollout import play_request, rollout
from marec_env.evaluation.statistics import (
    Estimate,
    PairedDifference,
    mean_estimate,
    paired_difference,
)
from marec_env.simulator import Simulator

if TYPE_CHECKING:
    from agents.learners.policy import TrainedPolicy
    from marec_env.world import World

__all__ = [
    "ATTRIBUTION_STEPS",
    "ComponentExplanation",
    "GroupEffect",
    "TeamExplanation",
    "attribution_by_group",
    "explain_team",
]

OUTCOMES = ("clicks", "return")
"""What masking a group is judged by, a session."""
_REPLAY_EVERY = 4  # requests between those whose slates are made again without a group
ATTRIBUTION_STEPS = 200  # nodes of the quadrature: hidden layers bend the path, see the gap
_ATTRIBUTED = 512  # requests whose decisions are attributed, evenly spread over the cohort


@dataclass(frozen=True, slots=True)
class GroupEffect:
    """One group of a component's input."""

    name: str
    share: float
    """Of the component's attributions, in [0, 1]: mean size over requests and decisions."""
    decision_change: float
    """Mean size of the change of its expected decisions when the group is masked."""
    items_changed: Estimate
    """Items of a slate that are others when the group is masked in that request alone."""
    worth: dict[str, PairedDifference]
    """By outcome: a session of the team less the same session with the group masked throughout."""


@dataclass(frozen=True, slots=True)
class ComponentExplanation:
    """One component on average."""

    agent: str
    groups: tuple[GroupEffect, ...]
    decisions: tuple[str, ...]
    mean_decision: tuple[float, ...]
    attributions: tuple[tuple[float, ...], ...]
    """Mean size of the attribution of each decision (row) to each group (column)."""
    completeness_gap: float
    """Largest error of the quadrature over requests and decisions."""

    def ranked(self) -> list[GroupEffect]:
        """Return the groups by their share, largest first."""
        return sorted(self.groups, key=lambda group: -group.share)


@dataclass(frozen=True, slots=True)
class TeamExplanation:
    """A team on average over a cohort, and the inputs that stand for an average request."""

    sessions: int
    seed: int
    requests: int
    """Answered in the cohort; the average input is over all of them."""
    slate_size: int
    components: tuple[ComponentExplanation, ...]
    baselines: dict[str, Tensor]
    """Per agent, the average input, float32 ``[d + h]``."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "sessions": self.sessions,
            "seed": self.seed,
            "requests": self.requests,
            "slate_size": self.slate_size,
            "components": {c.agent: _component_dict(c) for c in self.components},
        }


def _component_dict(component: ComponentExplanation) -> dict[str, Any]:
    return {
        "completeness_gap": component.completeness_gap,
        "groups": {
            group.name: {
                "share": group.share,
                "decision_change": group.decision_change,
                "items_changed": group.items_changed.as_json(),
                "worth": {n: w.difference.as_json() for n, w in group.worth.items()},
            }
            for group in component.groups
        },
        "decisions": {
            name: {
                "mean": mean,
                "attribution": {
                    group.name: value for group, value in zip(component.groups, row, strict=True)
                },
            }
            for name, mean, row in zip(
                component.decisions, component.mean_decision, component.attributions, strict=True
            )
        },
    }


def attribution_by_group(attributions: Tensor, groups: tuple[InputGroup, ...]) -> Tensor:
    """Add up ``[n, m, d]`` attributions within groups: ``[n, m, groups]``."""
    return torch.stack([attributions[:, :, g.first : g.last].sum(dim=2) for g in groups], dim=2)


@dataclass(frozen=True, slots=True)
class _Cohort:
    """A cohort played once: every input, and the states at which slates are made again."""

    inputs: dict[str, Tensor]
    """Per agent ``[R, d + h]``, over all requests of all sessions."""
    snapshots: list[_Snapshot]


@dataclass(frozen=True, slots=True)
class _Snapshot:
    state: dict[str, Any]
    memory: dict[str, Tensor]
    alive: Tensor
    slate: Tensor


def _record(simulator: Simulator, team: OpenTeam, sessions: Tensor, seed: int) -> _Cohort:
    step = simulator.begin(sessions, seed)
    player = MaskedTeam(team)
    seen: dict[str, list[Tensor]] = {agent: [] for agent in team.agents}
    snapshots = []
    alive = torch.ones(simulator.num_envs, dtype=torch.bool, device=simulator.device)
    request = 0
    while bool(alive.any()):
        kept = request % _REPLAY_EVERY == 0
        state = simulator.state_dict() if kept else {}
        memory = dict(player.memory)
        step = play_request(simulator, player)
        for agent, inputs in player.seen.items():
            seen[agent].append(inputs[alive])
        if kept:
            assert simulator.last is not None
            snapshots.append(_Snapshot(state, memory, alive, simulator.last.slate.clone()))
        alive = alive & ~(step.terminated | step.truncated)
        request += 1
    return _Cohort({agent: torch.cat(rows) for agent, rows in seen.items()}, snapshots)


def _items_changed(simulator: Simulator, team: MaskedTeam, snapshots: list[_Snapshot]) -> Estimate:
    """Return how many items of a slate are others under a masked team, over sessions."""
    total = torch.zeros(simulator.num_envs, device=simulator.device)
    count = torch.zeros_like(total)
    for snapshot in snapshots:
        simulator.load_state_dict(snapshot.state)
        team.memory = dict(snapshot.memory)
        play_request(simulator, team)
        assert simulator.last is not None
        kept = (simulator.last.slate.unsqueeze(2) == snapshot.slate.unsqueeze(1)).any(dim=1)
        total += snapshot.alive * (~kept).sum(dim=1)
        count += snapshot.alive
    return mean_estimate((total / count.clamp(min=1)).cpu().numpy())


def explain_team(
    world: World,
    policy: TrainedPolicy,
    sessions: int,
    seed: int,
    say: Callable[[str], None] = lambda line: None,
) -> TeamExplanation:
    """Explain each component of a team on average.

    Args:
        world: of the environment it plays in.
        policy: the team; it takes its most probable actions.
        sessions: size of the cohort, at least 2.
        seed: of the cohort.
        say: receives a line as each component begins.
    """
    team = OpenTeam(policy)
    simulator = Simulator(world, sessions, autoreset=False)
    cohort = _record(simulator, team, torch.arange(sessions), seed)
    baselines = {agent: inputs.mean(dim=0) for agent, inputs in cohort.inputs.items()}
    whole = rollout(world, MaskedTeam(team), sessions, seed).per_session
    components = []
    for agent in team.agents:
        groups = input_groups(simulator, agent, team.memory_size(agent))
        say(f"{agent}: {len(groups)} groups of inputs")
        inputs, baseline = cohort.inputs[agent], baselines[agent]
        rows = inputs[:: max(1, inputs.shape[0] // _ATTRIBUTED)]

        def decide(points: Tensor, agent: str = agent) -> Tensor:
            return team.decisions(agent, points)

        found = integrated_gradients(decide, rows, baseline, ATTRIBUTION_STEPS)
        sizes = attribution_by_group(found, groups).abs().mean(dim=0)  # [m, groups]
        shares = sizes.sum(dim=0) / sizes.sum().clamp(min=torch.finfo(sizes.dtype).tiny)
        effects = []
        for index, group in enumerate(groups):
            columns = slice(group.first, group.last)
            masked = MaskedTeam(team, agent, columns, baseline[columns])
            blind = rows.clone()
            blind[:, columns] = baseline[columns]
            with torch.no_grad():
                change = (decide(rows) - decide(blind)).abs().mean()
            without = rollout(world, masked, sessions, seed).per_session
            effects.append(
                GroupEffect(
                    name=group.name,
                    share=float(shares[index]),
                    decision_change=float(change),
                    items_changed=_items_changed(simulator, masked, cohort.snapshots),
                    worth={
                        name: paired_difference(whole[name].numpy(), without[name].numpy())
                        for name in OUTCOMES
                    },
                )
            )
        with torch.no_grad():
            means = decide(inputs).mean(dim=0)
        components.append(
            ComponentExplanation(
                agent=agent,
                groups=tuple(effects),
                decisions=decision_names(simulator, agent, means.shape[0]),
                mean_decision=tuple(means.tolist()),
                attributions=tuple(tuple(row) for row in sizes.tolist()),
                completeness_gap=completeness_gap(decide, rows, baseline, found),
            )
        )
    return TeamExplanation(
        sessions=sessions,
        seed=seed,
        requests=cohort.inputs[team.agents[0]].shape[0],
        slate_size=world.config.pipeline.slate_size,
        components=tuple(components),
        baselines=baselines,
    )
