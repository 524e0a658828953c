"""YAML files and command-line overrides into typed configuration, with errors that name the place.

Every error of a file is reported at once, one a line:
``file:line:col: section.key: what is wrong (got VALUE); what is allowed; did you mean``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from marec_env.config.base import ConfigModel
from marec_env.config.fields import fill_tags
from marec_env.config.messages import describe
from marec_env.config.overrides import apply_override
from marec_env.config.yaml_source import Path, Source, parse_text
from marec_env.errors import ConfigError

__all__ = ["load", "load_mapping", "load_text"]

M = TypeVar("M", bound=ConfigModel)


def _data_path(location: tuple[str | int, ...], data: Any, kind: str) -> Path:
    """Return the path in ``data`` of a pydantic location, which names union members as well."""
    path: Path = ()
    for position, part in enumerate(location):
        last = position == len(location) - 1
        inside = (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        )
        if inside:
            data = data[part]
            path = (*path, part)
        elif last and kind == "missing":
            path = (*path, part)
    return path


def _sort_key(message: str, source: Source) -> tuple[int, int, str]:
    """Order messages by line and column; overrides, which have neither, come last."""
    place = message.removeprefix(f"{source.name}:").split(":", 2)
    if len(place) == 3 and place[0].isdigit() and place[1].isdigit():
        return int(place[0]), int(place[1]), message
    return 1 << 30, 0, message


def _overridden_below(source: Source, path: Path) -> str:
    """Name the overrides inside a section, which a failed check between its keys may be due to."""
    labels = {
        place
        for below, place in source.values.items()
        if place.startswith("--set ") and below[: len(path)] == path and below != path
    }
    return f" (with {', '.join(sorted(labels))})" if labels else ""


def _messages(errors: list[ErrorDetails], source: Source, model: type[ConfigModel]) -> list[str]:
    """Return one message a place; a value that fits no member of a union is told each reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for error in errors:
        kind = error["type"]
        path = _data_path(error["loc"], source.data, kind)
        if kind.startswith("union_tag"):
            tag = str(error.get("ctx", {}).get("discriminator", "kind")).strip("'")
            path = (*path, tag)
        place = source.place(path, of_key=kind == "extra_forbidden")
        what = describe(error, model)
        if kind == "value_error" and not place.startswith("--set "):
            what += _overridden_below(source, path)
        shown = ".".join(map(str, path))
        reasons.setdefault((place, shown), []).append(what)
    return [
        ": ".join(part for part in (place, shown, "; or ".join(dict.fromkeys(what))) if part)
        for (place, shown), what in reasons.items()
    ]


def load_text(text: str, name: str, model: type[M], overrides: Sequence[str] = ()) -> M:
    """Return the configuration that a YAML text and overrides describe.

    Args:
        text: one YAML document; empty text means all defaults.
        name: what to call the text in messages.
        model: the section's type.
        overrides: ``section.key=value`` each, applied in order.

    Raises:
        ConfigError: one line per error, all of them.
    """
    source = parse_text(text, name)
    problems: list[str] = []
    for override in overrides:
        try:
            apply_override(source, override)
        except ConfigError as error:
            problems.append(str(error))
    problems.extend(source.problems)
    fill_tags(source.data, model)
    try:
        # By way of JSON: strict mode then takes lists for tuples, and text for paths and enums.
        validated = model.model_validate_json(json.dumps(source.data))
    except ValidationError as error:
        problems.extend(_messages(error.errors(include_url=False), source, model))
    if problems:
        problems.sort(key=lambda message: _sort_key(message, source))
        raise ConfigError("\n".join(problems))
    return validated


def load_mapping(values: Mapping[str, Any], model: type[M], name: str) -> M:
    """Return the configuration that a mapping of keys describes, as a YAML file of them would.

    Args:
        values: nested mappings; lists and tuples alike.
        model: the section's type.
        name: what to call the mapping in messages.

    Raises:
        ConfigError: one line per error, all of them.
    """
    source = Source(name, copy.deepcopy(dict(values)))
    fill_tags(source.data, model)
    try:
        return model.model_validate(source.data, strict=False)
    except ValidationError as error:
        problems = _messages(error.errors(include_url=False), source, model)
        raise ConfigError("\n".join(problems)) from error


def load(path: str | FilePath, model: type[M], overrides: Sequence[str] = ()) -> M:
    """Return the configuration of a YAML file with overrides; see :func:`load_text`.

    Raises:
        ConfigError: the file is missing, not a file, not UTF-8, empty, or holds errors.
    """
    file = FilePath(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        known = sorted(str(near) for near in file.parent.glob("*.yaml"))
        hint = f" (there are: {', '.join(known)})" if known else ""
        raise ConfigError(f"{path}: no such configuration file{hint}") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path}: is a folder; name a YAML file in it") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if not text.strip():
        raise ConfigError(f"{path}: is empty; write {{}} for all defaults")
    return load_text(text, str(path), model, overrides)
