"""Command-line overrides, ``--set section.key=value``, applied to parsed YAML."""

from __future__ import annotations

from typing import Any

from marec_env.config.yaml_source import Path, Source, parse_value
from marec_env.errors import ConfigError, visible

__all__ = ["apply_override"]


def _child(container: Any, key: str, shown: str, label: str) -> tuple[Any, str | int]:
    """Return the container and the key or index that ``key`` means in it.

    Raises:
        ConfigError: ``container`` has no parts, or is a list and ``key`` is no index of it.
    """
    if isinstance(container, dict):
        return container, key
    if isinstance(container, list):
        if not key.isdigit() or int(key) >= len(container):
            raise ConfigError(
                f"{label}: '{shown}' is a list of {len(container)}; "
                f"'{key}' is not an index from 0 to {len(container) - 1}"
            )
        return container, int(key)
    raise ConfigError(f"{label}: '{shown}' is a value ({container!r}), not a section")


def apply_override(source: Source, override: str) -> None:
    """Set one value in ``source``, whose place becomes the override's own text.

    Args:
        source: changed in place; sections on the way are made if missing.
        override: ``a.b.c=value``, the value being YAML (``3e-4``, ``[1, 2]``, ``{kind: ippo}``).

    Raises:
        ConfigError: no ``=``, an empty key, invalid YAML, or a path through a value.
    """
    label = visible(f"--set {override}")
    name, equals, text = override.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"{label}: expected section.key=value")
    value = parse_value(text, label)
    container: Any = source.data
    path: Path = ()
    for part in parts[:-1]:
        container, key = _child(container, part, ".".join(map(str, path)), label)
        path = (*path, key)
        if isinstance(container, dict) and container.get(part) is None:
            container[part] = {}
            source.keys[path] = source.values[path] = label
        container = container[key]
    container, key = _child(container, parts[-1], ".".join(map(str, path)), label)
    path = (*path, key)
    container[key] = value
    for places in (source.values, source.keys):
        for below in [known for known in places if known[: len(path)] == path]:
            del places[below]
        places[path] = label
