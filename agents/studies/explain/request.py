"""Why one user got one slate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from agents.learners.policy import TrainedPolicy
from agents.studies.explain.average import TeamExplanation
from agents.studies.explain.team import (
    MaskedTeam,
    OpenTeam,
    answered_requests,
    attribution_by_group,
    input_groups,
    integrated_gradients,
)
from marec_env.errors import ConfigError
from marec_env.evaluation.rollout import relevant_items
from marec_env.evaluation.sample import ShownItem, shown_items
from marec_env.pipeline.reasons import ItemFacts, decision_names, liked_past, slate_facts
from marec_env.reporting.table import TextTable
from marec_env.simulator import Simulator
from marec_env.world import World

_HISTORY = 5  # latest liked items that are named
_GROUPS, _CAUSES, _TITLES = 2, 3, 3  # that a sentence, a cell, a list of items name
_NOTABLE = 0.05  # of a decision's unit (half a Box's range, one level): smaller changes go unsaid


@dataclass(frozen=True, slots=True)
class Reason:
    """One number that a component decided."""

    value: float
    """Its mean before clipping: the distribution's :meth:`expected`."""
    usual: float
    """What the component decides on the average input."""
    attributions: dict[str, float]
    """By group of inputs; they add up to ``value - usual``."""

    def strongest(self, count: int) -> str:
        """Return the largest attributions in words."""
        causes = sorted(self.attributions.items(), key=lambda cause: -abs(cause[1]))[:count]
        digits = 3 if count == _CAUSES else 2
        return ", ".join(f"{name} {value:+.{digits}f}" for name, value in causes)


@dataclass(frozen=True, slots=True)
class Masked:
    """What the slate would have been had a component been shown the average in a group's place."""

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
    decisions: dict[str, dict[str, Reason]]
    """By component and decision."""
    facts: tuple[ItemFacts, ...]
    """Why each item of the slate is on it, as the user may be told."""
    masked: dict[str, dict[str, Masked]]
    """By component, the groups whose masking changes the slate most first."""


def find_request(
    world: World, policy: TrainedPolicy, session: int, seed: int, request: int | None
) -> tuple[int, int]:
    """Return a request's number in its session (the middle by default), and the session's length.

    Raises:
        ConfigError: the session ends before the request.
    """
    simulator, player = Simulator(world, 1, autoreset=False), MaskedTeam(OpenTeam(policy))
    played = answered_requests(simulator, player, torch.tensor([session]), seed, lambda _: False)
    length = sum(1 for _ in played)
    chosen = length // 2 if request is None else request
    if chosen >= length:
        raise ConfigError(
            f"--request {chosen}: session {session} ends after {length} requests; give at most "
            f"{length - 1}"
        )
    return chosen, length


def explain_request(
    world: World,
    policy: TrainedPolicy,
    average: TeamExplanation,
    session: int,
    seed: int,
    request: int | None = None,
) -> RequestExplanation:
    """Explain the slate of one request, which :func:`find_request` may refuse.

    ``average``, of the same team, gives the average inputs that stand for knowing nothing; ``seed``
    is of the session's user and luck.
    """
    chosen, length = find_request(world, policy, session, seed, request)
    team = OpenTeam(policy)
    simulator, player = Simulator(world, 1, autoreset=False), MaskedTeam(team)
    played = answered_requests(
        simulator, player, torch.tensor([session]), seed, lambda number: number == chosen
    )
    answered = next(one for one in played if one.number == chosen)
    assert simulator.last is not None
    slate, seen = answered.slate[0], dict(player.seen)
    shown = shown_items(simulator, relevant_items(simulator)[0])
    request_of_slate = simulator.last.request
    simulator.load_state_dict(answered.state)
    known = [item for item in liked_past(simulator.pipeline.memory)[0].tolist() if item >= 0]
    new_user = bool(simulator.users.is_new[0])
    liked = _titles(world, [*dict.fromkeys(known)][:_HISTORY])
    [facts] = slate_facts(request_of_slate, 1)
    decisions, masked = {}, {}
    for agent, inputs in seen.items():
        groups = input_groups(simulator, agent, team.actor(agent).memory_size)
        baseline = average.baselines[agent]
        decisions[agent] = _reasons(simulator, team, agent, inputs, baseline, groups)
        found = {}
        for name, columns in groups.items():
            blind = MaskedTeam(team, agent, columns, baseline[columns])
            other = answered.again(simulator, blind)[0]
            found[name] = Masked(
                _titles(world, slate[~torch.isin(slate, other)].tolist()),
                _titles(world, other[~torch.isin(other, slate)].tolist()),
            )
        masked[agent] = dict(sorted(found.items(), key=lambda m: -len(m[1].removed)))
    return RequestExplanation(
        session, seed, chosen, length, new_user, liked, shown, decisions, facts, masked
    )


