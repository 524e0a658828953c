"""Keys of the version before: where they are now, and which are gone.

An old file keeps working for one version. A key that has moved is taken to its new place, and a
line names it. A key that is gone, or that has no effect any more under its section's ``kind``, is
dropped where it stands at its old default, as it does in the resolved configuration of every old
run; at another value it is refused. Entries are paths in a run's file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from marec_env.config.fields import members
from marec_env.config.yaml_source import Path, Source

__all__ = ["GONE", "MOVED", "apply_moves"]

MOVED: Mapping[str, str] = {
    "environment.pipeline.probe_items": "environment.measure.probe_items",
    "environment.pipeline.true_top": "environment.measure.true_top",
}
"""Old path: new path."""

_CONSTANT = "it is a constant now, beside the code that uses it"
_SETTINGS = "settings of a user model stand in users.settings"
_U = "environment.users"
GONE: Mapping[str, tuple[Any, str]] = {
    f"{_U}.boredom.window": (5, ""),
    f"{_U}.boredom.max_clicks": (10, ""),
    f"{_U}.boredom.clicks": (5, ""),
    f"{_U}.boredom.duration": (5, ""),
    f"{_U}.boredom.weight": (9.0, ""),
    f"{_U}.boredom.memory": (0.75, ""),
    f"{_U}.boredom.threshold": (0.12, ""),
    f"{_U}.boredom.saturation": (0.3, ""),
    f"{_U}.boredom.susceptible_share": ((0.5, 0.0), ""),
    f"{_U}.examination.stop_after_click": (0.0, ""),
    f"{_U}.choice.no_click": (0.0, ""),
    f"{_U}.choice.min_score": (-1.0, ""),
    f"{_U}.choice.score_scaling": (0.5, ""),
    f"{_U}.drift.mean": ("per_axis", "the published defect is users.model sardine/as_published"),
    f"{_U}.drift.inertia": (0.95, ""),
    f"{_U}.drift.step": (0.02, ""),
    f"{_U}.drift.gain": (0.1, ""),
    f"{_U}.patience.initial": (1.0, ""),
    f"{_U}.patience.maximum": (2.0, ""),
    f"{_U}.patience.gain": (1.4, ""),
    f"{_U}.patience.cost": (0.17, ""),
    f"{_U}.patience.hazard": (0.5, ""),
    f"{_U}.patience.hazard_slope": (2.0, ""),
    f"{_U}.behaviours.follow_slope": (0.5, _CONSTANT),
    f"{_U}.behaviours.completion_offset": (None, _CONSTANT),
    f"{_U}.behaviours.completion_slope": (1.5, _CONSTANT),
    f"{_U}.behaviours.completion_noise": (1.5, _CONSTANT),
    f"{_U}.price.level_spread": (0.5, _CONSTANT),
    f"{_U}.wear_out.memory": (0.9, _CONSTANT),
    f"{_U}.friends.near": (6, _CONSTANT),
    f"{_U}.friends.chance": (3, _CONSTANT),
    f"{_U}.friends.met": (60, _CONSTANT),
    f"{_U}.friends.activity": (0.1, _CONSTANT),
    f"{_U}.friends.memory": (0.9, _CONSTANT),
    f"{_U}.holding.selling_days": (0.1, _CONSTANT),
    f"{_U}.holding.realised_gain": (0.148, _CONSTANT),
    f"{_U}.holding.realised_loss": (0.098, _CONSTANT),
    f"{_U}.holding.max_days": (60, _CONSTANT),
    f"{_U}.interest_evolution": (
        {
            "budget": 200.0,
            "length": 4.0,
            "no_click": 1.0,
            "min_score": -1.0,
            "quality_gain": 0.9 / 3.4,
            "no_click_cost": 0.5,
            "step": 0.3,
        },
        _SETTINGS,
    ),
    f"{_U}.long_term_satisfaction": (
        {
            "memory": 0.7,
            "sensitivity": 0.3,
            "innovation": 0.05,
            "clickbait_mean": 5.0,
            "quality_mean": 4.0,
            "deviation": 1.0,
            "requests": 60,
        },
        _SETTINGS,
    ),
    f"{_U}.kuaisim": (
        {
            "level": "session",
            "probability": "sigmoid",
            "similarity": "cosine",
            "diversity_weight": 0.2,
            "temper": 20.0,
            "leave_below": 1.0,
            "tolerance": 2.0,
            "requests": 5,
            "sessions": 6,
            "return_base": 0.4,
            "return_slope": 0.1,
            "return_spread": 0.1,
            "max_gap": 10,
        },
        _SETTINGS,
    ),
    "environment.pipeline.recall.recent_clicks": (8, _CONSTANT),
    "environment.pipeline.recall.neighbours": (16, _CONSTANT),
    "environment.pipeline.recall.fresh_share": (0.25, _CONSTANT),
    "environment.pipeline.ranking": (
        {
            "max_weight": 2.0,
            "max_diversity": 2.0,
            "min_temperature": 0.01,
            "max_temperature": 1.0,
        },
        _CONSTANT,
    ),
    "environment.pipeline.trainer.ridge": (1.0, _CONSTANT),
    "environment.pipeline.trainer.unclicked_weight": (0.2, _CONSTANT),
    "environment.pipeline.trainer.blend": (1.0, _CONSTANT),
    "environment.pipeline.messages.topology": ("downstream", ""),
    "environment.pipeline.messages.dim": (4, ""),
    "environment.pipeline.messages.every": (1, ""),
    "environment.pipeline.messages.delay": (0, ""),
    "environment.pipeline.messages.noise": (0.0, ""),
    "environment.pipeline.messages.bandwidth_cost": (0.0, ""),
}
"""Old path: its old default (a tuple of defaults, a section of them), and what came instead."""


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
    if isinstance(default, tuple):
        return value in default
    if isinstance(default, dict):
        return isinstance(value, dict) and value.items() <= default.items()
    return bool(value == default)
