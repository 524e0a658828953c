"""What a configuration model allows at a path: the fields, their kinds, ranges and choices; and
pydantic's errors in those words: what is wrong, got, allowed, meant.
"""

from __future__ import annotations

import copy
import difflib
import json
import math
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails


def _unwrap(annotation: Any) -> Iterator[Any]:
    """Yield the members of unions and annotated types, flattened."""
    if isinstance(annotation, FieldInfo):
        yield from _unwrap(annotation.annotation)
    elif get_origin(annotation) is Annotated:
        yield from _unwrap(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _unwrap(member)
    else:
        yield annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Return the sections among the members of an annotation."""
    return [member for member in _unwrap(annotation) if _is_model(member)]


def _tagged(model: type[BaseModel], tag: str | int) -> bool:
    """Return whether ``tag`` selects the model in a discriminated union."""
    return any(
        tag in get_args(field.annotation)
        for field in model.model_fields.values()
        if get_origin(field.annotation) is Literal
    )


def _at(model: type[BaseModel], location: tuple[str | int, ...]) -> list[Any]:
    """Return the annotations at a pydantic error location (union tags included)."""
    candidates: list[Any] = [model]
    for part in location:
        found: list[Any] = []
        for annotation in candidates:
            arguments = get_args(annotation)
            if _is_model(annotation):
                if part in annotation.model_fields:
                    found.extend(_unwrap(annotation.model_fields[part]))
            elif get_origin(annotation) is dict:
                found.extend(_unwrap(arguments[1]))
            elif get_origin(annotation) in (list, tuple, set, frozenset):
                for argument in arguments:
                    found.extend(_unwrap(argument) if argument is not Ellipsis else ())
        tagged = [a for a in candidates if _is_model(a) and _tagged(a, part)]
        candidates = found or tagged or candidates
    return candidates


def members(sections: list[type[BaseModel]], key: str, data: Any) -> list[type[BaseModel]]:
    """Return the sections that ``key`` may hold below these; of a union, the one ``data`` names."""
    below: list[type[BaseModel]] = []
    for field in (section.model_fields[key] for section in sections if key in section.model_fields):
        found, tag = _models(field), field.discriminator
        if isinstance(tag, str) and isinstance(data, dict) and tag in data:
            found = [member for member in found if _tagged(member, data[tag])]
        below += found
    return below


def _fields_at(model: type[BaseModel], location: tuple[str | int, ...]) -> dict[str, FieldInfo]:
    """Return the fields of the section at a pydantic error location."""
    sections = filter(_is_model, _at(model, location))
    return {key: field for section in sections for key, field in section.model_fields.items()}


def _kinds_with(model: type[BaseModel], location: tuple[str | int, ...], name: str) -> list[str]:
    """Return the kinds of the union at an error location (its tag last) that have a field."""
    union = list(filter(_is_model, _at(model, location[:-1])))
    if len(union) < 2 or not any(_tagged(member, location[-1]) for member in union):
        return []
    kinds = (member.model_fields.get("kind") for member in union if name in member.model_fields)
    return [str(kind) for field in kinds if field for kind in get_args(field.annotation)]


def _number(bound: Any) -> str:
    return str(int(bound)) if float(bound).is_integer() else str(bound)


def allowed_range(field: FieldInfo) -> str:
    """Return a field's numeric range in words (``from 0 to 1``), empty if it has none."""
    names = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}
    shown = " ".join(
        f"{words} {_number(bound)}"
        for name, words in names.items()
        for constraint in field.metadata
        if (bound := getattr(constraint, name, None)) is not None
    ).replace(" below", ", below")
    return f"up {shown}" if shown.startswith("to ") else shown


def choices(field: FieldInfo) -> tuple[object, ...]:
    """Return the values a literal field allows, or the tags of a discriminated union."""
    found: list[object] = []
    for annotation in _unwrap(field):
        if get_origin(annotation) is Literal:
            found.extend(get_args(annotation))
        elif _is_model(annotation) and field.discriminator is not None:
            kind = annotation.model_fields[str(field.discriminator)]
            found.extend(get_args(kind.annotation))
    return tuple(found)


