"""One request's way through the funnel: who decided what, and how each item came to be shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from marec_env.evaluation.statistics import finite_or_none
from marec_env.pipeline.reasons import FILLED, channel_names, decision_names, slate_facts
from marec_env.simulator import Simulator
from marec_env.vector import Action, VecStep


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
    relevant: bool
    """Whether it is among the items truly relevant to the user."""


@dataclass(frozen=True, slots=True)
class SampledRequest:
    """A request of an evaluation, as ``evaluation.json`` holds it."""

    session: int
    request: int
    """Answered before it in the session."""
    new_user: bool
    unseen: int
    """Items of the catalog that might have been shown."""
    relevant: int
    """Of them, those truly relevant to the user."""
    channels: dict[str, tuple[int, int]]
    """By channel: candidates that it brought, and the relevant ones among them; empty where recall
    does not say."""
    candidates: tuple[int, int]
    """All of them, and the relevant ones."""
    blocks: dict[str, bool]
    """By feature block: whether it was computed; empty where nobody says."""
    slate: tuple[ShownItem, ...]
    decisions: dict[str, dict[str, float]]
    """By component and decision."""
    objectives: dict[str, float | None]
    """By component: its f_i; ``None`` where it has none in this request."""
    reward: float
    """F of this request."""

    @property
    def clicks(self) -> int:
        """Items of the slate that were clicked."""
        return sum(item.clicked for item in self.slate)


def sample_request(
    simulator: Simulator,
    actions: Mapping[str, Action],
    step: VecStep,
    relevant: Tensor,
    number: int,
) -> SampledRequest:
    """Return the request that the first session has just been answered.

    Args:
        simulator: that answered it.
        actions: of the components.
        step: what it returned.
        relevant: bool ``[N]``, the items relevant to the user.
        number: of the request in its session.
    """
    outcome = simulator.last
    assert outcome is not None
    request, blocks = outcome.request, simulator.config.pipeline.blocks
    enabled = [] if request.enabled is None else request.enabled[0].tolist()
    # The memory has learned of the slate since; before, none of it was seen.
    unseen = (~simulator.pipeline.memory.seen[0]).sum() + outcome.slate.shape[1]
    candidates = request.candidates[0] if request.candidates is not None else outcome.slate[0]
    wanted = relevant[candidates]
    channels = {}
    if request.candidate_channel is not None:
        for place, name in enumerate(channel_names(simulator.config.pipeline)):
            brought = request.candidate_channel[0] == place
            if brought.any() or name != FILLED:
                channels[name] = (int(brought.sum()), int((brought & wanted).sum()))
    decisions = {}
    for agent, action in actions.items():
        parts = action if isinstance(action, tuple) else (action,)
        values = [value for part in parts for value in part[0].flatten().tolist()]
        names = decision_names(simulator.pipeline, agent, len(values))
        decisions[agent] = dict(zip(names, map(float, values), strict=True))
    objectives = {
        name.removeprefix("objective/"): finite_or_none(float(value[0]))
        for name, value in step.metrics.items()
        if name.startswith("objective/")
    }
    return SampledRequest(
        session=0,
        request=number,
        new_user=bool(simulator.users.is_new[0]),
        unseen=int(unseen),
        relevant=int(relevant.sum()),
        channels=channels,
        candidates=(len(candidates), int(wanted.sum())),
        blocks={name: bool(on) for name, on in zip(blocks, enabled, strict=False)},
        slate=shown_items(simulator, relevant),
        decisions=decisions,
        objectives=objectives,
        reward=float(step.metrics["team_reward"][0]),
    )


def shown_items(simulator: Simulator, relevant: Tensor) -> tuple[ShownItem, ...]:
    """Return the slate of the first session's last request; ``relevant`` is bool ``[N]``."""
    outcome = simulator.last
    assert outcome is not None
    clicked = (outcome.feedback.clicks[0] > 0).tolist()
    return tuple(
        ShownItem(
            title=simulator.world.catalog.titles[fact.item],
            channel=fact.channel or "",
            score=fact.score,
            parts=fact.parts,
            clicked=click,
            relevant=bool(relevant[fact.item]),
        )
        for fact, click in zip(slate_facts(outcome.request, 1)[0], clicked, strict=True)
    )
