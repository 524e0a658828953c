"""Runs the chosen parts on runs or on a configuration alone, and writes what they found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agents.baselines.teams import StaticTeam
from agents.studies.equilibrium.anarchy import anarchy_curves
from agents.studies.equilibrium.common import Finding, Play, Settings
from agents.studies.equilibrium.credit import credit, swaps
from agents.studies.equilibrium.decisions import PipelineGame
from agents.studies.equilibrium.exploitability import (
    course_of_training,
    exploitability,
)
from agents.studies.equilibrium.lineups import Replay
from agents.studies.equilibrium.matrix import matrix
from agents.studies.records import plain
from marec_env.config.loader import load_mapping
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError, unknown_name
from marec_env.io import write_json, write_text
from marec_env.reporting.page import Section, render_page
from marec_env.world import World, build_world

if TYPE_CHECKING:
    from agents.config import RunConfig
    from agents.runs.trained import TrainedRun

PARTS = ("exploitability", "course", "credit", "swaps", "matrix", "anarchy")
REPORT = ("equilibrium.json", "equilibrium.html")


def checked_parts(wanted: str) -> tuple[str, ...]:
    """Return the parts named in a comma-separated list, in the order of :data:`PARTS`.

    Raises:
        ConfigError: a part is unknown, or none is named.
    """
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    if not names:
        raise ConfigError(f"--parts names none of {', '.join(PARTS)}, all")
    for name in names:
        if name != "all" and name not in PARTS:
            raise ConfigError(unknown_name("part", name, (*PARTS, "all")))
    return tuple(part for part in PARTS if part in names or "all" in names)


@dataclass
class Study:
    """Everything that the parts work on."""

    config: RunConfig
    """Of the first run, or as given; its environment is the one that all plays meet."""
    runs: Mapping[str, TrainedRun]
    """By name."""
    settings: Settings
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        environment = self.config.recommender
        for name, run in self.runs.items():
            other = run.config.environment.model_copy(update={"rewards": environment.rewards})
            if other != environment:
                raise ConfigError(
                    f"run {name} was trained in another environment than "
                    f"{next(iter(self.runs))}; only 'rewards' may differ"
                )
        self.environment = environment
        self.replay = Replay(build_world(environment))
        self.static = Play("static", StaticTeam(self.replay.defaults))
        self.learned = [
            Play(name, run.policy, run.config.algorithm) for name, run in self.runs.items()
        ]

    def part(self, name: str) -> Iterator[Finding]:
        """Yield what a part found; nothing where the part needs runs that were not given.

        A long part yields what it has as it goes on; the last one is complete.
        """
        learned, settings = self.learned, self.settings
        if name == "anarchy":
            for width in settings.widths:  # refused now rather than when its turn comes
                self._world_of_width(width)
            yield from anarchy_curves(self._game_of_width, settings, self.say)
        elif name == "exploitability":
            yield exploitability(self, [self.static, *learned])
        elif name == "matrix":
            base, own = (learned[0], learned[0]) if learned else (self.static, None)
            yield matrix(self.replay, base, own, settings)
        elif name == "course" and learned:
            checkpoints = {name: run.policies() for name, run in self.runs.items()}
            yield course_of_training(self, checkpoints)
        elif name == "credit" and learned:
            yield credit(self.replay, learned, self.static, settings)
        elif name == "swaps" and len(learned) > 1:
            yield swaps(self.replay, learned, settings)

    def _game_of_width(self, width: int) -> PipelineGame:
        return PipelineGame(Replay(self._world_of_width(width)), self.settings.per)

    def _world_of_width(self, width: int) -> World:
        changed = self.environment.model_dump()
        changed["pipeline"]["candidates"] = width
        return build_world(load_mapping(changed, EnvironmentConfig, f"--widths {width}"))


def write_report(
    folder: Path,
    title: str,
    command: str,
    settings: Settings | None,
    found: Mapping[str, Finding],
) -> tuple[Path, ...]:
    """Write the findings of the parts, and the command that made them, as ``equilibrium.json`` and
    ``equilibrium.html``; return their places.
    """
    places = tuple(folder / name for name in REPORT)
    parts = {
        name: {"title": f.section.title, "warnings": list(f.section.notes), **f.record}
        for name, f in found.items()
    }
    budgets = {} if settings is None else plain(settings)
    write_json(places[0], plain({"command": command, "settings": budgets, "sections": parts}))
    how = Section("How this was made", verbatim=(command, json.dumps(budgets)))
    sections = [*(f.section for f in found.values()), how]
    write_text(places[1], render_page(title, (), (), sections))
    return places
