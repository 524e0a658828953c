"""SARDINE's users with the defect of the published code (Deffayet et al. 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env.catalog.population import Population
from marec_env.users.composed import ComposedUsers
from marec_env.users.config import UsersConfig
from marec_env.users.dynamics import Drift


class _OneNumber(Drift):
    """The mean of clicked items over items *and axes*: one number for all axes, which draws every
    user to the uniform vector whatever they click.
    """

    def _pull(self, mean: Tensor) -> Tensor:
        return mean.mean(1, keepdim=True).expand_as(mean)


class PublishedSardineUsers(ComposedUsers):
    """As composed by configuration, but for where clicked items draw a taste."""

    def __init__(
        self, config: UsersConfig, population: Population, num_sessions: int, device: torch.device
    ) -> None:
        """Args: see :class:`marec_env.users.composed.ComposedUsers`."""
        super().__init__(config, population, num_sessions, device)
        if "drift" in self.modules:
            self.modules["drift"] = _OneNumber(config, population, num_sessions)
