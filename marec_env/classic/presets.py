"""Ready-made tasks by name: users, a population, a slate size, a horizon and a reward.

``presets.yaml`` lists them. Where the published code of a classic task has a defect,
``as_published=True`` reproduces it and the default corrects it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from marec_env.catalog.population import Population
from marec_env.classic.populations import POPULATIONS
from marec_env.config.loader import load_mapping
from marec_env.data.scenarios import SCENARIOS
from marec_env.registry import Registry
from marec_env.scenarios import SCENARIO_USERS
from marec_env.users.base import Users
from marec_env.users.config import UsersConfig
from marec_env.users.registry import make_users


@dataclass(frozen=True, slots=True)
class Preset:
    """A task for a single recommender."""

    config: UsersConfig
    population: Callable[[int], Population]
    """From a seed."""
    slate_size: int
    horizon: int
    """Requests after which an episode is cut off."""
    reward: str = "click"
    """The behaviour whose sum over the slate is the request's reward; ``engagement``: that of the
    feedback."""
    candidates: int = 0
    """Items a request offers for the slate, drawn at random; 0: the whole catalog."""

    def users(
        self,
        num_sessions: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
        population: Population | None = None,
    ) -> Users:
        """Return the preset's users, of its own population unless another is given."""
        people = self.population(seed) if population is None else population
        return make_users(self.config, people, num_sessions, device)


PRESETS: Registry[Callable[[bool], Preset]] = Registry("user preset")


def get_preset(name: str, as_published: bool = False) -> Preset:
    """Return a preset.

    Args:
        name: one of ``PRESETS.names()``, or ``package.module:object`` of a function like theirs.
        as_published: whether to reproduce known defects of the published code.
    """
    return PRESETS.get(name)(as_published)


def _preset(name: str, task: dict[str, Any], as_published: bool) -> Preset:
    """Return the preset that ``presets.yaml`` describes by ``task``."""
    sizes = dict(task["population"])
    people = POPULATIONS.get(sizes.pop("kind"))
    users = task.get("users", {}) | (task.get("as_published", {}) if as_published else {})
    rest = {key: value for key, value in task.items() if key not in _SECTIONS}
    config = load_mapping(users, UsersConfig, f"preset {name}")
    return Preset(config, partial(people, **sizes), **rest)


_SECTIONS = ("population", "users", "as_published")
_TASKS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8")) | {
    f"scenario/{name}": {  # the users of a generated scenario among its true items
        "population": {"kind": "scenario", "name": name},
        "users": users,
        "slate_size": SCENARIOS.get(name).slate_size,
        "horizon": 40,
    }
    for name, users in SCENARIO_USERS.items()
}
for _name, _task in _TASKS.items():
    PRESETS.register(_name)(partial(_preset, _name, _task))
