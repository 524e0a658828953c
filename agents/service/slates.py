"""A slate as it is told: its items, why each is there, how probable it was, who decided what."""

from __future__ import annotations

from collections.abc import Sequence
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
    log_propensity: float | None
    """Log-probability of this ordered slate given the candidates; ``None`` where the slate was not
    drawn by the component 'ranking'."""
    log_probabilities: dict[str, float]
    """By component: log-probability (or density) of its action; empty where none was drawn."""
    record: Record
    """What the session remembers of it."""
    facts: tuple[ItemFacts, ...]
    """What is known of why each item is there."""
    bundle: Bundle
    """Of the team."""
    trace: Trace
    row: int
    """Of the trace."""

    @property
    def items(self) -> tuple[Recommendation, ...]:
        """In order of display."""
        return tuple(_recommendation(self.bundle, fact) for fact in self.facts)

    @property
    def places(self) -> NDArray[np.int64]:
        """``[K]``, the items' places in the catalog."""
        return self.record.slate

    def reasons(self, language: Language = "en") -> list[str]:
        """Return a sentence for each item, to its user."""
        return reasons(self.facts, self.bundle.titles, language)

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

    def __init__(self, pipeline: Pipeline, unseen: Sequence[int]) -> None:
        """Args:
        pipeline: at work; :meth:`complete` takes what it did.
        unseen: items that each session may still be shown.
        """
        self.actions: dict[str, Action] = {}
        self.drawn: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        self._pipeline, self._unseen = pipeline, unseen

    def complete(self, request: Request) -> None:
        """Take what is to be told from a request that is finished."""
        said = self._pipeline.messages_sent()
        self._messages = None if said is None else said.clone()
        brought = request.candidate_channel
        self._brought = None if brought is None else brought.to(torch.int16)
        self._enabled = request.enabled

    def details(self, row: int) -> dict[str, Any]:
        """Return a session's row as plain numbers."""
        pipeline, messages, brought = self._pipeline, self._messages, self._brought
        config, decisions = pipeline.config, {}
        for agent, action in (self.actions or pipeline.default_actions()).items():
            parts = action if isinstance(action, tuple) else (action,)
            values = torch.cat([part[row].reshape(-1).float() for part in parts]).tolist()
            names = decision_names(pipeline, agent, len(values))
            decisions[agent] = dict(zip(names, values, strict=True))
        names = channel_names(config)
        counts = None if brought is None else brought[row].long().bincount(minlength=len(names))
        enabled = self._enabled
        return {
            "decisions": decisions,
            "messages": {}
            if messages is None
            else dict(zip(pipeline.agents, messages[row].tolist(), strict=True)),
            "funnel": {
                "catalog": pipeline.knowledge.num_items,
                "unseen": self._unseen[row],
                "channels": _named(names, counts),
                "candidates": config.candidates,
                "blocks": _named(
                    tuple(config.blocks), None if enabled is None else enabled[row].bool()
                ),
                "slate": config.slate_size,
            },
        }


def _named(names: Sequence[str], values: Tensor | None) -> dict[str, Any]:
    return {} if values is None else dict(zip(names, values.tolist(), strict=True))


def _recommendation(bundle: Bundle, fact: ItemFacts) -> Recommendation:
    near = fact.liked
    return Recommendation(
        item=bundle.ids[fact.item],
        title=bundle.titles[fact.item],
        score=fact.score,
        topic=bundle.topic_of[fact.item],
        channel=fact.channel,
        nearest=None
        if near < 0
        else Nearest(bundle.ids[near], bundle.titles[near], fact.similarity),
        blocks=fact.parts,
    )


def slates_of(bundle: Bundle, request: Request, trace: Trace, sessions: int) -> list[Slate]:
    """Return the slates of a batch's first ``sessions``, told from its finished request."""
    facts, places = slate_facts(request, sessions), request.need("slate").cpu().numpy()
    channel, blocks = (
        None if found is None else found.cpu().numpy()
        for found in map(request.of_slate, (request.candidate_channel, request.blocks))
    )
    drawn = request.slate_slot is not None and request.slate_logits is not None
    propensity = request.log_propensity.tolist() if drawn else None
    numbers = request.step.tolist()
    log_p = {agent: log_p.tolist() for agent, (_, _, log_p) in trace.drawn.items()}

    return [
        Slate(
            number=numbers[row],
            log_propensity=None if propensity is None else propensity[row],
            log_probabilities={agent: values[row] for agent, values in log_p.items()},
            record=Record(
                slate=places[row].copy(),
                clicks=np.zeros(places.shape[1], np.float32),
                channel=None if channel is None else channel[row].copy(),
                blocks=None if blocks is None else blocks[row].copy(),
            ),
            facts=facts[row],
            bundle=bundle,
            trace=trace,
            row=row,
        )
        for row in range(sessions)
    ]
