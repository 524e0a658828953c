"""YAML files and command-line overrides into typed configuration, with errors that name the place.

Every error of a file is reported at once, one a line:
``file:line:col: section.key: what is wrong (got VALUE); what is allowed; did you mean``.
"""

from __future__ import annotations

import copy
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path as FilePath
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from marec_env.config import ConfigModel
from marec_env.config.fields import default_entries, describe, fill_tags
from marec_env.config.moved import apply_moves
from marec_env.config.yaml_source import Path, Source, apply_override, parse_text
from marec_env.errors import ConfigError, unknown_name, visible
from marec_env.registry import is_place, judge, search_in, trust, trusted
from marec_env.shipped import preset_names

EXTENDS = "extends"
"""Key of a file that builds on another."""

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


def _line_and_column(message: str, source: Source) -> tuple[int, int]:
    """Order messages by line and column; overrides, which have neither, come last."""
    found = re.match(r"(\d+):(\d+):", message.removeprefix(f"{source.name}:"))
    return (int(found[1]), int(found[2])) if found else (sys.maxsize, 0)


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
        shown = visible(".".join(map(str, path)))
        reasons.setdefault((place, shown), []).append(what)
    return [
        ": ".join(part for part in (place, shown, "; or ".join(dict.fromkeys(what))) if part)
        for (place, shown), what in reasons.items()
    ]


def _validated(
    source: Source, model: type[M], overrides: Sequence[str] = (), *, strict: bool = True
) -> M:
    """Return what a source describes, with overrides and in this version's keys.

    Raises:
        ConfigError: one line per error, all of them.
    """
    problems: list[str] = []
    for override in overrides:
        try:
            apply_override(source, override, partial(default_entries, model))
        except ConfigError as error:
            problems.append(str(error))
    fill_tags(source.data, model)
    for note in apply_moves(source, model):
        print(f"note: {visible(note)}", file=sys.stderr)
    fill_tags(source.data, model)
    problems.extend(source.problems)
    try:
        if strict:
            # By way of JSON: strict mode then takes lists for tuples, and text for paths and enums.
            validated = model.model_validate_json(json.dumps(source.data))
        else:
            validated = model.model_validate(source.data, strict=False)
    except ValidationError as error:
        problems.extend(_messages(error.errors(include_url=False), source, model))
    if problems:
        problems.sort(key=lambda message: _line_and_column(message, source))
        raise ConfigError("\n".join(problems))
    return validated


def load_text(text: str, name: str, model: type[M], overrides: Sequence[str] = ()) -> M:
    """Return the configuration that a YAML text, called ``name`` in messages, and overrides
    (``section.key=value`` each, in order) describe; empty text means all defaults.

    Raises:
        ConfigError: one line per error, all of them.
    """
    return _validated(parse_text(text, name), model, overrides)


def load_mapping(values: Mapping[str, Any], model: type[M], name: str) -> M:
    """Return the configuration that nested mappings describe, as a YAML file of them would; errors
    as in :func:`load_text`.
    """
    return _validated(Source(name, copy.deepcopy(dict(values))), model, strict=False)


def load(path: str | FilePath, model: type[M], overrides: Sequence[str] = ()) -> M:
    """Return the configuration of a YAML file with overrides; see :func:`load_text`.

    A preset goes by its name, ``quick``, where there is no such file. A file may say ``extends:
    FILE`` (a place relative to its own, or a preset): what it holds then stands on top of that
    file, key by key; a section that names another ``kind`` replaces the whole section.

    Raises:
        ConfigError: the file is missing, not a file, not UTF-8, empty, extends itself, or holds
            errors; each is told with the file that holds it.
    """
    source = _source_of(_located(FilePath(path)), ())
    _judge_plugins(source, overrides, FilePath(path))
    return _validated(source, model, overrides)


def _located(file: FilePath) -> FilePath:
    """Return the file, or the preset of that name where there is none."""
    if os.path.exists(file) or file.suffix or file.is_absolute():
        return file
    presets = preset_names()
    if str(file) not in presets:
        raise ConfigError(
            f"there is no file '{file}', and {unknown_name('preset', str(file), presets)}"
        )
    return presets[str(file)]


def _judge_plugins(source: Source, overrides: Sequence[str], file: FilePath) -> None:
    """Note which code a file may name; see :func:`marec_env.registry.judge`."""
    named = False
    for path, place in {**source.values, **source.keys}.items():
        for name in (*path[-1:], source.at(path)):
            if isinstance(name, str) and is_place(name):
                judge(name, place.rsplit(":", 2)[0], place)
                named = True
    for override in overrides:  # what is typed on the command line is meant
        for name in re.findall(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", override):
            trust(name)
            named = True
    if named and trusted(file):
        search_in(file.parent)


def _source_of(file: FilePath, chain: tuple[FilePath, ...]) -> Source:
    """Return a file's source on top of those it extends; ``chain`` are the files that led here."""
    source = parse_text(_read(file), str(file))
    if EXTENDS not in source.data:
        return source
    place, wanted = source.place((EXTENDS,)), source.data.pop(EXTENDS)
    if not isinstance(wanted, str) or not wanted.strip():
        raise ConfigError(f"{place}: {EXTENDS}: must be the place of a YAML file")
    below = file.parent / wanted
    if not below.exists():
        below = preset_names().get(wanted, below)
    chain = (*chain, file.resolve())
    if below.resolve() in chain:
        names = " -> ".join(step.name for step in (*chain, below))
        raise ConfigError(f"{place}: {EXTENDS}: the files extend one another: {names}")
    try:
        base = _source_of(below, chain)
    except ConfigError as error:
        if not below.is_file():
            raise ConfigError(f"{place}: {EXTENDS}: {error}") from error
        raise
    _stack(base, source, ())
    base.name = source.name
    base.problems += source.problems
    return base


def _stack(base: Source, top: Source, path: Path) -> None:
    """Put what ``top`` holds at ``path`` on top of ``base``, with its places."""
    for key, value in top.at(path).items():
        place, old = (*path, key), base.at((*path, key))
        kind = value.get("kind") if isinstance(value, dict) else None
        if isinstance(value, dict) and isinstance(old, dict) and kind in (None, old.get("kind")):
            _stack(base, top, place)
            continue
        base.put(place, value, top.keys[place])
        for known, added in ((base.keys, top.keys), (base.values, top.values)):
            known.update({k: v for k, v in added.items() if k[: len(place)] == place})


def _read(file: FilePath) -> str:
    """Return the text of a configuration file, which is not empty."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        known = sorted(str(near) for near in file.parent.glob("*.yaml"))
        hint = f" (there are: {', '.join(known)})" if known else ""
        raise ConfigError(f"{file}: no such configuration file{hint}") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{file}: is a folder; name a YAML file in it") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: byte {error.start} is not UTF-8; save it as UTF-8") from error
    except (OSError, ValueError) as error:  # too long a name, a NUL in it
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{file}: cannot be read: {reason}") from error
    if not re.sub(r"(?m)^\s*#.*$", "", text).strip():
        raise ConfigError(f"{file}: is empty; write {{}} for all defaults")
    return text
