"""Hyper-parameter search over a run's YAML: ``python -m agents.tune SEARCH.yaml``.

Grid, random or Optuna search on Ray Tune. All points of a grid or random search, and the corners
of an adaptive one, are validated before the first trial starts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from agents.config import RunConfig
from agents.tune_space import Axis, SearchConfig, overrides_of, points, validate_points
from marec_env.config.loader import load
from marec_env.errors import ConfigError, unknown_name
from marec_env.io import write_json

__all__ = ["run_search", "run_trial"]

_SCORE = "score"
_POINT = "point"


def run_trial(config: SearchConfig, point: Mapping[str, Any]) -> float:
    """Train one point with each seed and return the mean of the metric at the end.

    Raises:
        ConfigError: the environment does not report the metric.
    """
    from agents.runs.environment import build_trainer

    scores = []
    for seed in config.seeds:
        run = load(config.base, RunConfig, [*overrides_of(point), f"seed={seed}"])
        trainer = build_trainer(run)
        history: list[float] = []
        try:
            while trainer.env_steps < config.env_steps:
                metrics = trainer.iterate()
                if config.metric in metrics:
                    history.append(metrics[config.metric])
        finally:
            trainer.close()
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
    validate_points(config, chosen)
    import ray
    from ray import tune

    base = str(Path(config.base).absolute())
    config = config.model_copy(update={"base": base})
    started = not ray.is_initialized()
    if started:
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
        ray.init(
            num_cpus=config.jobs,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    try:
        adaptive = config.method == "optuna"
        space = (
            {key: _domain(axis) for key, axis in config.space.items()}
            if adaptive
            else {_POINT: tune.grid_search(chosen)}
        )
        tuner = tune.Tuner(
            tune.with_resources(_Trial(config, adaptive), {"cpu": 1}),
            param_space=space,
            tune_config=tune.TuneConfig(
                metric=_SCORE,
                mode=config.mode,
                num_samples=config.trials if adaptive else 1,
                search_alg=_optuna(config) if adaptive else None,
                max_concurrent_trials=config.jobs,
            ),
            run_config=tune.RunConfig(
                name="tune", storage_path=str(Path(config.output).absolute()), verbose=0
            ),
        )
        results = tuner.fit()
    finally:
        if started:
            ray.shutdown()
    trials = []
    for result in results:
        tried = dict(result.config) if adaptive else dict(result.config[_POINT])
        score = None if result.error else float(result.metrics[_SCORE])
        trials.append({"set": overrides_of(tried), _SCORE: score,
                       "error": str(result.error) if result.error else None})  # fmt: skip
    sign = -1.0 if config.mode == "max" else 1.0

    def rank(trial: Mapping[str, Any]) -> float:
        score: float | None = trial[_SCORE]
        return float("inf") if score is None else sign * score

    trials.sort(key=rank)
    write_json(
        Path(config.output) / "results.json",
        {"search": config.model_dump(mode="json"), "trials": trials},
    )
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


def _domain(axis: Axis) -> Any:
    from ray import tune

    if axis.choice is not None:
        return tune.choice(axis.choice)
    if axis.integer is not None:
        return tune.randint(axis.integer[0], axis.integer[1] + 1)
    if axis.log_uniform is not None:
        return tune.loguniform(*axis.log_uniform)
    assert axis.uniform is not None
    return tune.uniform(*axis.uniform)


def _optuna(config: SearchConfig) -> Any:
    try:
        import optuna
        from ray.tune.search.optuna import OptunaSearch
    except ImportError as error:
        raise ConfigError("method optuna needs optuna: pip install 'marec[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return OptunaSearch(metric=_SCORE, mode=config.mode, seed=config.seed)


def _main(
    search: Annotated[Path, typer.Argument(help="YAML of a search, see docs/learners.md.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key.")
    ] = None,
) -> None:
    """Search the keys of a run's YAML and print the trials, best first."""
    from agents.entry import run_command

    def run() -> int:
        config = load(search, SearchConfig, overrides or [])
        trials = run_search(config)
        for trial in trials:
            score = "failed" if trial[_SCORE] is None else f"{trial[_SCORE]:.4f}"
            print(score, " ".join(f"--set {part}" for part in trial["set"]))
        print(f"Results: {Path(config.output) / 'results.json'}")
        return 0 if any(trial[_SCORE] is not None for trial in trials) else 1

    raise typer.Exit(run_command(run))


if __name__ == "__main__":
    typer.run(_main)
