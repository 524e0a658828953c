"""What the studies share: settings, sessions, the form of a section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from agents.learners.config import AlgorithmConfig
from agents.studies.equilibrium.best_response import SearchPlan
from agents.studies.equilibrium.decision_game import Sessions
from agents.studies.equilibrium.intervals import Interval
from marec_env.evaluation.policies import TeamPolicy
from marec_env.reporting.drawing import Figure
from marec_env.reporting.table import TextTable

__all__ = ["Play", "Section", "Settings", "short", "text"]

_HELD_OUT_FROM = 1_000_000  # session numbers of the two sets are this far apart


@dataclass(frozen=True, slots=True)
class Settings:
    """Budgets of all studies; printed and saved beside every result."""

    train_sessions: int = 64
    held_out_sessions: int = 256
    budget: int = 96
    """Evaluations of each search."""
    seeds: int = 3
    """Search seeds, and seeds of trained responses."""
    method: str = "cem"
    response_steps: int = 100_000
    """Env steps of each trained response; 0 trains none."""
    response_start: str = "current"
    """``current``: responses start from the component's own policy; ``fresh``: from new weights."""
    checkpoints: int = 5
    """How many of a run's checkpoints show the course of training."""
    widths: tuple[int, ...] = (20, 50, 100, 200)
    own_shares: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    rounds: int = 8
    """Of iterated best responses, at most."""
    per: Literal["session", "request"] = "request"
    """How part anarchy counts own objectives: see :class:`PipelineGame`."""
    starts: int = 2
    """From how many points iterated best responses begin: the default decision, the joint optimum
    found, then random ones."""

    def train(self) -> Sessions:
        """Return the sessions on which searches compare candidates."""
        return np.arange(self.train_sessions, dtype=np.int64)

    def held_out(self) -> Sessions:
        """Return the sessions on which winners are judged."""
        return _HELD_OUT_FROM + np.arange(self.held_out_sessions, dtype=np.int64)

    def plan(self, method: str | None = None) -> SearchPlan:
        """Return how searches are run."""
        return SearchPlan(
            self.train(),
            self.held_out(),
            self.budget,
            tuple(range(self.seeds)),
            method or self.method,
        )

    def as_json(self) -> dict[str, Any]:
        """Return all settings by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Play:
    """A team's play, with a name for the tables."""

    name: str
    policy: TeamPolicy
    algorithm: AlgorithmConfig | None = None
    """What trained it, which then also trains the responses to it."""


@dataclass(frozen=True, slots=True)
class Section:
    """One study's result."""

    name: str
    title: str
    record: Mapping[str, Any]
    """JSON-able."""
    tables: tuple[TextTable, ...]
    figures: tuple[Figure, ...] = ()
    warnings: tuple[str, ...] = field(default_factory=tuple)


def text(interval: Interval, digits: int = 3) -> str:
    """Return ``value [low, high]``."""
    return f"{interval.value:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def short(interval: Interval, digits: int = 2) -> str:
    """Return ``value ±half``, where half of the interval's width is told, for wide tables."""
    half = (interval.high - interval.low) / 2.0
    return f"{interval.value:.{digits}f} ±{half:.{digits}f}"
