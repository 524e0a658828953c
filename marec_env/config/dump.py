"""Typed configuration back to YAML, with each field's description as a comment above its key."""

from __future__ import annotations

import math
import re
import textwrap
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from marec_env.config.base import ConfigModel
from marec_env.config.fields import allowed_range, choices
from marec_env.config.yaml_source import parse_scalar

__all__ = ["dump", "json_schema"]

_WIDTH = 100  # columns of a comment line
_INDENT = "  "
_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./+@ -]*(:[A-Za-z0-9_./+@-]+)*")
# PyYAML and other readers of YAML 1.1 take these for booleans; quoted, all agree.
_WORDS_OF_1_1 = {"y", "n", "yes", "no", "on", "off"}


def _quoted(text: str) -> str:
    """Return text in double quotes on one line, everything but ASCII escaped."""
    written: str = yaml.dump(text, default_style='"', width=math.inf, allow_unicode=False)
    return written.rstrip("\n")


def _scalar(value: object) -> str:
    """Return a scalar so that YAML 1.1 and 1.2 readers agree on its type and value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if not math.isfinite(value):
            return {math.inf: ".inf", -math.inf: "-.inf"}.get(value, ".nan")
        mantissa, letter, exponent = repr(value).partition("e")
        if letter and "." not in mantissa:
            mantissa += ".0"  # without the point YAML 1.1 reads text
        if letter and exponent[0] not in "+-":
            exponent = f"+{exponent}"
        return f"{mantissa}{letter}{exponent}"
    if isinstance(value, int):
        return str(value)
    text = str(value)
    safe = (
        _PLAIN.fullmatch(text) is not None
        and not text.endswith(" ")
        and text.lower() not in _WORDS_OF_1_1
        and parse_scalar(text) == text
    )
    return text if safe else _quoted(text)


def _flow(value: object) -> str:
    """Return plain data on one line; its text is quoted wherever a comma or colon could mislead."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    return _scalar(value)


def _comment(field: FieldInfo, indent: str) -> list[str]:
    """Return the lines of a field's comment: its description, then what is allowed."""
    words = (field.description or "").strip()
    allowed = choices(field)
    if len(allowed) > 1:
        words += "" if words[-1:] in ".;:!?" else "."
        words += f" One of: {', '.join(_scalar(choice) for choice in allowed)}."
    elif limits := allowed_range(field):
        words += f" ({limits})"
    return textwrap.wrap(
        words.strip(),
        width=_WIDTH,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _plain(value: Any) -> Any:
    """Return a field's value as JSON-like data."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return getattr(value, "value", str(value))  # an enum, or a path


def _entry(key: str, value: Any, field: FieldInfo | None, level: int, base: Any) -> list[str]:
    """Return the lines of one ``key: value``, a nested section, or a list of sections."""
    indent = _INDENT * level
    lines = _comment(field, indent) if field is not None else []
    if isinstance(value, BaseModel):
        below = _section(value, level + 1, base if type(base) is type(value) else None)
        return [*lines, f"{indent}{key}:", *below] if below else [*lines, f"{indent}{key}: {{}}"]
    if isinstance(value, dict) and value and any(isinstance(v, BaseModel) for v in value.values()):
        lines.append(f"{indent}{key}:")
        for name, item in value.items():
            lines += _entry(_scalar(name), item, None, level + 1, None)
        return lines
    if isinstance(value, list | tuple) and any(isinstance(item, BaseModel) for item in value):
        lines.append(f"{indent}{key}:")
        for item in value:
            if not isinstance(item, BaseModel):
                lines.append(f"{indent}{_INDENT}- {_flow(_plain(item))}")
                continue
            below = _section(item, level + 2, None)
            lines.append(f"{indent}{_INDENT}-")
            lines += below
        return lines
    return [*lines, f"{indent}{key}: {_flow(_plain(value))}"]


def _section(model: BaseModel, level: int, base: BaseModel | None) -> list[str]:
    """Return the lines of a section; with ``base``, only what differs from it (tags stay)."""
    lines: list[str] = []
    fields = type(model).model_fields
    # A section's kind decides what else it may hold, so it comes first.
    for key in sorted(fields, key=lambda key: key != "kind"):
        field = fields[key]
        value = getattr(model, key)
        other = getattr(base, key) if base is not None else None
        if base is not None and value == other:
            continue
        if level == 0 and lines and isinstance(value, BaseModel):
            lines.append("")
        lines += _entry(key, value, field, level, other)
    return lines


def dump(model: ConfigModel, base: ConfigModel | None = None) -> str:
    """Return a configuration as YAML that :func:`marec_env.config.loader.load` reads back equal.

    Args:
        model: the configuration.
        base: if given, only keys that differ from it are written.
    """
    lines = _section(model, 0, base)
    return "\n".join(lines or ["{}"]) + "\n"


def json_schema(model: type[ConfigModel]) -> dict[str, Any]:
    """Return the JSON Schema of a configuration, with which editors complete and check YAML."""
    schema = model.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
