"""Pydantic's validation errors in the words of the house: what is wrong, got, allowed, cure."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from marec_env.config.fields import (
    all_paths,
    allowed_range,
    choices,
    field_at,
    fields_at,
    kinds_with,
    paths_of_field,
)

__all__ = ["describe", "show_value"]

_MAX_SHOWN = 60  # characters of an offending value in a message
_KINDS: Mapping[str, str] = {
    "bool": "true or false",
    "dict": "a section of 'key: value' lines",
    "mapping": "a section of 'key: value' lines",
    "model": "a section of 'key: value' lines",
    "model_attributes": "a section of 'key: value' lines",
    "dataclass": "a section of 'key: value' lines",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "none_required": "null",
    "path": "a path",
    "set": "a list",
    "frozen_set": "a list",
    "string": "text",
    "tuple": "a list",
}
_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
    "multiple_of": ("a multiple of", "multiple_of"),
}


def show_value(value: object) -> str:
    """Return a value as YAML would write it, cut to a line."""
    if isinstance(value, float) and not math.isfinite(value):
        shown = str(value)
    else:
        shown = json.dumps(value, ensure_ascii=False, default=str).replace('"', "'")
    return shown if len(shown) <= _MAX_SHOWN else shown[: _MAX_SHOWN - 1] + "…"


def _near(name: object, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _unknown_key(model: type[BaseModel], location: tuple[str | int, ...]) -> str:
    name = str(location[-1])
    known = sorted(fields_at(model, location[:-1]))
    if kinds := kinds_with(model, location[:-1], name):
        return f"has no effect with kind '{location[-2]}'; it belongs to {', '.join(kinds)}"
    elsewhere = paths_of_field(model, name)
    hint = _near(name, known)
    if elsewhere and elsewhere[0] != name:
        hint = f"; did you mean '{elsewhere[0]}'?"
    elif not hint:
        names = {path.rpartition(".")[2]: path for path in reversed(all_paths(model))}
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.75)
        hint = f"; did you mean '{names[near[0]]}'?" if near else ""
    return f"unknown key{hint} (known: {', '.join(known) or 'none'})"


def _wrong_kind(kind: str, value: object) -> str:
    wanted = _KINDS.get(kind, kind.replace("_", " "))
    if kind == "int" and isinstance(value, float) and value.is_integer():
        return f"must be a whole number (got {value}); write {int(value)}"
    return f"must be {wanted} (got {show_value(value)})"


def describe(error: ErrorDetails, model: type[BaseModel]) -> str:
    """Return one line that says what is wrong with a value, what is allowed and what was meant.

    Args:
        error: one entry of ``ValidationError.errors()``.
        model: the model that was validated, for its fields' names and ranges.
    """
    kind, value, location = error["type"], error["input"], error["loc"]
    context: dict[str, Any] = error.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(model, location)
    if kind == "missing":
        return "is missing; give it a value"
    if kind in ("literal_error", "enum"):
        expected = str(context.get("expected", ""))
        known = [part.strip(" '") for part in expected.replace(" or ", ",").split(",")]
        return f"must be {expected} (got {show_value(value)}){_near(value, known)}"
    if kind == "union_tag_invalid":
        tags = [tag.strip(" '") for tag in str(context["expected_tags"]).split(",")]
        given = context["tag"]
        return f"must be one of {', '.join(tags)} (got {show_value(given)}){_near(given, tags)}"
    if kind == "union_tag_not_found":
        field = field_at(model, location)
        allowed = ", ".join(map(str, choices(field))) if field else ""
        return f"is missing; choose one of {allowed}" if allowed else "is missing; give it a value"
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        field = field_at(model, location)
        allowed = allowed_range(field) if field else ""
        tail = f"; allowed: {allowed}" if " " in allowed.removeprefix("from ") else ""
        return f"must be {words} {context[key]:.12g} (got {show_value(value)}){tail}"
    if kind in ("too_short", "too_long"):
        words, key = ("least", "min_length") if kind == "too_short" else ("most", "max_length")
        return f"must have at {words} {context[key]} entries (got {context['actual_length']})"
    if kind == "finite_number":
        return f"must be finite (got {show_value(value)})"
    if kind == "value_error":
        return f"{context['error']}"
    if kind == "int_from_float":
        return _wrong_kind("int", value)
    for suffix in ("_type", "_parsing"):
        if kind.endswith(suffix):
            return _wrong_kind(kind.removesuffix(suffix), value)
    return f"{error['msg'][0].lower()}{error['msg'][1:]} (got {show_value(value)})"
