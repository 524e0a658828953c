"""Observation fields: everything a component or the central critic may be shown, by name.

A field is a function ``(memory, summaries) -> float32 [B, width]`` scaled to about [-1, 1], whose
docstring begins with that shape (docs/fields.md is made of them). Which component may see which
field is configuration (``pipeline.data_access``) and is enforced here: a component is handed a view
that holds its granted fields only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NoReturn

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from marec_env.errors import ConfigError
from marec_env.pipeline.memory import SessionMemory, look_up
from marec_env.pipeline.request import Request
from marec_env.registry import Registry, callable_at, numbers

Summaries = Mapping[str, Tensor]
"""What the components of the latest request left, ``[B, k]`` each; zeros at an episode's start."""

Field = Callable[[SessionMemory, Summaries], Tensor]
FIELDS: Registry[Field] = Registry("observation field")

SESSION_STATISTICS = {
    "request": "requests answered, as a share of the longest episode",
    "history_length": "items of the history, as a share of the longest",
    "no_history": "1 where the user came without a history",
    "last_rate": "click rate of the latest slate, doubled",
    "fast_rate": "click rate decayed by a half a request, doubled",
    "slow_rate": "click rate decayed by a tenth a request, doubled",
    "largest_exposure": "decayed share of the topic shown most",
    "interest_entropy": "entropy of the topics clicked, 0 to 1",
    "since_click": "requests without a click, squashed: tanh of a fifth of them",
}
"""Columns of the field ``session``, and what they are."""

STATE_FIELDS = (
    "session", "exposure", "interest", "taste_change", "channel_hits", "block_use", "quotas",
    "candidates",
)  # fmt: skip
"""What the central critic sees of the recommender's side: compact, in this order."""

_RATE_SCALE = 2.0  # click rates rarely exceed a half
_LIMIT_SCALE = 7.0  # risk classes run from 1 to 7 (PRIIPs)
_WAIT_SCALE = 5.0  # requests without a click after which waiting hardly differs
_NEAREST = 10  # candidates whose mean score tells how well recall found the profile


@FIELDS.register("session")
def session(memory: SessionMemory, summaries: Summaries) -> Tensor:
    """``[B, 9]``: the session's statistics, a column for each of ``SESSION_STATISTICS``."""
    share = memory.interest / memory.interest.sum(1, keepdim=True).clamp(min=1e-6)
    entropy = -(share * share.clamp(min=1e-6).log()).sum(1) / math.log(max(share.shape[1], 2))
    return torch.stack(
        [
            memory.requests.to(torch.float32) / memory.max_requests,
            memory.history_length / memory.history.shape[1],
            (memory.history_length == 0).to(torch.float32),
            _RATE_SCALE * memory.last_rate,
            _RATE_SCALE * memory.fast_rate,
            _RATE_SCALE * memory.slow_rate,
            memory.exposure.amax(1),
            entropy,
            torch.tanh(memory.since_click / _WAIT_SCALE),
        ],
        dim=1,
    )