def _titles(world: World, items: Sequence[int]) -> tuple[str, ...]:
    return tuple(world.catalog.titles[item] for item in items)


def _reasons(
    simulator: Simulator,
    team: OpenTeam,
    agent: str,
    inputs: Tensor,
    baseline: Tensor,
    groups: dict[str, slice],
) -> dict[str, Reason]:
    decide = partial(team.decisions, agent)
    rows = attribution_by_group(integrated_gradients(decide, inputs, baseline), groups)[0].tolist()
    with torch.no_grad():
        values = decide(inputs)[0].tolist()
        usual = decide(baseline.unsqueeze(0))[0].tolist()
    names = decision_names(simulator.pipeline, agent, len(values))
    return {
        name: Reason(value, mean, dict(zip(groups, row, strict=True)))
        for name, value, mean, row in zip(names, values, usual, rows, strict=True)
    }


def request_table(found: RequestExplanation) -> TextTable:
    """Return every decision of one request beside the usual one, and its strongest causes."""
    return TextTable(
        f"Decisions of session {found.session}, request {found.request}",
        ("component", "decision", "value", "usual", "strongest causes"),
        [
            (
                "" if place else agent,
                name,
                f"{reason.value:+.3f}",
                f"{reason.usual:+.3f}",
                reason.strongest(_CAUSES),
            )
            for agent, reasons in found.decisions.items()
            for place, (name, reason) in enumerate(reasons.items())
        ],
        ("all attributions of a decision add up to its value less the usual one",),
        prose=True,
    )


def request_sentences(found: RequestExplanation) -> list[str]:
    """Return who asked, why each item was shown, and what each component went by."""
    who = "a new user, known from this session alone" if found.new_user else "a known user"
    lines = [
        f"Session {found.session} (seed {found.seed}), request {found.request} of 0 … "
        f"{found.length - 1}: {who}."
    ]
    if found.liked:
        lines.append(f"Known to like of late: {', '.join(found.liked)}.")
    lines += [_item_sentence(place, item) for place, item in enumerate(found.slate, start=1)]
    for agent, reasons in found.decisions.items():
        lines.append(_decision_sentence(agent, reasons))
        group, strongest = next(iter(found.masked[agent].items()))
        if strongest.removed:
            lines.append(
                f"  Without {group} {len(strongest.removed)} of {len(found.slate)} items "
                f"would be others: {_some(strongest.added)} for {_some(strongest.removed)}."
            )
        else:
            lines.append("  Masking any one of its inputs leaves the slate's items as they are.")
    return lines


def _item_sentence(place: int, item: ShownItem) -> str:
    reasons = [f"from {item.channel}"] if item.channel else []
    if item.score is not None:
        parts = sorted(item.parts.items(), key=lambda part: -abs(part[1]))
        total = f"score {item.score:+.2f}"
        if parts:
            total += " = " + " ".join(f"{value:+.2f} {name}" for name, value in parts if value)
        reasons.append(total)
    return f"{place:>2}. {item.title}{' [clicked]' * item.clicked}: {'; '.join(reasons)}"


def _decision_sentence(agent: str, reasons: dict[str, Reason]) -> str:
    name, strongest = max(reasons.items(), key=lambda one: abs(one[1].value - one[1].usual))
    change = strongest.value - strongest.usual
    if abs(change) < _NOTABLE:
        return f"{agent} decided much as on an average request."
    return (
        f"{agent} set {name} to {strongest.value:+.2f}, {abs(change):.2f} "
        f"{'above' if change > 0 else 'below'} what an average request gets "
        f"({strongest.strongest(_GROUPS)})."
    )


def _some(titles: tuple[str, ...]) -> str:
    rest = len(titles) - _TITLES
    return ", ".join(titles[:_TITLES]) + (f" and {rest} more" if rest > 0 else "")
