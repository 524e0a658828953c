"""A component of the pipeline: an agent that decides one stage of each request.

A component of one's own is a subclass registered by name or given as ``package.module:Class``::

    class Diversifier(Component):
        name = "diversifier"
        fields = ("session", "exposure")

        @property
        def action_space(self) -> spaces.Box:
            return spaces.Box(-1.0, 1.0, (1,))

        def act(self, request: Request, action: Tensor) -> None:
            ...
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor

from marec_env.errors import ConfigError
from marec_env.pipeline.config import PipelineConfig
from marec_env.pipeline.fields import FIELDS
from marec_env.pipeline.memory import SessionMemory
from marec_env.pipeline.request import Request
from marec_env.registry import Registry

__all__ = ["COMPONENTS", "Component", "unit"]


class Component(ABC):
    """One agent: what it sees, what it decides, and how its decision enters the request.

    Attributes:
        name: the agent is called ``<name>_0``.
        fields: the observation fields it asks for (:mod:`marec_env.pipeline.fields`); ``messages``
            is added where messages are on.
        before: names of components that must come later in the pipeline, if present.
        objective: the reward terms of its own f_i and their weights, unless configured otherwise.
    """

    name: ClassVar[str]
    fields: ClassVar[tuple[str, ...]] = ("session",)
    before: ClassVar[tuple[str, ...]] = ()
    objective: ClassVar[Mapping[str, float]] = MappingProxyType({"engagement": 1.0})

    def __init__(self, config: PipelineConfig) -> None:
        """Args:
        config: the pipeline's section; ``data_access`` may take fields away.

        Raises:
            ConfigError: ``data_access`` grants a field that does not exist.
        """
        self.config = config
        granted = config.data_access.get(self.name)
        for field in granted or ():
            FIELDS.get(field)
            if field not in self.fields:
                raise ConfigError(
                    f"pipeline.data_access.{self.name} grants '{field}', which the component does "
                    f"not ask for (it asks for: {', '.join(self.fields)}); leave it out"
                )
        self.granted = tuple(f for f in self.fields if granted is None or f in granted)
        if not self.granted:
            raise ConfigError(
                f"pipeline.data_access.{self.name} grants none of the fields the component uses "
                f"({', '.join(self.fields)}); grant at least one"
            )

    @property
    def agent(self) -> str:
        """The agent's name in the environment."""
        return f"{self.name}_0"

    @property
    @abstractmethod
    def action_space(self) -> spaces.Space[Any]:
        """The decisions of one session."""

    def observe(self, view: Mapping[str, Tensor]) -> Tensor:
        """Return the observation, float32 ``[B, d]``, from the granted fields."""
        return torch.cat([view[name] for name in self.granted], dim=1)

    @abstractmethod
    def act(self, request: Request, action: Tensor) -> None:
        """Let a batch of actions enter the request."""

    def active(self, memory: SessionMemory) -> Tensor | None:
        """Return whose next action counts, bool ``[B]``; ``None``: everybody's, always."""
        return None

    @abstractmethod
    def default_action(self) -> Tensor:
        """Return the hand-set decision of one session, in the action space's form."""

    def summary(self, request: Request, action: Tensor) -> Tensor:
        """Return what a fixed message says, about [-1, 1], ``[B, k]``: the action itself."""
        return action.to(torch.float32).reshape(action.shape[0], -1)


def unit(action: Tensor) -> Tensor:
    """Map a Box action from [-1, 1] to [0, 1]; what lies outside is clipped."""
    return (action.clamp(-1.0, 1.0) + 1.0) * 0.5


COMPONENTS: Registry[type[Component]] = Registry("component")
