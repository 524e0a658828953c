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


_ABSENT = object()


def apply_moves(source: Source, model: type[BaseModel]) -> list[str]:
    """Bring parsed YAML of the version before to this one's keys, in place; it notes as its problem
    what is refused.

    Returns:
        What to tell the user, a line each.
    """
    prefix = "" if "environment" in model.model_fields else "environment."
    notes, dropped = [], []

    def path_of(key: str) -> Path:
        return tuple(key.removeprefix(prefix).split("."))

    for old in (*MOVED, *GONE):
        path = path_of(old)
        value = source.at(path, _ABSENT)
        if not old.startswith(prefix) or value is _ABSENT or _accepted(model, source, path):
            continue
        place = source.place(path, of_key=True)
        if new := MOVED.get(old):
            source.take(path)
            if source.at(path_of(new), _ABSENT) is not _ABSENT:
                source.problems.append(f"{place}: {old} is {new} now, which is given as well")
                continue
            source.put(path_of(new), value, place)
            notes.append(f"{place}: {old} is {new} now; rename it, the next version refuses it")
            continue
        default, instead = GONE[old]
        if _is_default(value, default):
            dropped.append(old)
        elif instead:
            source.problems.append(f"{place}: {'.'.join(map(str, path))} is gone: {instead}")
        else:
            continue  # refused below its section's kind, which may be what is wrong
        source.take(path)
    if dropped:
        notes.append(
            f"{source.name}: written by an older version; without effect there and dropped: "
            f"{', '.join(dropped[:3])}{', ...' if len(dropped) > 3 else ''} ({len(dropped)} in all)"
        )
    return notes


def _accepted(model: type[BaseModel], source: Source, path: Path) -> bool:
    """Return whether the section that the source chooses has the last key of the path."""
    sections = [model]
    for depth, part in enumerate(path[:-1], start=1):
        sections = members(sections, str(part), source.at(path[:depth]))
    return any(path[-1] in section.model_fields for section in sections)


def _is_default(value: Any, default: Any) -> bool:
    if isinstance(default, list):
        return value in default
    if isinstance(default, dict):
        return isinstance(value, dict) and value.items() <= default.items()
    return bool(value == default)
