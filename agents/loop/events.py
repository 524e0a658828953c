"""What a service has logged, as an exposure log: read over HTTP or from its store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from agents.loop.exposure import ExposureLog
from agents.loop.visit import Service
from marec_env import random
from marec_env.errors import DataError

Exposure = Mapping[str, Any]
"""A request as the service tells it (``GET /log?decisions=true``)."""


def exposure_log(
    exposures: Iterable[Exposure],
    now: float,
    idle_seconds: float,
    longest: int,
    versions: Sequence[str] | None = None,
) -> ExposureLog:
    """Return the sessions of a service's log whose components drew their actions.

    A session is taken to have been left by the user when nothing has been asked for in it for
    ``idle_seconds``; one under way is cut off at its last closed slate, and one that changed its
    team where it did.

    Args:
        exposures: requests, in any order.
        now: Unix seconds.
        idle_seconds: after which nobody comes back.
        longest: requests after which a session ends by itself.
        versions: of the teams whose sessions count; all by default.

    Raises:
        DataError: no session is left, or teams of other components are mixed.
    """
    sessions: dict[str, list[Exposure]] = {}
    for one in exposures:
        sessions.setdefault(one["session"], []).append(one)
    kept: dict[str, tuple[list[Exposure], bool]] = {}
    for name, rows in sessions.items():
        rows.sort(key=lambda row: int(row["number"]))
        gone = now - float(rows[-1]["time"]) > idle_seconds
        whole = list(_begun(rows, versions))
        left = gone and len(whole) == len(rows) < longest
        if not gone and whole and not whole[-1]["closed"]:
            whole.pop()
        if whole:
            kept[name] = whole, left
    if not kept:
        raise DataError(
            "the log holds no session whose components drew their actions; let the service explore "
            "(explore: true), name versions that it has served, or wait for visitors"
        )
    return _table(kept)


def _begun(rows: Sequence[Exposure], versions: Sequence[str] | None) -> Iterator[Exposure]:
    """Yield a session's requests from its first on, as long as one known team drew actions."""
    for number, row in enumerate(rows):
        wanted = versions is None or row["version"] in versions
        if row["number"] != number or not wanted or row["version"] != rows[0]["version"]:
            return
        if not row.get("decisions"):
            return
        yield row


def _table(sessions: Mapping[str, tuple[list[Exposure], bool]]) -> ExposureLog:
    first = next(iter(sessions.values()))[0][0]
    agents, size = tuple(first["decisions"]), len(first["slate"])
    count, most = len(sessions), max(len(rows) for rows, _ in sessions.values())
    clicks, slate = (
        torch.zeros(count, most, size),
        torch.zeros(count, most, size, dtype=torch.int64),
    )
    items: dict[str, int] = {}
    names = sorted({name for rows, _ in sessions.values() for name in rows[0]["attributes"]})
    tables: dict[str, dict[str, Tensor]] = {
        "observations": {}, "actions": {}, "log_probabilities": {},
    }  # fmt: skip
    for agent in agents:
        made = first["decisions"][agent]
        tables["observations"][agent] = torch.zeros(count, most, len(made["observation"]))
        tables["actions"][agent] = torch.zeros(count, most, len(made["action"]))
        tables["log_probabilities"][agent] = torch.zeros(count, most)
    for place, (name, (rows, _)) in enumerate(sessions.items()):
        for step, row in enumerate(rows):
            try:
                clicks[place, step] = torch.tensor(row["clicks"], dtype=torch.float32)
                slate[place, step] = torch.tensor(
                    [items.setdefault(name, len(items)) for name in row["slate"]]
                )
                for agent in agents:
                    made = row["decisions"][agent]
                    tables["observations"][agent][place, step] = torch.tensor(made["observation"])
                    tables["actions"][agent][place, step] = torch.tensor(made["action"])
                    tables["log_probabilities"][agent][place, step] = made["log_probability"]
            except (KeyError, RuntimeError) as error:
                raise DataError(
                    f"session {name} was served by a team of other components or slates than "
                    f"{next(iter(sessions))}; name the versions that belong together"
                ) from error
    return ExposureLog(
        key=random.keys_of(sessions),
        length=torch.tensor([len(rows) for rows, _ in sessions.values()]),
        left=torch.tensor([left for _, left in sessions.values()]),
        clicks=clicks,
        slate=slate,
        items=tuple(items),
        attributes={
            name: torch.tensor(
                [float(rows[0]["attributes"].get(name, torch.inf)) for rows, _ in sessions.values()]
            )
            for name in names
        },
        **tables,
    )


async def logged(service: Service, after: int = 0) -> list[dict[str, Any]]:
    """Return all that a service has logged after a sequence number.

    Raises:
        RunError: it does not answer, or refuses.
    """
    found: list[dict[str, Any]] = []
    while True:
        page = await service.call("GET", "/log", after=after, limit=1000, decisions=True)
        if not page["exposures"]:
            return found
        found += page["exposures"]
        after = page["next"]
