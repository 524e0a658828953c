"""What a hyper-parameter search varies, and the proof that every point of it is a valid run."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from agents.config import RunConfig
from marec_env.config import ConfigModel, Seed
from marec_env.config.loader import load
from marec_env.errors import ConfigError

__all__ = ["Axis", "SearchConfig", "overrides_of", "points", "validate_points"]

Value = bool | int | float | str | None | list[Any] | dict[str, Any]
_MAX_CORNERS = 512
"""Combinations of extremes that are checked before an adaptive search; further ones are not."""


class Axis(ConfigModel):
    """The values of one key: a list of choices, or a range."""

    choice: list[Value] | None = Field(default=None, description="Values to choose among.")
    uniform: tuple[float, float] | None = Field(
        default=None, strict=False, description="Lower and upper bound, all equally likely."
    )
    log_uniform: tuple[float, float] | None = Field(
        default=None, strict=False, description="The same for the logarithm."
    )
    integer: tuple[int, int] | None = Field(
        default=None, strict=False, description="Least and greatest whole number."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Axis:
        given = [name for name in ("choice", "uniform", "log_uniform", "integer")
                 if getattr(self, name) is not None]  # fmt: skip
        if len(given) != 1:
            raise ValueError("give exactly one of choice, uniform, log_uniform, integer")
        bounds = self.bounds
        if bounds is not None and not bounds[0] < bounds[1]:
            raise ValueError(f"the lower bound {bounds[0]} is not below the upper {bounds[1]}")
        if self.log_uniform is not None and self.log_uniform[0] <= 0:
            raise ValueError("log_uniform needs bounds above 0")
        if self.choice is not None and not self.choice:
            raise ValueError("choice needs at least one value")
        return self

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Bounds of a range; None for choices."""
        return self.uniform or self.log_uniform or self.integer

    def extremes(self) -> list[Value]:
        """Return all choices, or both bounds."""
        return list(self.choice) if self.choice is not None else list(self.bounds or ())

    def draw(self, generator: np.random.Generator) -> Value:
        """Return one value."""
        if self.choice is not None:
            return self.choice[int(generator.integers(len(self.choice)))]
        if self.integer is not None:
            return int(generator.integers(self.integer[0], self.integer[1] + 1))
        if self.log_uniform is not None:
            low, high = np.log(self.log_uniform)
            return float(np.exp(generator.uniform(low, high)))
        assert self.uniform is not None
        return float(generator.uniform(*self.uniform))


class SearchConfig(ConfigModel):
    """A search over the keys of a run's YAML."""

    base: str = Field(description="YAML of the run; the search changes keys of it.")
    method: Literal["grid", "random", "optuna"] = Field(
        default="random",
        description="grid: every combination of choices; random: independent draws; optuna: the"
        " tree-structured Parzen estimator.",
    )
    trials: int = Field(default=16, ge=1, description="Trials of random and optuna.")
    seed: Seed = Field(default=0, description="Of the draws.")
    seeds: tuple[Seed, ...] = Field(
        default=(0,), strict=False, min_length=1, description="Run seeds averaged in each trial."
    )
    metric: str = Field(
        default="episode/return", description="Name of the trainer's metric that is compared."
    )
    mode: Literal["max", "min"] = Field(default="max", description="Which end is better.")
    last: int = Field(default=10, ge=1, description="Last iterations over which it is averaged.")
    env_steps: int = Field(default=100_000, ge=1, description="Budget of each run.")
    jobs: int = Field(default=2, ge=1, description="Trials at once, one thread each.")
    output: str = Field(default="runs/search", min_length=1, description="Folder of the results.")
    space: dict[str, Axis] = Field(
        min_length=1, description="By dotted key of the run's YAML: what to try."
    )

    @model_validator(mode="after")
    def _grid_has_choices(self) -> SearchConfig:
        ranges = [key for key, axis in self.space.items() if axis.choice is None]
        if self.method == "grid" and ranges:
            raise ValueError(f"method grid needs choices, but {', '.join(ranges)} is a range")
        return self


def overrides_of(point: Mapping[str, Value]) -> list[str]:
    """Return a point as ``key=value`` arguments of train.py's ``--set``."""
    return [f"{key}={json.dumps(value)}" for key, value in point.items()]


def points(config: SearchConfig) -> list[dict[str, Value]]:
    """Return the points of a grid or random search; of an adaptive one, the corners of its space.

    Corners beyond the first 512 combinations are left out; each extreme then appears once.
    """
    keys, axes = list(config.space), list(config.space.values())
    if config.method == "random":
        generator = np.random.default_rng(config.seed)
        return [
            {key: axis.draw(generator) for key, axis in config.space.items()}
            for _ in range(config.trials)
        ]
    sides = [axis.extremes() for axis in axes]
    total = int(np.prod([len(side) for side in sides], dtype=np.float64))
    if config.method == "grid" or total <= _MAX_CORNERS:
        return [dict(zip(keys, values, strict=True)) for values in itertools.product(*sides)]
    first = {key: side[0] for key, side in zip(keys, sides, strict=True)}
    return [{**first, key: value} for key, side in zip(keys, sides, strict=True) for value in side]


def validate_points(config: SearchConfig, chosen: Sequence[Mapping[str, Value]]) -> None:
    """Check that every point is a valid run.

    Raises:
        ConfigError: names the first point that is not, and what is wrong with it.
    """
    if not Path(config.base).is_file():
        raise ConfigError(f"base: there is no file '{config.base}'")
    for number, point in enumerate(chosen):
        try:
            load(config.base, RunConfig, overrides_of(point))
        except ConfigError as error:
            told = ", ".join(overrides_of(point))
            raise ConfigError(f"point {number + 1} of the search ({told}): {error}") from error
