"""The tasks of ``marec/suite-v0`` and what each of them claims."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["SUITE", "TASKS", "Task"]

SUITE = "marec/suite-v0"


@dataclass(frozen=True, slots=True)
class Task:
    """A preset ``configs/suite/NAME.yaml`` with its claim."""

    claim: str
    """What is to be shown, in a sentence."""
    better: str
    """The algorithm that has the ability; see :data:`agents.suite.algorithms.ALGORITHMS`."""
    worse: str
    """The same without it."""
    least: float
    """The share of the worse one's clicks that the ability has to add."""
    shuffled: str = ""
    """The control: what the better one's components see of this field (``messages`` for what they
    hear) comes from other sessions, which has to take the gain away; empty for none."""


TASKS: Mapping[str, Task] = {
    "motives": Task(
        "Components paid their own f_i lose clicks to components paid F.",
        better="ippo", worse="ippo-own", least=0.1,
    ),
    "credit": Task(
        "Difference rewards beat independent learners paid F, where luck decides most of F.",
        better="ippo-difference", worse="ippo", least=0.02,
    ),
}  # fmt: skip
"""By the name of their preset."""
