"""YAML as plain data that remembers where every key and value was written; and back.

Scalars follow the core schema of YAML 1.2 rather than PyYAML's 1.1: ``3e-4`` is a number, ``on``
and ``no`` are words, ``1:30`` is not sixty times anything, and underscores may group digits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic import BaseModel

from marec_env.errors import ConfigError, visible

Path = tuple[str | int, ...]
"""Keys and list indices from the root to a value."""

_MAX_DEPTH = 64  # deeper nesting is a mistake, or an anchor that contains itself
_MAX_NODES = 100_000  # values after aliases are written out: a bomb of them is no configuration
_MAX_DIGITS = 100  # a longer run of digits is an identifier
_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_INT = re.compile(rf"[-+]?{_DIGITS}")
_FLOAT = re.compile(rf"[-+]?(\.{_DIGITS}|{_DIGITS}(\.({_DIGITS})?)?)([eE][-+]?[0-9]+)?")
_WORDS: Mapping[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    ".inf": math.inf,
    "+.inf": math.inf,
    "-.inf": -math.inf,
    ".nan": math.nan,
}


@dataclass(slots=True)
class Source:
    """Parsed YAML: the data, and the places (``file:line:col``) of its keys and values."""

    name: str
    data: Any
    values: dict[Path, str] = field(default_factory=dict)
    keys: dict[Path, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """Finished messages about what is legal YAML but not accepted (duplicate keys, tags)."""

    def place(self, path: Path, *, of_key: bool = False) -> str:
        """Return where ``path`` was written, or its nearest written ancestor."""
        if of_key and path in self.keys:
            return self.keys[path]
        while path not in self.values and path:
            path = path[:-1]
        return self.values.get(path, self.name)

    def at(self, path: Path, otherwise: Any = None) -> Any:
        """Return the value at ``path``, or ``otherwise`` where there is none."""
        found = self.data
        for part in path:
            try:
                found = found[part]
            except (KeyError, IndexError, TypeError):
                return otherwise
        return found

    def put(self, path: Path, value: Any, place: str) -> None:
        """Set a value that was written at ``place``; sections on the way are made if missing."""
        below = self.data
        for part in path[:-1]:
            below = below.setdefault(part, {}) if isinstance(below, dict) else below[part]
        below[path[-1]] = value
        for places in (self.values, self.keys):
            for known in [known for known in places if known[: len(path)] == path]:
                del places[known]
            places[path] = place

    def take(self, path: Path) -> Any:
        """Remove and return a value, with the sections that this leaves empty."""
        value = self.at(path[:-1]).pop(path[-1])
        if len(path) > 1 and not self.at(path[:-1]):
            self.take(path[:-1])
        return value


def _scalar(text: str) -> object:
    """Return the value of an unquoted scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text) and len(text) <= _MAX_DIGITS:
        return int(text)
    if _FLOAT.fullmatch(text) and len(text) <= _MAX_DIGITS:
        return float(text.replace("_", ""))
    return text


def _mark(name: str, mark: yaml.Mark) -> str:
    return f"{visible(name)}:{mark.line + 1}:{mark.column + 1}"


def _show(path: Path) -> str:
    return visible(".".join(str(part) for part in path))


def _compose(text: str, name: str) -> yaml.Node | None:
    """Return the root node of the only document of ``text``, ``None`` if there is none."""
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = _mark(name, mark) if mark else name
        problem = error.problem or error.context or "not valid YAML"
        if "'\\t'" in problem:
            problem = "a tab cannot indent YAML; use spaces"
        elif "single document" in (error.context or ""):
            problem = "a second document begins here; one file holds one configuration"
        raise ConfigError(f"{place}: {problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not readable as YAML: {str(error).splitlines()[0]}") from error
    except RecursionError as error:
        raise ConfigError(f"{name}: nested too deeply") from error


