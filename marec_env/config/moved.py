"""Keys of the version before: where they are now, and which are gone.

An old file keeps working for one version. A key that has moved is taken to its new place, and a
line names it. A key that is gone, or that has no effect any more under its section's ``kind``, is
dropped where it stands at its old default, as it does in the resolved configuration of every old
run; at another value it is refused. The table is ``moved.yaml``.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from pydantic import BaseModel

from marec_env.config.fields import members
from marec_env.config.yaml_source import Path, Source, parse_text

__all__ = ["GONE", "MOVED", "apply_moves"]

_TABLE = parse_text(files("marec_env.config").joinpath("moved.yaml").read_text(), "moved.yaml").data
MOVED: dict[str, str] = _TABLE["moved"]
"""Old path: new path."""
GONE: dict[str, tuple[Any, str]] = {
    f"{section}.{key}": (default, instead)
    for instead, sections in _TABLE["gone"].items()
    for section, keys in sections.items()
    for key, default in keys.items()
}
"""Old path: its old default, and what came instead; nothing where other kinds still have it."""


def apply_moves(source: Source, model: type[BaseModel]) -> list[str]:
    """Bring parsed YAML of the version before to this one's keys.

    Args:
        source: changed in place; what is refused is added to its problems.
        model: what it is meant for.

    Returns:
        What to tell the user, a line each.
    """
    prefix = () if "environment" in model.model_fields else ("environment",)
    notes, dropped = [], []
    for old, new in MOVED.items():
        before, after = (_relative(path, prefix) for path in (old, new))
        if before is None or after is None or not _has(source.data, before):
            continue
        if _accepted(model, source.data, before):
            continue
        place = source.place(before, of_key=True)
        value = _take(source, before)
        if _has(source.data, after):
            source.problems.append(f"{place}: {old} is {new} now, which is given as well")
            continue
        _put(source, after, value, place)
        notes.append(f"{place}: {old} is {new} now; rename it, the next version refuses it")
    for old, (default, instead) in GONE.items():
        path = _relative(old, prefix)
        if path is None or not _has(source.data, path) or _accepted(model, source.data, path):
            continue
        value = _at(source.data, path)
        if _is_default(value, default):
            _take(source, path)
            dropped.append(old)
        elif instead:
            place = source.place(path, of_key=True)
            source.problems.append(f"{place}: {'.'.join(path)} is gone: {instead}")
            _take(source, path)
    if dropped:
        notes.append(
            f"{source.name}: written by an older version; without effect there and dropped: "
            f"{', '.join(dropped[:3])}{', ...' if len(dropped) > 3 else ''} ({len(dropped)} in all)"
        )
    return notes


def _relative(path: str, prefix: tuple[str, ...]) -> tuple[str, ...] | None:
    parts = tuple(path.split("."))
    return parts[len(prefix) :] if parts[: len(prefix)] == prefix else None


def _at(data: Any, path: Path) -> Any:
    for part in path:
        data = data[part]
    return data


def _has(data: Any, path: Path) -> bool:
    for part in path:
        if not isinstance(data, dict) or part not in data:
            return False
        data = data[part]
    return True


def _take(source: Source, path: Path) -> Any:
    """Remove a value, and the sections that this leaves empty."""
    value = _at(source.data, path[:-1]).pop(path[-1])
    while len(path) > 1 and not _at(source.data, path := path[:-1]):
        _at(source.data, path[:-1]).pop(path[-1])
    return value


def _put(source: Source, path: Path, value: Any, place: str) -> None:
    below = source.data
    for part in path[:-1]:
        below = below.setdefault(part, {})
    below[path[-1]] = value
    source.values[path] = source.keys[path] = place


def _accepted(model: type[BaseModel], data: Any, path: Path) -> bool:
    """Return whether the section that ``data`` chooses has the last key of the path."""
    sections = [model]
    for part in path[:-1]:
        data = data[part]
        sections = members(sections, str(part), data)
    return any(path[-1] in section.model_fields for section in sections)


def _is_default(value: Any, default: Any) -> bool:
    if isinstance(default, list):
        return value in default
    if isinstance(default, dict):
        return isinstance(value, dict) and value.items() <= default.items()
    return bool(value == default)
