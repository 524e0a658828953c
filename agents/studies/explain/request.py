"""Why one user got one slate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from agents.studies.explain.average import ATTRIBUTION_STEPS, TeamExplanation, attribution_by_group
from agents.studies.explain.gradients import integrated_gradients
from agents.studies.explain.names import decision_names, input_groups
from agents.studies.explain.team import MaskedTeam, OpenTeam
from marec_env.errors import ConfigError
from marec_env.evaluation.rollout import play_request
from marec_env.simulator import Simulator

if TYPE_CHECKING:
    from agents.learners.policy import TrainedPolicy
    from marec_env.pipeline.request import Request
    from marec_env.world import World

__all__ = ["DecisionReason", "Masked", "RequestExplanation", "ShownItem", "explain_request"]

_HISTORY = 5  # latest liked items that are named
_RECOVERED = 1e-3  # share of the scores' spread that recovered block weights may leave


@dataclass(frozen=True, slots=True)
class ShownItem:
    """One place of the slate."""

    title: str
    channel: str
    """The recall channel that brought it."""
    score: float | None
    """What it was ranked by, before diversity and exploration."""
    parts: dict[str, float]
    """What each feature block added to the score; empty where the score is no sum of blocks."""
    clicked: bool


@dataclass(frozen=True, slots=True)
class DecisionReason:
    """One number that a component decided."""

    name: str
    value: float
    """Its mean before clipping; see :func:`agents.studies.explain.team.expected_decisions`."""
    usual: float
    """What the component decides on the average input."""
    attributions: dict[str, float]
    """By group of inputs; they add up to ``value - usual``."""


@dataclass(frozen=True, slots=True)
class Masked:
    """What the slate would have been had a component been shown the average in a group's place."""

    group: str
    removed: tuple[str, ...]
    """Titles that would be missing from the slate."""
    added: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RequestExplanation:
    """One request of one session."""

    session: int
    seed: int
    request: int
    """Answered before it in the session."""
    length: int
    """Requests of the session in all."""
    new_user: bool
    liked: tuple[str, ...]
    """Titles the recommender knows the user likes, newest first, from history and session."""
    slate: tuple[ShownItem, ...]
    decisions: dict[str, tuple[DecisionReason, ...]]
    masked: dict[str, tuple[Masked, ...]]
    """By component, the groups whose masking changes the slate most first."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "session": self.session,
            "seed": self.seed,
            "request": self.request,
            "length": self.length,
            "new_user": self.new_user,
            "liked": list(self.liked),
            "slate": [
                {
                    "title": item.title,
                    "channel": item.channel,
                    "score": item.score,
                    "parts": item.parts,
                    "clicked": item.clicked,
                }
                for item in self.slate
            ],
            "decisions": {
                agent: {
                    reason.name: {
                        "value": reason.value,
                        "usual": reason.usual,
                        "attributions": reason.attributions,
                    }
                    for reason in reasons
                }
                for agent, reasons in self.decisions.items()
            },
            "masked": {
                agent: {
                    found.group: {"removed": list(found.removed), "added": list(found.added)}
                    for found in groups
                }
                for agent, groups in self.masked.items()
            },
        }


def explain_request(
    world: World,
    policy: TrainedPolicy,
    average: TeamExplanation,
    session: int,
    seed: int,
    request: int | None = None,
) -> RequestExplanation:
    """Explain the slate of one request.

    Args:
        world: of the environment.
        policy: the team.
        average: of the same team; gives the average inputs that stand for knowing nothing.
        session: the session's number.
        seed: of the session's user and luck.
        request: which request of the session, from 0; by default the middle one.

    Raises:
        ConfigError: the session ends before the request.
    """
    team = OpenTeam(policy)
    simulator = Simulator(world, 1, autoreset=False)
    length = _length(simulator, team, session, seed)
    chosen = length // 2 if request is None else request
    if chosen >= length:
        raise ConfigError(
            f"--request {chosen}: session {session} ends after {length} requests; give at most "
            f"{length - 1}"
        )
    simulator.begin(torch.tensor([session]), seed)
    player = MaskedTeam(team)
    for _ in range(chosen):
        play_request(simulator, player)
    state, memory = simulator.state_dict(), dict(player.memory)
    liked = _liked(simulator)
    new_user = bool(simulator.users.is_new[0])
    play_request(simulator, player)
    assert simulator.last is not None
    seen = dict(player.seen)
    slate = simulator.last.slate[0].clone()
    shown = _shown(simulator, simulator.last.request, simulator.last.feedback.clicks[0] > 0)
    decisions, masked = {}, {}
    for agent in team.agents:
        decisions[agent] = _reasons(simulator, team, agent, seen[agent], average.baselines[agent])
        found = []
        for group in input_groups(simulator, agent, team.memory_size(agent)):
            columns = slice(group.first, group.last)
            blind = MaskedTeam(team, agent, columns, average.baselines[agent][columns])
            blind.memory = dict(memory)
            simulator.load_state_dict(state)
            play_request(simulator, blind)
            other = simulator.last.slate[0]
            found.append(
                Masked(
                    group.name,
                    _titles(world, slate[~torch.isin(slate, other)]),
                    _titles(world, other[~torch.isin(other, slate)]),
                )
            )
        masked[agent] = tuple(sorted(found, key=lambda m: -len(m.removed)))
    return RequestExplanation(
        session=session,
        seed=seed,
        request=chosen,
        length=length,
        new_user=new_user,
        liked=liked,
        slate=shown,
        decisions=decisions,
        masked=masked,
    )


def _length(simulator: Simulator, team: OpenTeam, session: int, seed: int) -> int:
    step = simulator.begin(torch.tensor([session]), seed)
    player = MaskedTeam(team)
    length = 0
    while not bool((step.terminated | step.truncated).any()):
        step = play_request(simulator, player)
        length += 1
    return length


def _titles(world: World, items: Tensor) -> tuple[str, ...]:
    return tuple(world.catalog.titles[item] for item in items.tolist())


def _liked(simulator: Simulator) -> tuple[str, ...]:
    memory = simulator.pipeline.memory
    history = memory.history[0][memory.history_liked[0] & (memory.history[0] >= 0)]
    clicked = memory.session_items[0].flatten()[memory.session_clicks[0].flatten() > 0]
    return _titles(simulator.world, torch.cat([history, clicked]).flip(0)[:_HISTORY])


def _shown(simulator: Simulator, request: Request, clicked: Tensor) -> tuple[ShownItem, ...]:
    world, config = simulator.world, simulator.config.pipeline
    assert request.slate is not None and request.slate_slot is not None
    slots = request.slate_slot[0]
    scores = None if request.scores is None else request.scores[0]
    parts = _parts(request)
    channels = None if request.candidate_channel is None else request.candidate_channel[0, slots]
    names = tuple(config.blocks)
    shown = []
    for place, item in enumerate(request.slate[0].tolist()):
        slot = int(slots[place])
        shown.append(
            ShownItem(
                title=world.catalog.titles[item],
                channel="" if channels is None else _channel(simulator, int(channels[place])),
                score=None if scores is None else float(scores[slot]),
                parts={} if parts is None else dict(zip(names, parts[slot].tolist(), strict=True)),
                clicked=bool(clicked[place]),
            )
        )
    return tuple(shown)


def _channel(simulator: Simulator, number: int) -> str:
    channels = tuple(simulator.config.pipeline.recall.channels)
    return channels[number] if 0 <= number < len(channels) else "filled up by popularity"


def _parts(request: Request) -> Tensor | None:
    """Return what each block added to each candidate's score, float64 ``[C, blocks]``.

    The weights are recovered from the scores, whichever component set them; where scores are no
    weighted sum of the blocks there is nothing to tell.
    """
    if request.blocks is None or request.scores is None:
        return None
    blocks, scores = request.blocks[0].double(), request.scores[0].double()
    weights = torch.linalg.lstsq(blocks, scores.unsqueeze(1), driver="gelsd").solution.squeeze(1)
    missed = (blocks @ weights - scores).abs().max()
    return blocks * weights if missed <= _RECOVERED * scores.std() else None


def _reasons(
    simulator: Simulator, team: OpenTeam, agent: str, inputs: Tensor, baseline: Tensor
) -> tuple[DecisionReason, ...]:
    groups = input_groups(simulator, agent, team.memory_size(agent))

    def decide(points: Tensor) -> Tensor:
        return team.decisions(agent, points)

    found = integrated_gradients(decide, inputs, baseline, ATTRIBUTION_STEPS)
    grouped = attribution_by_group(found, groups)[0]
    with torch.no_grad():
        values = decide(inputs)[0].tolist()
        usual = decide(baseline.unsqueeze(0))[0].tolist()
    names = decision_names(simulator, agent, len(values))
    return tuple(
        DecisionReason(
            name,
            value,
            mean,
            {group.name: part for group, part in zip(groups, row, strict=True)},
        )
        for name, value, mean, row in zip(names, values, usual, grouped.tolist(), strict=True)
    )
