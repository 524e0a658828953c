"""What episodes add up to: sums of a step's metrics since a session began, float32 ``[B]`` each."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from marec_env.vector import Rows

__all__ = ["add", "no_sums", "outcomes"]


def no_sums(sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return zeros in place of sums."""
    return {name: torch.zeros_like(values) for name, values in sums.items()}


def add(sums: dict[str, Tensor], metrics: Mapping[str, Tensor]) -> None:
    """Add a step's metrics to the sums."""
    for name, value in metrics.items():
        so_far = sums.get(name)
        sums[name] = value.clone() if so_far is None else so_far + value


def outcomes(
    rows: Rows, sums: Mapping[str, Tensor], requests: Tensor, totals: Collection[str]
) -> dict[str, Tensor]:
    """Return outcomes of the episodes that end in ``rows``, by name, float32 ``[n]`` each.

    Args:
        rows: the sessions that end.
        sums: see :func:`add`.
        requests: int64 ``[B]``, answered in each episode.
        totals: names of sums that stay totals; the others become means per request.
    """
    length = rows.of(requests).to(torch.float32)
    found = {"length": length, "return": rows.of(sums["team_reward"])}
    found |= {name: rows.of(sums[name]) for name in totals}
    for name, values in sums.items():
        if name not in totals:
            found[f"{name}_per_request"] = rows.of(values) / length
    return found