def _middle(taste: Tensor) -> Tensor:
    return normalize(taste[:, taste.shape[1] // 2], dim=-1)


@FIELDS.register("taste_text")
def taste_text(memory: SessionMemory, summaries: Summaries) -> Tensor:
    """``[B, dt]``, unit length: the direction of the middle time scale's history in text space."""
    return _middle(memory.taste_text)


@FIELDS.register("taste_cf")
def taste_cf(memory: SessionMemory, summaries: Summaries) -> Tensor:
    """``[B, dc]``, unit length: the same in collaborative space."""
    return _middle(memory.taste_cf)


@FIELDS.register("taste_change")
def taste_change(memory: SessionMemory, summaries: Summaries) -> Tensor:
    """``[B, 2 * (H - 1)]``: cosines of the tastes of adjacent time scales, text then CF."""
    return torch.cat(
        [
            cosine_similarity(taste[:, 1:], taste[:, :-1], dim=-1)
            for taste in (memory.taste_text, memory.taste_cf)
        ],
        dim=1,
    )


@FIELDS.register("channel_hits")
def channel_hits(memory: SessionMemory, summaries: Summaries) -> Tensor:
    """``[B, channels]``, 0 to 2: the decayed click rate of each channel's items, doubled."""
    return _RATE_SCALE * memory.channel_hits


def _latest(memory: SessionMemory) -> tuple[Tensor, Tensor]:
    """Return items and clicks of the latest slate, ``[B, K]`` each; -1 and 0 before the first."""
    rows = torch.arange(memory.num_sessions, device=memory.device)
    latest = (memory.requests - 1).clamp(min=0)
    return memory.session_items[rows, latest], memory.session_clicks[rows, latest]


@FIELDS.register("feedback")
def feedback(memory: SessionMemory, summaries: Summaries) -> Tensor:
    """``[B, 2 * T + K + 2 * channels]``, 0 to 2: the latest slate; the share of each topic shown,
    and clicked, doubled; the click at each position; the share of each channel, likewise.
    """
    items, clicks = _latest(memory)
    begun = items >= 0
    parts = [clicks]
    for kinds, count in (
        (look_up(memory.knowledge.topics, items.clamp(min=0)), memory.knowledge.num_topics),
        (memory.last_channel, memory.channel_hits.shape[1]),
    ):
        # What is of no kind goes to a last column that is cut off.
        place = torch.where(begun & (kinds >= 0) & (kinds < count), kinds, count)
        empty = torch.zeros(len(items), count + 1, device=memory.device)
        share = torch.full_like(clicks, 1.0 / items.shape[1])
        parts += [
            empty.scatter_add(1, place, share)[:, :-1],
            _RATE_SCALE * empty.scatter_add(1, place, share * clicks)[:, :-1],
        ]
    positions, *by_kind = parts
    return torch.cat([*by_kind[:2], positions, *by_kind[2:]], dim=1)


def _embedded(space: Literal["text", "cf"], words: str) -> Field:
    def field(memory: SessionMemory, summaries: Summaries) -> Tensor:
        items, clicks = _latest(memory)
        vectors = memory.knowledge.rows(space, items.clamp(min=0))
        kinds = torch.stack([clicks, (1.0 - clicks) * (items >= 0)], dim=1)  # [B, 2, K]
        return (kinds @ vectors / items.shape[1]).flatten(1)

    field.__doc__ = words
    return field


_SIZES: dict[Literal["text", "cf"], str] = {"text": "dt", "cf": "dc"}
for _space, _size in _SIZES.items():
    FIELDS.register(f"feedback_{_space}")(
        _embedded(
            _space,
            f"``[B, 2 * {_size}]``: the latest slate's embeddings, summed over the items clicked, "
            "then over the others, divided by K.",
        )
    )


@FIELDS.register("limits")
def limits(memory: SessionMemory, summaries: Summaries) -> Tensor:
    """``[B, S]``: the user's suitability limits, squashed to [0, 1]; 1 where there is none."""
    return torch.where(memory.limits.isinf(), 1.0, torch.tanh(memory.limits / _LIMIT_SCALE))


def _remembered(name: str) -> Field:
    return lambda memory, summaries: getattr(memory, name)


def _left(name: str) -> Field:
    return lambda memory, summaries: summaries[name]


def _told(name: str, words: str, field: Field) -> None:
    field.__doc__ = words
    FIELDS.register(name)(field)


for _name, _words in (
    ("exposure", "``[B, T]``, 0 to 1: decayed topic shares of what was shown."),
    ("interest", "``[B, T]``, 0 to 1: decayed topic shares of what was clicked."),
    ("block_use", "``[B, blocks]``: decayed correlation of each block's scores with clicks."),
    (
        "group",
        "``[B, G]``: the user's group, one-hot; sensitive: no built-in component asks for it.",
    ),
):
    _told(_name, _words, _remembered(_name))
for _name, _words in (
    ("profile", "``[B, dt + dc]``: the latest profile vectors, text then CF, each of unit length."),
    ("quotas", "``[B, channels]``: the latest quota of each channel as a share of C."),
    (
        "candidates",
        "``[B, T + 4]``: the latest's topic shares, and the means of their popularity, "
        "freshness, CF and text scores.",
    ),
    ("enabled", "``[B, blocks]``: 1 where a block was computed last."),
):
    _told(_name, _words, _left(_name))


def summarise(request: Request, summaries: dict[str, Tensor]) -> None:
    """Refresh what observations are made of from what a request holds so far.

    Args:
        request: open or finished.
        summaries: of the latest request, to be written.
    """
    if request.profile_text is not None and request.profile_cf is not None:
        summaries["profile"] = torch.cat([request.profile_text, request.profile_cf], 1)
    if request.quotas is not None:
        summaries["quotas"] = request.quotas.to(torch.float32) / request.config.candidates
    if request.candidates is not None:
        summaries["candidates"] = _describe(request, request.candidates)
    if request.enabled is not None:
        summaries["enabled"] = request.enabled


def _describe(request: Request, candidates: Tensor) -> Tensor:
    """Return the field ``candidates``, float32 ``[B, T + 4]``."""
    sessions, count = candidates.shape
    shares = torch.zeros(sessions, request.knowledge.num_topics, device=candidates.device)
    weight = torch.full(candidates.shape, 1.0 / count, device=candidates.device)
    shares.scatter_add_(1, request.topics_of(candidates), weight)
    best = candidates[:, : min(_NEAREST, count)]
    return torch.cat(
        [
            shares,
            request.candidate_popularity.mean(1, keepdim=True),
            request.candidate_freshness.mean(1, keepdim=True),
            request.scores_of("cf", best).mean(1, keepdim=True),
            request.scores_of("text", best).mean(1, keepdim=True),
        ],
        dim=1,
    )


class FieldTable(dict[str, Tensor]):
    """The fields as they stand, each computed when first asked for, whoever asks."""

    def __init__(
        self, fields: Mapping[str, Field], memory: SessionMemory, summaries: Summaries
    ) -> None:
        super().__init__()
        self._fields, self._memory, self._summaries = fields, memory, summaries

    def __missing__(self, name: str) -> Tensor:
        found = self[name] = self._fields[name](self._memory, self._summaries)
        return found


class FieldView(dict[str, Tensor]):
    """The fields one component may read, by name."""

    def __init__(self, component: str, granted: Mapping[str, Tensor]) -> None:
        super().__init__(granted)
        self._component = component

    def __missing__(self, name: str) -> NoReturn:
        raise ConfigError(
            f"component '{self._component}' may not read the field '{name}' (granted: "
            f"{', '.join(self) or 'none'}); grant it in pipeline.data_access"
        )


def fields_of(asked: Iterable[str]) -> dict[str, Field]:
    """Return the functions of all observation fields: built-in ones, and those asked for."""
    names = dict.fromkeys([*FIELDS, *asked])
    return {name: callable_at("fields of a component", FIELDS, name, _checked) for name in names}


def _checked(what: str, found: object, memory: SessionMemory, summaries: Summaries) -> Tensor:
    return numbers(what, found, memory.num_sessions, None)
