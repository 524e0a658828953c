"""Potentials for potential-based shaping: functions of what the recommender remembers.

r' = r + gamma Phi(s') - Phi(s), with Phi = 0 where the episode has terminated, leaves every optimal
policy optimal (Ng, Harada and Russell, ICML 1999). A truncated episode keeps Phi(s').
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from marec_env.pipeline.memory import SessionMemory
from marec_env.pipeline.own import checked
from marec_env.registry import Registry, callable_at
from marec_env.rewards.config import ShapingConfig

__all__ = ["POTENTIALS", "Potential", "Shaping"]

Potential = Callable[[SessionMemory], Tensor]
POTENTIALS: Registry[Potential] = Registry("shaping potential")


@POTENTIALS.register("click_rate")
def click_rate(memory: SessionMemory) -> Tensor:
    """The slow click rate: sessions in which the user clicks go on."""
    return memory.slow_rate


@POTENTIALS.register("topic_balance")
def topic_balance(memory: SessionMemory) -> Tensor:
    """1 less the largest topic exposure: room left before the user tires of a topic."""
    return 1.0 - memory.exposure.amax(1)


def _checked(name: str) -> Potential:
    """Return a potential whose values are checked if it is a user's own."""
    potential = callable_at("rewards.shaping.potential", POTENTIALS, name)

    def values(memory: SessionMemory) -> Tensor:
        return checked("shaping potential", name, potential(memory), memory.num_sessions)

    return values


class Shaping:
    """The configured shaping terms, added up."""

    def __init__(self, configs: tuple[ShapingConfig, ...]) -> None:
        self._parts = [(_checked(c.potential), c.weight, c.gamma) for c in configs]

    def before(self, memory: SessionMemory) -> list[Tensor]:
        """Return each potential in the state before the request."""
        return [potential(memory).clone() for potential, _, _ in self._parts]

    def bonus(self, before: list[Tensor], memory: SessionMemory, terminated: Tensor) -> Tensor:
        """Return what shaping adds to every reward, float32 ``[B]``.

        Args:
            before: what :meth:`before` returned.
            memory: after the request, before any reset.
            terminated: bool ``[B]``.
        """
        total = torch.zeros(memory.num_sessions, device=memory.device)
        for (potential, weight, gamma), start in zip(self._parts, before, strict=True):
            after = torch.where(terminated, 0.0, potential(memory))
            total = total + weight * (gamma * after - start)
        return total
