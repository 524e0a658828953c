"""``python evaluate.py off-policy RUN``: what another policy would earn, told from logs alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marec_env.reporting.table import TextTable, print_tables, table_console

if TYPE_CHECKING:
    from rich.console import Console

    from agents.studies.off_policy.logs import RequestLog

__all__ = ["command", "judge"]

_REPETITIONS = 50  # logs of each size
_SMALLEST_SHARE = 64  # the sizes are this fraction of the log, a fourth of it, and so on up


def command(
    run: Annotated[Path, typer.Argument(help="Run whose team makes the log, exploring.")],
    target: Annotated[
        Path | None,
        typer.Option(help="Run whose team is to be valued; by default the same one."),
    ] = None,
    exploration: Annotated[
        float | None,
        typer.Option(
            min=0.05,
            help="How much the target explores beside what its actors say; by default 1, "
            "or 0.8 where target and log are of one run.",
        ),
    ] = None,
    sessions: Annotated[int, typer.Option(min=64, help="Sessions of the log.")] = 1024,
    requests: Annotated[int, typer.Option(min=1, help="Requests of each session.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sessions.")] = 1,
    output: Annotated[
        Path | None, typer.Option(help="Folder of off_policy.json; the run's by default.")
    ] = None,
) -> None:
    """Estimate a target from a log's propensities; judge the estimates by the simulator's truth."""
    from agents.commands.evaluate import load_run_policy
    from agents.learners.policy import TrainedPolicy
    from agents.studies.off_policy.logs import record_logs
    from marec_env.errors import ConfigError
    from marec_env.io import write_json
    from marec_env.world import build_world

    _, environment, logging = load_run_policy(run)
    other, wanted = (environment, logging) if target is None else load_run_policy(target)[1:]
    for place, policy in ((run, logging), (target or run, wanted)):
        if not isinstance(policy, TrainedPolicy):
            raise ConfigError(f"{place}: only a trained team of actors has known probabilities")
    assert isinstance(logging, TrainedPolicy) and isinstance(wanted, TrainedPolicy)
    if other.pipeline != environment.pipeline:
        raise ConfigError(f"{target} has another pipeline than {run}; components must be the same")
    factor = (0.8 if target is None else 1.0) if exploration is None else exploration
    logs = record_logs(build_world(environment), logging, wanted, sessions, requests, seed, factor)
    console = table_console()
    document = {
        "log": str(run),
        "target": str(target or run),
        "exploration": factor,
        "seed": seed,
        "logs": {name: judge(name, log, console) for name, log in logs.items()},
    }
    place = (output or run) / "off_policy.json"
    write_json(place, document)
    typer.echo(f"written: {place}")


def judge(name: str, log: RequestLog, console: Console) -> dict[str, Any]:
    """Print the estimates of one log beside the truth and their errors by size; return both."""
    import numpy as np

    from agents.studies.off_policy.study import errors_by_size, estimates, fitted
    from marec_env.evaluation.off_policy import effective_sample_size
    from marec_env.evaluation.statistics import mean_estimate

    count = np.unique(log.session).size
    sizes = [max(4, count // (_SMALLEST_SHARE >> (2 * k))) for k in range(3)]
    found = estimates(log, fitted(log))
    errors = errors_by_size(log, sizes, _REPETITIONS)
    truth = mean_estimate(log.truth, log.session)
    worth = effective_sample_size(log.ratio)
    logged = float(log.reward.sum(axis=1).mean())
    rows = [
        (
            estimator,
            f"{estimate.value:.3f} ± {(estimate.high - estimate.low) / 2:.3f}",
            *(f"{entry.good[estimator]:.3f}" for entry in errors),
            f"{errors[-1].poor[estimator]:.3f}",
        )
        for estimator, estimate in found.items()
    ]
    table = TextTable(
        f"{name}: the target gets {truth.value:.3f} ± {(truth.high - truth.low) / 2:.3f} "
        f"clicks a request, the log {logged:.3f}; {log.session.size:,} requests, worth "
        f"{worth:,.0f} of the target's own",
        (
            "estimator",
            "from the whole log",
            *(f"error at {entry.sessions}" for entry in errors),
            f"poor, at {errors[-1].sessions}",
        ),
        rows,
        (
            "error: root mean square over logs of so many sessions; poor: with a model that says "
            "half the mean click rate of everything",
        ),
    )
    print_tables([table], console)
    return {
        "truth": truth.value,
        "logged": logged,
        "requests": int(log.session.size),
        "effective_requests": worth,
        "mean_ratio": float(log.ratio.mean()),
        "estimates": {name: estimate.as_json() for name, estimate in found.items()},
        "errors": [
            {"sessions": e.sessions, "requests": e.requests, "good": e.good, "poor": e.poor}
            for e in errors
        ],
    }