def _construct(node: yaml.Node, path: Path, source: Source) -> Any:
    source.values[path] = _mark(source.name, node.start_mark)
    if len(source.values) + len(source.keys) > _MAX_NODES:
        raise ConfigError(f"{source.name}: holds more than {_MAX_NODES:,} values, aliases counted")
    if len(path) > _MAX_DEPTH:
        raise ConfigError(f"{source.values[path]}: nested deeper than {_MAX_DEPTH} levels")
    if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
        source.problems.append(
            f"{source.values[path]}: {_show(path)}: tag '{node.tag}' is not accepted; remove it"
        )
        return None
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node.value) if node.style is None else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, (*path, i), source) for i, item in enumerate(node.value)]
    assert isinstance(node, yaml.MappingNode)
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        place = _mark(source.name, key_node.start_mark)
        if not isinstance(key_node, yaml.ScalarNode):
            source.problems.append(f"{place}: {_show(path)}: a key must be a plain word")
            continue
        key = str(key_node.value)
        below = (*path, key)
        if key in mapping:
            source.problems.append(
                f"{place}: {_show(below)}: duplicate key; first given at {source.keys[below]}"
            )
            continue
        source.keys[below] = place
        mapping[key] = _construct(value_node, below, source)
    return mapping


def parse_text(text: str, name: str) -> Source:
    """Return the data of a YAML text with its places; empty text is an empty mapping.

    Raises:
        ConfigError: the text is not YAML, or its root is not a mapping.
    """
    node = _compose(text, name)
    source = Source(name, {})
    if node is None:
        source.values[()] = f"{name}:1:1"
        return source
    source.data = _construct(node, (), source)
    if not isinstance(source.data, dict):
        raise ConfigError(
            f"{source.values[()]}: expected 'key: value' lines, found "
            f"{'a list' if isinstance(source.data, list) else 'a single value'}"
        )
    return source


def parse_value(text: str, name: str) -> Any:
    """Return the value of a one-line YAML text such as ``3e-4``, ``[1, 2]`` or ``{kind: ippo}``."""
    node = _compose(text, name)
    if node is None:
        return None
    source = Source(name, None)
    value = _construct(node, (), source)
    if source.problems:
        raise ConfigError(source.problems[0])
    return value


def _key(container: Any, part: str, path: Path, label: str) -> str | int:
    """Return the key or index that ``part`` means in a container, which lies at ``path``."""
    if isinstance(container, dict):
        return part
    shown = ".".join(map(str, path))
    if not isinstance(container, list):
        raise ConfigError(f"{label}: '{shown}' is a value ({container!r}), not a section")
    if not part.isdigit() or int(part) >= len(container):
        raise ConfigError(
            f"{label}: '{shown}' is a list of {len(container)}; '{part}' is not an index from 0 to "
            f"{len(container) - 1}"
        )
    return int(part)


def apply_override(
    source: Source, override: str, missing: Callable[[Path], dict[str, Any]] = lambda path: {}
) -> None:
    """Set ``a.b.c=value``, the value being YAML; its place becomes the override's own text.

    Args:
        source: changed in place.
        override: sets the one key; what lies beside it stays.
        missing: from the path of a section that the source leaves out to what it holds then.

    Raises:
        ConfigError: no ``=``, an empty key, invalid YAML, or a path through a value.
    """
    label = visible(f"--set {override}")
    name, equals, text = override.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"{label}: expected section.key=value")
    value = parse_value(text, label)
    path: Path = ()
    for part in parts:
        container = source.at(path)
        if container is None:
            source.put(path, container := missing(path), label)
        path = (*path, _key(container, part, path, label))
    source.put(path, value, label)


class _Dumper(yaml.SafeDumper):
    """Quotes text so that readers of YAML 1.1 and of 1.2 both take it for text."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if _scalar(text) == text else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


def _section(dumper: yaml.SafeDumper, section: dict[str, Any]) -> yaml.MappingNode:
    # A section's kind decides what else it may hold, so it comes first.
    entries = sorted(section.items(), key=lambda entry: entry[0] != "kind")
    return dumper.represent_mapping("tag:yaml.org,2002:map", entries)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(dict, _section)


def dump(model: BaseModel) -> str:
    """Return a whole configuration as YAML that :func:`marec_env.config.loader.load` reads back
    equal.
    """
    written: str = yaml.dump(
        model.model_dump(mode="json"),
        Dumper=_Dumper,
        sort_keys=False,
        default_flow_style=None,
        width=100,
    )
    return written
