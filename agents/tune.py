"""Hyper-parameter search over a run's YAML: ``python -m agents.tune SEARCH.yaml``.

Grid, random or Optuna search on Ray Tune. All points of a grid or random search, and the corners
of an adaptive one, are validated before the first trial starts.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from pydantic import Field, model_validator

from agents.commands.shared import Overrides
from agents.config import RunConfig
from marec_env.config import ConfigModel, Seed
from marec_env.config.loader import load
from marec_env.errors import ConfigError, unknown_name
from marec_env.io import write_json
from marec_env.registry import TRUSTED_FOLDERS

Value = bool | int | float | str | None | list[Any] | dict[str, Any]
_MAX_CORNERS = 512
"""Combinations of extremes that are checked before an adaptive search; further ones are not."""
_SCORE, _POINT = "score", "point"


class Axis(ConfigModel):
    """The values of one key: a list of choices, or a range."""

    choice: list[Value] | None = Field(
        default=None, min_length=1, description="Values to choose among."
    )
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
        if sum(value is not None for _, value in self) != 1:
            raise ValueError(f"give exactly one of {', '.join(type(self).model_fields)}")
        low, high = self.uniform or self.log_uniform or self.integer or (0, 1)
        if not low < high:
            raise ValueError(f"the lower bound {low} is not below the upper {high}")
        if self.log_uniform is not None and low <= 0:
            raise ValueError("log_uniform needs bounds above 0")
        return self

    def extremes(self) -> list[Value]:
        """Return all choices, or both bounds."""
        return list(self.choice or self.uniform or self.log_uniform or self.integer or ())

    def domain(self) -> Any:
        """Return the values as Ray Tune describes them."""
        from ray import tune

        if self.choice is not None:
            return tune.choice(self.choice)
        if self.integer is not None:
            return tune.randint(self.integer[0], self.integer[1] + 1)
        if self.log_uniform is not None:
            return tune.loguniform(*self.log_uniform)
        return tune.uniform(*(self.uniform or ()))


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
    """Return a point as ``--set`` has it."""
    return [f"{key}={json.dumps(value)}" for key, value in point.items()]


def points(config: SearchConfig) -> list[dict[str, Value]]:
    """Return the points of a grid or random search; of an adaptive one, the corners of its space.

    Corners beyond the first 512 combinations are left out; each extreme then appears once.
    """
    if config.method == "random":
        generator = np.random.default_rng(config.seed)
        domains = {key: axis.domain() for key, axis in config.space.items()}
        return [
            {key: domain.sample(random_state=generator) for key, domain in domains.items()}
            for _ in range(config.trials)
        ]
    keys, sides = list(config.space), [axis.extremes() for axis in config.space.values()]
    if config.method == "grid" or math.prod(map(len, sides)) <= _MAX_CORNERS:
        return [dict(zip(keys, values, strict=True)) for values in itertools.product(*sides)]
    first = {key: side[0] for key, side in zip(keys, sides, strict=True)}
    return [{**first, key: value} for key, side in zip(keys, sides, strict=True) for value in side]


def _validate(config: SearchConfig, chosen: Sequence[Mapping[str, Value]]) -> None:
    """Check that every point is a valid run.

    Raises:
        ConfigError: names the first point that is not, and what is wrong with it.
    """
    for number, point in enumerate(chosen, start=1):
        told = overrides_of(point)
        try:
            load(config.base, RunConfig, told)
        except ConfigError as error:
            raise ConfigError(
                f"point {number} of the search ({', '.join(told)}): {error}"
            ) from error


def run_trial(config: SearchConfig, point: Mapping[str, Any]) -> float:
    """Train one point with each seed and return the mean of the metric at the end.

    Raises:
        ConfigError: the environment does not report the metric.
    """
    from agents.runs.environment import build_trainer

    scores = []
    for seed in config.seeds:
        run = load(config.base, RunConfig, [*overrides_of(point), f"seed={seed}"])
        history: list[float] = []
        with closing(build_trainer(run)) as trainer:
            while trainer.env_steps < config.env_steps:
                metrics = trainer.iterate()
                if config.metric in metrics:
                    history.append(metrics[config.metric])
        if not history:
            raise ConfigError(unknown_name("metric", config.metric, metrics))
        tail = history[-config.last :]
        scores.append(sum(tail) / len(tail))
    return sum(scores) / len(scores)


def run_search(config: SearchConfig) -> list[dict[str, Any]]:
    """Search, write ``results.json`` into ``config.output``, and return the trials, best first.

    Raises:
        ConfigError: a point is not a valid run; nothing has been started then.
    """
    chosen = points(config)
    _validate(config, chosen)
    import ray
    from ray import tune

    config = config.model_copy(update={"base": str(Path(config.base).absolute())})
    adaptive = config.method == "optuna"
    space = {key: axis.domain() for key, axis in config.space.items()}
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    # Trials run in folders of their own; what is trusted here is trusted there.
    trusted = [os.getcwd(), *filter(None, [os.environ.get(TRUSTED_FOLDERS)])]
    os.environ[TRUSTED_FOLDERS] = os.pathsep.join(trusted)
    algorithm = _optuna(config) if adaptive else None
    if started := not ray.is_initialized():
        ray.init(
            num_cpus=config.jobs, include_dashboard=False, log_to_driver=False,
            logging_level="ERROR",
        )  # fmt: skip
    try:
        tuner = tune.Tuner(
            tune.with_resources(_Trial(config, adaptive), {"cpu": 1}),
            param_space=space if adaptive else {_POINT: tune.grid_search(chosen)},
            tune_config=tune.TuneConfig(
                metric=_SCORE,
                mode=config.mode,
                num_samples=config.trials if adaptive else 1,
                search_alg=algorithm,
                max_concurrent_trials=config.jobs,
                reuse_actors=True,  # a process is slow to start
            ),
            run_config=tune.RunConfig(
                name="tune", storage_path=str(Path(config.output).absolute()), verbose=0
            ),
        )
        results = tuner.fit()
    finally:
        if started:
            ray.shutdown()
    trials: list[dict[str, Any]] = [
        {
            "set": overrides_of(result.config if adaptive else result.config[_POINT]),
            _SCORE: None if result.error else float(result.metrics[_SCORE]),
            "error": str(result.error) if result.error else None,
        }
        for result in results
    ]
    sign = -1.0 if config.mode == "max" else 1.0
    trials.sort(key=lambda t: math.inf if t[_SCORE] is None else sign * t[_SCORE])
    document = {"search": config.model_dump(mode="json"), "trials": trials}
    write_json(Path(config.output) / "results.json", document)
    return trials


class _Trial:
    """A function of a trial's parameters; Ray pickles it by reference to this module."""

    def __init__(self, config: SearchConfig, adaptive: bool) -> None:
        self._config, self._adaptive = config, adaptive
        self.__name__ = "marec"

    def __call__(self, parameters: Mapping[str, Any]) -> None:
        from ray import tune

        point = parameters if self._adaptive else parameters[_POINT]
        tune.report({_SCORE: run_trial(self._config, point)})


def _optuna(config: SearchConfig) -> Any:
    try:
        import optuna
        from ray.tune.search.optuna import OptunaSearch
    except ImportError as error:
        raise ConfigError("method optuna needs optuna: pip install 'marec[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return OptunaSearch(metric=_SCORE, mode=config.mode, seed=config.seed)


def command(
    search: Annotated[Path, typer.Argument(help="YAML of a search, see docs/learners.md.")],
    overrides: Overrides = None,
) -> int:
    """Search the keys of a run's YAML and print the trials, best first."""
    config = load(search, SearchConfig, overrides or [])
    trials = run_search(config)
    for trial in trials:
        score = "failed" if trial[_SCORE] is None else f"{trial[_SCORE]:.4f}"
        print(score, " ".join(f"--set {part}" for part in trial["set"]))
    print(f"Results: {Path(config.output) / 'results.json'}")
    return 0 if any(trial[_SCORE] is not None for trial in trials) else 1


if __name__ == "__main__":
    from agents.cli import run  # which imports this module by its name, as Ray's pickles do

    sys.exit(run("tune", sys.argv[1:]))
