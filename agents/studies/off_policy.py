"""Off-policy evaluation of teams: what another team would earn, beside the simulator's truth.

Estimates from a log of :mod:`agents.studies.off_policy_logs`
(:mod:`marec_env.evaluation.request_log`), and how their error falls with the log's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agents.studies.records import plain, spread
from marec_env.evaluation.off_policy import effective_sample_size
from marec_env.evaluation.request_log import RequestLog, estimates, fitted, ignorant
from marec_env.evaluation.statistics import mean_estimate
from marec_env.reporting.table import TextTable

_REPETITIONS = 50  # logs of each size
_SMALLEST_SHARE = 64  # the sizes are this fraction of the log, a fourth of it, and so on up


@dataclass(frozen=True, slots=True)
class ErrorAtSize:
    """Root mean square errors over logs of one size, in clicks a request."""

    sessions: int
    requests: float
    """Mean over the logs."""
    good: dict[str, float]
    """By estimator, with the fitted model."""
    poor: dict[str, float]
    """By estimator, with the ignorant model."""


def errors_by_size(
    log: RequestLog, sizes: Sequence[int], repetitions: int, seed: int = 0
) -> list[ErrorAtSize]:
    """Draw logs of so many sessions from a large one and compare estimates with its truth.

    The truth is the mean over the whole log, so sizes (in sessions) should be small beside it;
    there are ``repetitions`` logs of each.
    """
    truth = float(log.truth.mean())
    sessions = np.unique(log.session)
    generator = np.random.default_rng(seed)
    found = []
    for size in sizes:
        squares: dict[str, list[dict[str, float]]] = {"good": [], "poor": []}
        requests = 0
        for repetition in range(repetitions):
            chosen = generator.choice(sessions, size, replace=False)
            part = log.select(np.isin(log.session, chosen))
            requests += part.session.size
            for kind, model in (("good", fitted(part, repetition)), ("poor", ignorant(part))):
                told = estimates(part, model)
                squares[kind].append({n: (e.value - truth) ** 2 for n, e in told.items()})
        errors = {
            kind: {name: float(np.sqrt(np.mean([one[name] for one in rows]))) for name in rows[0]}
            for kind, rows in squares.items()
        }
        found.append(ErrorAtSize(size, requests / repetitions, **errors))
    return found


def judge(name: str, log: RequestLog) -> tuple[dict[str, Any], TextTable]:
    """Return the estimates of one log beside the truth and their errors by size, and a table."""
    count = np.unique(log.session).size
    sizes = [max(4, count // (_SMALLEST_SHARE >> (2 * k))) for k in range(3)]
    found = estimates(log, fitted(log))
    errors = errors_by_size(log, sizes, _REPETITIONS)
    truth = mean_estimate(log.truth, log.session)
    worth = effective_sample_size(log.ratio)
    logged = float(log.reward.sum(axis=1).mean())
    table = TextTable(
        f"{name}: the target gets {spread(truth)} "
        f"clicks a request, the log {logged:.3f}; {log.session.size:,} requests, worth "
        f"{worth:,.0f} of the target's own",
        (
            "estimator",
            "from the whole log",
            *(f"error at {entry.sessions}" for entry in errors),
            f"poor, at {errors[-1].sessions}",
        ),
        [
            (
                estimator,
                spread(estimate),
                *(f"{entry.good[estimator]:.3f}" for entry in errors),
                f"{errors[-1].poor[estimator]:.3f}",
            )
            for estimator, estimate in found.items()
        ],
        (
            "error: root mean square over logs of so many sessions; poor: with a model that says "
            "half the mean click rate of everything. DM has no interval: it errs as its model does",
        ),
    )
    record = {
        "truth": truth.value,
        "logged": logged,
        "requests": int(log.session.size),
        "effective_requests": worth,
        "mean_ratio": float(log.ratio.mean()),
        "estimates": found,
        "errors": errors,
    }
    return plain(record), table
