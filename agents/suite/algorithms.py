"""What the suite trains, as settings laid over a task's preset."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marec_env.config.yaml_source import parse_text
from marec_env.errors import ConfigError, unknown_name


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One column of the leaderboard."""

    told: str
    """What sets it apart, in a line."""
    settings: tuple[str, ...] = ()
    """``section.key=value`` each, laid over the task's preset."""
    at_home: bool = False
    """Trained in the environment of the evaluation, where that differs from the task's own."""
    begins_with: str | None = None
    """An algorithm whose run of the same seed gives the networks to begin with."""


_INDEPENDENT = ("algorithm.kind=ippo", "algorithm.reward=team_mean")
_OWN = ("algorithm.kind=ippo", "algorithm.reward=own")

ALGORITHMS: Mapping[str, Algorithm] = {
    "mappo": Algorithm("MAPPO: everybody is paid F, one critic of the state"),
    "ippo": Algorithm("IPPO paid F: a critic a component, of its observation", _INDEPENDENT),
    "happo": Algorithm("HAPPO: actors updated one after another", ("algorithm.kind=happo",)),
    "mappo-recurrent": Algorithm(
        "MAPPO with a GRU of 32 units in actors and critic",
        ("algorithm.actor.recurrent_units=32", "algorithm.critic.recurrent_units=32"),
    ),
    "mappo-messages": Algorithm(
        "MAPPO whose components also learn to send messages, of four numbers",
        ("environment.pipeline.messages={kind: learned, dim: 4}",),
    ),
    "ippo-own": Algorithm(
        "IPPO in which each component is paid its own f_i",
        (*_OWN, "environment.rewards.mode=own"),
    ),
    "ippo-difference": Algorithm(
        "IPPO paid difference rewards: F less F without the component's decision",
        (*_OWN, "environment.rewards.mode=difference"),
    ),
    "mappo-myopic": Algorithm(
        "MAPPO that looks no further than the request", ("algorithm.gamma=0",)
    ),
    "vdn": Algorithm(
        "VDN on discrete decisions, played greedily",
        (
            "environment.pipeline.actions=discrete",
            "algorithm={kind: vdn, network: {hidden: [32]}, learning_rate: 0.003, updates: 64, "
            "replay_size: 20480, epsilon_env_steps: 60000}",
            "evaluation.play=greedy",
        ),
    ),
    "mappo-home": Algorithm("MAPPO trained where it is evaluated", at_home=True),
    "mappo-continued": Algorithm(
        "MAPPO that goes on learning where it is evaluated", at_home=True, begins_with="mappo"
    ),
}
"""By the name of their column."""


def columns(names: Sequence[str]) -> dict[str, Algorithm]:
    """Return algorithms by the names of their columns, with those that they begin with before them.

    Args:
        names: of :data:`ALGORITHMS`, or YAML files of settings to lay over the tasks' presets,
            whose columns are called as the files are.

    Raises:
        ConfigError: one is unknown, or two columns are called alike.
    """
    found: dict[str, Algorithm] = {}
    for name in names:
        label, algorithm = _named(name)
        if found.get(label, algorithm) != algorithm:
            raise ConfigError(f"--algorithms: two are called '{label}'; rename the file")
        if algorithm.begins_with is not None:
            found.setdefault(algorithm.begins_with, ALGORITHMS[algorithm.begins_with])
        found.setdefault(label, algorithm)
    return found


def _named(name: str) -> tuple[str, Algorithm]:
    if name in ALGORITHMS:
        return name, ALGORITHMS[name]
    if not name.endswith(".yaml"):
        told = unknown_name("algorithm", name, ALGORITHMS)
        raise ConfigError(f"--algorithms: {told}; or name a YAML file of settings")
    source = parse_text(Path(name).read_text(encoding="utf-8"), name)
    return Path(name).stem, Algorithm(f"settings of {name}", tuple(_settings(source.data)))


def _settings(section: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the settings of nested sections; one that names its kind replaces the preset's."""
    for key, value in section.items():
        if isinstance(value, dict) and "kind" not in value:
            yield from _settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={json.dumps(value)}"
