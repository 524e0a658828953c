from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest


class ToyTrainer:
    """A learner with state: each iteration's numbers depend on all iterations before it."""

    def __init__(self, steps: int = 10) -> None:
        self.steps = steps
        self.iterations = 0
        self.value = 1
        self.on_iterate: Callable[[int], None] = lambda iteration: None

    def iterate(self) -> dict[str, float]:
        self.iterations += 1
        self.value = self.value * 6364136223846793005 % (1 << 61)
        self.on_iterate(self.iterations)
        return {
            "env_steps": self.iterations * self.steps,
            "agent_steps": self.iterations * self.steps * 4,
            "iterations": self.iterations,
            "team_reward": self.value / (1 << 61),
            "episode/clicks": float("nan") if self.iterations % 3 else 2.5,
        }

    def save(self, folder: Path) -> None:
        assert folder.is_absolute()
        (folder / "inner").mkdir()
        (folder / "inner" / "state.json").write_text(json.dumps([self.iterations, self.value]))
        (folder / "empty").write_text("")

    def restore(self, folder: Path) -> None:
        self.iterations, self.value = json.loads((folder / "inner" / "state.json").read_text())


@pytest.fixture
def make_trainer() -> type[ToyTrainer]:
    return ToyTrainer
