"""A slate as it is told: its items, why each is there, how probable it was, who decided what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.service.bundle import Bundle
from marec_env.evaluation.reasons import reasons
from marec_env.pipeline.pipeline import Pipeline
from marec_env.pipeline.reasons import ItemFacts, channel_names, decision_names, slate_facts
from marec_env.pipeline.request import Request
from marec_env.text.prompts import Language
from marec_env.vector import Action

__all__ = ["Nearest", "Recommendation", "Record", "Slate", "Trace", "slates_of"]


@dataclass(frozen=True, slots=True)
class Nearest:
    """The liked item of the past that an item is most like."""

    item: str
    title: str
    similarity: float
    """Cosine in the space that the item's channel goes by, or mean of those in both."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One item of a slate, and why it is there."""

    item: str
    """The item's identifier in the log."""
    title: str
    score: float | None
    """What the ranking component gave it, before diversity and exploration."""
    topic: str = ""
    channel: str | None = None
    """The recall channel that brought it."""
    nearest: Nearest | None = None
    blocks: dict[str, float] = field(default_factory=dict)
    """What each feature block added to the score; empty where the score is no sum of blocks."""


@dataclass(slots=True)
class Record:
    """A slate that was shown, and what is known of the answer."""

    slate: NDArray[np.int64]
    """``[K]``, places in the catalog."""
    clicks: NDArray[np.float32]
    """``[K]``."""
    channel: NDArray[np.int64] | None
    """``[K]``, what brought each item."""
    blocks: NDArray[np.float32] | None
    """``[K, blocks]``."""


@dataclass(frozen=True, slots=True)
class Slate:
    """What a session was shown at one request."""

    number: int
    """Of the request in its session, from 0."""
    items: tuple[Recommendation, ...]
    log_propensity: float | None
    """Log-probability of this ordered slate given the candidates; ``None`` where the slate was not
    drawn by the component 'ranking'."""
    log_probabilities: dict[str, float]
    """By component: log-probability (or density) of its action; empty where none was drawn."""
    record: Record
    """What the session remembers of it."""
    facts: tuple[ItemFacts, ...]
    """What is known of why each item is there."""
    titles: Sequence[str]
    """Of all items."""
    trace: Trace
    row: int
    """Of the trace."""

    @property
    def places(self) -> NDArray[np.int64]:
        """``[K]``, the items' places in the catalog."""
        return self.record.slate

    def reasons(self, language: Language = "en") -> list[str]:
        """Return a sentence for each item, to its user."""
        return reasons(self.facts, self.titles, language)

    def details(self) -> dict[str, Any]:
        """Return who decided what, what was said, and how many items were left at each stage."""
        return self.trace.details(self.row)

    def decisions(self) -> dict[str, dict[str, Any]]:
        """Return, by component that drew its action, observation, flat action and how probable it
        was, as plain numbers.
        """
        return {
            agent: {
                "observation": seen[self.row].tolist(),
                "action": flat[self.row].tolist(),
                "log_probability": float(log_p[self.row]),
            }
            for agent, (seen, flat, log_p) in self.trace.drawn.items()
        }


