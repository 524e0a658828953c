"""What is known of a user when a session begins, checked: history, feedback, group, limits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from agents.service.bundle import Bundle
from marec_env.errors import ConfigError, DataError, unknown_name, visible


@dataclass(frozen=True, slots=True)
class Past:
    """Of one user."""

    items: tuple[int, ...]
    """Places in the catalog, oldest first."""
    liked: tuple[bool, ...]
    """Of each item."""
    group: int
    limits: tuple[float, ...]
    """For each entry of ``pipeline.audit.suitability``, infinite where there is none."""
    distinct: int = field(init=False)
    """Different items."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "distinct", len(set(self.items)))


def past_of(
    bundle: Bundle,
    history: Iterable[str | int] = (),
    feedback: Iterable[bool | float] | None = None,
    group: str | None = None,
    attributes: Mapping[str, float] | None = None,
) -> Past:
    """Return what is known of a user.

    Args:
        bundle: of the team.
        history: the log's item identifiers, oldest first.
        feedback: per item, whether it was liked, or a rating in the log's units (liked from
            ``data.like_threshold`` on). 0 and 1 alone are dislikes and likes if 0 is no rating of
            the log. Without it every item counts as liked.
        group: the user's group, for components that ask for it.
        attributes: the user's own limits, by name (``risk_limit``).

    Raises:
        DataError: an item is not in the log; history is one text, or has no order; feedback has
            another length, is no number, or could be ratings as well as likes.
        ConfigError: there is no such group or attribute, or an attribute is no number.
    """
    items = _places(bundle, _listed("history", history))
    if group is not None and group not in bundle.groups:
        raise ConfigError(unknown_name("group", str(group), bundle.groups))
    return Past(
        items=tuple(items),
        liked=tuple(_liked(bundle, feedback, len(items))),
        group=bundle.groups.index(group) if group is not None else 0,
        limits=_limits(bundle, attributes or {}),
    )


def beginnings(pasts: Sequence[Past], length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what sessions' memory begins with: history and what was liked, ``[n, L]`` each and -1
    padded, group ``[n]`` and limits ``[n, S]``.
    """
    items = np.full((len(pasts), length), -1, np.int64)
    liked = np.zeros((len(pasts), length), np.bool_)
    for row, past in enumerate(pasts):
        if kept := min(length, len(past.items)):
            items[row, -kept:] = past.items[-kept:]
            liked[row, -kept:] = past.liked[-kept:]
    group = np.array([past.group for past in pasts])
    limits = np.array([past.limits for past in pasts], np.float32).reshape(len(pasts), -1)
    return (
        torch.from_numpy(items),
        torch.from_numpy(liked),
        torch.from_numpy(group),
        torch.from_numpy(limits),
    )


def _places(bundle: Bundle, history: Sequence[object]) -> list[int]:
    places = []
    for item in history:
        whole = isinstance(item, float | np.floating) and float(item).is_integer()
        name = str(int(item)) if whole else str(item)  # type: ignore[call-overload]
        if name not in bundle.places:
            raise DataError(
                f"history: item '{visible(name)}' is not in the log '{bundle.source}'; leave it out"
            )
        places.append(bundle.places[name])
    return places


def _liked(bundle: Bundle, feedback: Iterable[object] | None, items: int) -> list[bool]:
    """Return which items of the history were liked."""
    if feedback is None:
        return [True] * items
    values = _listed("feedback", feedback)
    if len(values) != items:
        raise DataError(f"feedback has {len(values)} entries, history {items}; give one an item")
    if all(isinstance(value, bool | np.bool_) for value in values):
        return [bool(value) for value in values]
    numbers = [_number(value, place) for place, value in enumerate(values)]
    threshold, (least, most) = bundle.like_threshold, bundle.ratings
    if not set(numbers) <= {0.0, 1.0} or most <= 1.0:
        return [value >= threshold for value in numbers]
    # The log knows other ratings than 0 and 1: is this one of them, or a like?
    if 0.0 in numbers and least > 0.0:
        return [value == 1.0 for value in numbers]
    raise DataError(
        f"feedback of 0 and 1 alone may be ratings ({least:g} ... {most:g}) or likes; give True and"
        f" False, for instance rating >= {threshold:g}"
    )


def _limits(bundle: Bundle, attributes: Mapping[str, float]) -> tuple[float, ...]:
    names = [*bundle.pipeline.audit.suitability.values()]
    for name, value in attributes.items():
        if name not in names:
            raise ConfigError(unknown_name("attribute", str(name), names))
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            raise ConfigError(f"attribute '{name}' is {value!r}; give a number")
    return tuple(float(attributes.get(name, math.inf)) for name in names)


def _listed(what: str, values: Iterable[object]) -> list[object]:
    """Return values in their order; one text is no list of letters, and sets have no order."""
    if isinstance(values, str | bytes | bytearray | memoryview):
        raise DataError(f"{what} is the text {values!r}; give a list, such as [{values!r}]")
    if isinstance(values, Set | Mapping) or not isinstance(values, Iterable):
        raise DataError(f"{what} is a {type(values).__name__}; give a list, oldest first")
    if getattr(values, "ndim", 1) == 0:  # iterable by its type only
        raise DataError(f"{what} is the single value {values!r}; give a list, oldest first")
    return list(values)


def _number(value: object, place: int) -> float:
    try:
        found = math.nan if isinstance(value, str | bytes) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise DataError(
            f"feedback holds {value!r} at position {place}; give True, False or a rating, or leave "
            "the item out of history and feedback"
        )
    return found
