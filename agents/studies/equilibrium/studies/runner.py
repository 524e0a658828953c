"""Runs the chosen studies on runs or on a configuration alone, and writes what they found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.baselines.teams import StaticTeam
from agents.studies.equilibrium.pipeline_game import PipelineGame
from agents.studies.equilibrium.replay import SimulatorReplay
from agents.studies.equilibrium.studies.anarchy import anarchy_curves
from agents.studies.equilibrium.studies.common import Play, Section, Settings
from agents.studies.equilibrium.studies.credit import credit, swaps
from agents.studies.equilibrium.studies.exploitability import (
    Responders,
    course_of_training,
    exploitability,
)
from agents.studies.equilibrium.studies.matrix import matrix_game_study
from agents.studies.equilibrium.studies.methods import Learned, methods_table
from agents.studies.equilibrium.studies.slopes import slopes
from agents.studies.equilibrium.trained import LoadedRun
from marec_env.config.loader import load_mapping
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError, unknown_name
from marec_env.io import write_json, write_text
from marec_env.reporting import page
from marec_env.simulator import Simulator
from marec_env.world import World, build_world

if TYPE_CHECKING:
    from agents.config import RunConfig

__all__ = ["PARTS", "Study", "checked_parts", "write_report"]

PARTS = ("exploitability", "course", "credit", "swaps", "slopes", "matrix", "methods", "anarchy")


def checked_parts(wanted: str) -> tuple[str, ...]:
    """Return the parts named in a comma-separated list, in the order of :data:`PARTS`.

    Raises:
        ConfigError: a part is unknown.
    """
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    for name in names:
        if name != "all" and name not in PARTS:
            raise ConfigError(unknown_name("part", name, (*PARTS, "all")))
    return tuple(part for part in PARTS if part in names or "all" in names)


@dataclass
class Study:
    """Everything that the parts work on."""

    config: RunConfig
    """Of the first run, or as given; its environment is the one that all plays meet."""
    runs: Sequence[LoadedRun]
    settings: Settings
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        environment = self.config.environment
        if not isinstance(environment, EnvironmentConfig):
            raise ConfigError("equilibrium studies need environment.kind 'marec'")
        for run in self.runs[1:]:
            if (
                run.config.environment.model_copy(update={"rewards": environment.rewards})
                != environment
            ):
                raise ConfigError(
                    f"run {run.name} was trained in another environment than "
                    f"{self.runs[0].name}; only 'rewards' may differ"
                )
        self.environment = environment
        self.world = build_world(environment)
        self.env = SimulatorReplay(self.world)
        self.defaults = self.env.default_actions()
        self.static = Play("static", StaticTeam(self.defaults))
        self.learned = [Play(run.name, run.team, run.config.algorithm) for run in self.runs]

    def responders(self) -> Responders:
        """Return who finds best responses."""
        return Responders(
            self.env,
            self.defaults,
            self.settings,
            lambda sessions: Simulator(self.world, sessions),
            self.config.algorithm,
            self.config.sampling,
        )

    def part(self, name: str) -> Iterator[Section]:
        """Yield a part's section; nothing where the part needs runs that were not given.

        A long part yields what it has as it goes on; the last one is complete.
        """
        if name == "anarchy":
            for width in self.settings.widths:  # refused now rather than when its turn comes
                self._world_of_width(width)
            yield from anarchy_curves(self._game_of_width, self.settings, self.say)
        elif (section := self._short_part(name)) is not None:
            yield section

    def _short_part(self, name: str) -> Section | None:
        learned, settings = self.learned, self.settings
        if name == "exploitability":
            return exploitability([self.static, *learned], self.responders())
        if name == "matrix":
            return matrix_game_study(
                self.env,
                self.environment.pipeline,
                self.defaults,
                learned[0] if learned else self.static,
                learned[0] if learned else None,
                settings,
            )
        if name == "methods":
            cost = [
                Learned(play, run.checkpoints[-1][0])
                for play, run in zip(learned, self.runs, strict=True)
            ]
            return methods_table(PipelineGame(self.env, self.defaults), cost, settings)
        if not learned or (name == "swaps" and len(learned) < 2):
            return None
        if name == "course":
            checkpoints = {run.name: run.checkpoints for run in self.runs}
            return course_of_training(checkpoints, self.responders())
        if name == "credit":
            return credit(self.env, learned, self.static, settings)
        if name == "swaps":
            return swaps(self.env, learned, settings)
        return slopes(self.env, learned, settings)

    def _game_of_width(self, width: int) -> PipelineGame:
        env = SimulatorReplay(self._world_of_width(width))
        return PipelineGame(env, env.default_actions(), per=self.settings.per)

    def _world_of_width(self, width: int) -> World:
        changed = self.environment.model_dump()
        changed["pipeline"]["candidates"] = width
        return build_world(load_mapping(changed, EnvironmentConfig, f"--widths {width}"))


def write_report(
    folder: Path, title: str, command: str, settings: dict[str, Any], sections: Sequence[Section]
) -> tuple[Path, Path]:
    """Write ``equilibrium.json`` and ``equilibrium.html`` and return their places."""
    places = folder / "equilibrium.json", folder / "equilibrium.html"
    document = {
        "command": command,
        "settings": settings,
        "sections": {
            s.name: {"title": s.title, "warnings": list(s.warnings), **s.record} for s in sections
        },
    }
    write_json(places[0], _finite(document))
    shown = [page.Section(s.title, s.tables, s.figures, notes=s.warnings) for s in sections]
    how = page.Section("How this was made", verbatim=(command, json.dumps(settings)))
    write_text(places[1], page.render_page(title, (), (), [*shown, how]))
    return places


def _finite(value: Any) -> Any:
    """Return the value with NaN, which JSON lacks, as null."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and value != value else value