class Trace:
    """What happened in a batch of requests, small enough to be kept with its slates.

    Attributes:
        actions: by agent, as the environment has them.
        drawn: by agent that drew: observation, flat action, log-probability.
    """

    def __init__(self) -> None:
        """Empty; :meth:`complete` fills it."""
        self.actions: dict[str, Action] = {}
        self.drawn: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    def complete(self, pipeline: Pipeline, request: Request, state: Mapping[str, Any]) -> None:
        """Take what is to be told from a request that is finished, and the pipeline's state."""
        self._decisions: dict[str, tuple[Sequence[str], NDArray[np.float32]]] = {}
        actions = self.actions or pipeline.default_actions()
        for agent, action in actions.items():
            parts = action if isinstance(action, tuple) else (action,)
            flat = torch.cat([p.reshape(len(p), -1).float() for p in parts], dim=1).cpu().numpy()
            self._decisions[agent] = (decision_names(pipeline, agent, flat.shape[1]), flat)
        queue = state["mailbox"].get("queue")  # what was said last is its end
        self._messages = None if queue is None else queue[:, -1].cpu().numpy()
        self._agents = pipeline.agents
        config = pipeline.config
        self._channels, brought = channel_names(config), request.candidate_channel
        self._brought = None
        if brought is not None:
            counts = torch.zeros(len(brought), len(self._channels), dtype=torch.int64)
            counts = counts.to(brought.device).scatter_add_(1, brought, torch.ones_like(brought))
            self._brought = counts.cpu().numpy()
        enabled = request.enabled
        self._blocks, self._enabled = (
            tuple(config.blocks), None if enabled is None else enabled.cpu().numpy(),
        )  # fmt: skip
        self._unseen = (~request.memory.seen).sum(1).cpu().numpy()
        self._sizes = pipeline.memory.seen.shape[1], config.candidates, config.slate_size

    def details(self, row: int) -> dict[str, Any]:
        """Return a session's row as plain numbers."""
        items, candidates, slate = self._sizes
        messages = self._messages
        return {
            "decisions": {
                agent: dict(zip(names, values[row].tolist(), strict=True))
                for agent, (names, values) in self._decisions.items()
            },
            "messages": {}
            if messages is None
            else dict(zip(self._agents, messages[row].tolist(), strict=True)),
            "funnel": {
                "catalog": items,
                "unseen": int(self._unseen[row]),
                "channels": _named(self._channels, self._brought, row),
                "candidates": candidates,
                "blocks": {
                    name: bool(on) for name, on in _named(self._blocks, self._enabled, row).items()
                },
                "slate": slate,
            },
        }


def _named(names: Sequence[str], table: NDArray[Any] | None, row: int) -> dict[str, Any]:
    return {} if table is None else dict(zip(names, table[row].tolist(), strict=True))


def slates_of(
    bundle: Bundle, pipeline: Pipeline, request: Request, trace: Trace, sessions: int
) -> list[Slate]:
    """Return the slates of a batch's first ``sessions``, told from its finished request."""
    facts, places = slate_facts(request, sessions), request.need("slate").cpu().numpy()
    channel, blocks = (
        None if found is None else found.cpu().numpy()
        for found in map(request.of_slate, (request.candidate_channel, request.blocks))
    )
    drawn = request.slate_slot is not None and request.slate_logits is not None
    propensity = request.log_propensity.tolist() if drawn else None
    topics = request.knowledge.topics[request.need("slate")].tolist()
    numbers = request.step.tolist()
    log_p = {agent: log_p.tolist() for agent, (_, _, log_p) in trace.drawn.items()}

    def item(fact: ItemFacts, topic: int) -> Recommendation:
        near = fact.liked
        return Recommendation(
            item=bundle.ids[fact.item],
            title=bundle.titles[fact.item],
            score=fact.score,
            topic=bundle.topics[topic],
            channel=fact.channel,
            nearest=None
            if near < 0
            else Nearest(bundle.ids[near], bundle.titles[near], fact.similarity),
            blocks=fact.parts,
        )

    return [
        Slate(
            number=numbers[row],
            items=tuple(map(item, facts[row], topics[row])),
            log_propensity=None if propensity is None else propensity[row],
            log_probabilities={agent: values[row] for agent, values in log_p.items()},
            record=Record(
                slate=places[row].copy(),
                clicks=np.zeros(places.shape[1], np.float32),
                channel=None if channel is None else channel[row].copy(),
                blocks=None if blocks is None else blocks[row].copy(),
            ),
            facts=facts[row],
            titles=bundle.titles,
            trace=trace,
            row=row,
        )
        for row in range(sessions)
    ]