def all_paths(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Return the dotted path of every key below ``model``, the shortest first."""
    found: list[str] = []
    for key, field in model.model_fields.items():
        found.append(f"{prefix}{key}")
        for section in _models(field):
            found.extend(all_paths(section, f"{prefix}{key}."))
    return sorted(dict.fromkeys(found), key=lambda path: path.count("."))


def default_entries(model: type[BaseModel], path: tuple[str | int, ...]) -> dict[str, Any]:
    """Return the entries that a section of the user's own (feature blocks and their costs, reward
    terms and their weights) at a path below ``model`` has by default; none for any other section.
    """
    field = _fields_at(model, path[:-1]).get(str(path[-1])) if path else None
    default = field.get_default(call_default_factory=True) if field is not None else None
    return copy.deepcopy(default) if isinstance(default, dict) else {}


def fill_tags(data: Any, annotation: Any) -> None:
    """Write into parsed YAML, in place, the tag of each discriminated union whose section leaves it
    out: the default's.
    """
    for model in _models(annotation):
        for name, field in model.model_fields.items():
            below = data.get(name)
            if not isinstance(below, dict):
                continue
            default = field.get_default(call_default_factory=True)
            tag = field.discriminator
            if isinstance(tag, str) and isinstance(default, BaseModel):
                below.setdefault(tag, getattr(default, tag))
            fill_tags(below, field)


_MAX_SHOWN = 60  # characters of an offending value in a message
_SECTIONS = ("dict", "mapping", "model", "model_attributes", "dataclass")
_KINDS: Mapping[str, str] = {
    **dict.fromkeys(_SECTIONS, "a section of 'key: value' lines"),
    **dict.fromkeys(("list", "set", "frozen_set", "tuple"), "a list"),
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "none_required": "null",
    "path": "a path",
    "string": "text",
}
_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
    "multiple_of": ("a multiple of", "multiple_of"),
}


def _show(value: object) -> str:
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
    known = sorted(_fields_at(model, location[:-1]))
    if len(location) > 1 and (kinds := _kinds_with(model, location[:-1], name)):
        return f"has no effect with kind '{location[-2]}'; it belongs to {', '.join(kinds)}"
    elsewhere = [path for path in all_paths(model) if path.rpartition(".")[2] == name]
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
    return f"must be {wanted} (got {_show(value)})"


def describe(error: ErrorDetails, model: type[BaseModel]) -> str:
    """Return one line that says what is wrong with a value, what is allowed and what was meant, in
    the words of the model that was validated.
    """
    kind, value, location = error["type"], error["input"], error["loc"]
    context: dict[str, Any] = error.get("ctx", {})
    field = _fields_at(model, location[:-1]).get(str(location[-1])) if location else None
    if kind == "extra_forbidden":
        return _unknown_key(model, location)
    if kind == "missing":
        return "is missing; give it a value"
    if kind in ("literal_error", "enum"):
        expected = str(context.get("expected", ""))
        known = [part.strip(" '") for part in expected.replace(" or ", ",").split(",")]
        return f"must be {expected} (got {_show(value)}){_near(value, known)}"
    if kind == "union_tag_invalid":
        tags = [tag.strip(" '") for tag in str(context["expected_tags"]).split(",")]
        given = context["tag"]
        return f"must be one of {', '.join(tags)} (got {_show(given)}){_near(given, tags)}"
    if kind == "union_tag_not_found":
        allowed = ", ".join(map(str, choices(field))) if field else ""
        return f"is missing; choose one of {allowed}" if allowed else "is missing; give it a value"
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        allowed = allowed_range(field) if field else ""
        tail = f"; allowed: {allowed}" if " " in allowed.removeprefix("from ") else ""
        return f"must be {words} {context[key]:.12g} (got {_show(value)}){tail}"
    if kind in ("too_short", "too_long"):
        words, key = ("least", "min_length") if kind == "too_short" else ("most", "max_length")
        return f"must have at {words} {context[key]} entries (got {context['actual_length']})"
    if kind == "finite_number":
        return f"must be finite (got {_show(value)})"
    if kind == "value_error":
        return f"{context['error']}"
    if kind == "int_from_float":
        return _wrong_kind("int", value)
    for suffix in ("_type", "_parsing"):
        if kind.endswith(suffix):
            return _wrong_kind(kind.removesuffix(suffix), value)
    return f"{error['msg'][0].lower()}{error['msg'][1:]} (got {_show(value)})"
