"""What scenarios do to the logit of a click, together: price, wear-out, tiredness and friends."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from marec_env.catalog.population import Population
from marec_env.users.config import UsersConfig
from marec_env.users.scenario.friends import Friends
from marec_env.users.scenario.price import PriceSense
from marec_env.users.scenario.tiredness import Tiredness
from marec_env.users.scenario.wear_out import WearOut

__all__ = ["Effects"]


class Effects:
    """Those of the four that are configured, of ``B`` sessions."""

    def __init__(
        self, config: UsersConfig, num_sessions: int, population: Population, device: torch.device
    ) -> None:
        """Args:
        config: the section ``users``; an effect of size 0 is left out.
        num_sessions: B.
        population: whose attributes and histories the effects need.
        device: where the state lives.
        """
        self.price = PriceSense(config.price, population) if config.price.sensitivity > 0 else None
        self._wear_out = (
            WearOut(config.wear_out, num_sessions, population)
            if config.wear_out.weight > 0
            else None
        )
        self._tiredness = (
            Tiredness(config.tiredness, num_sessions, device)
            if config.tiredness.minutes > 0
            else None
        )
        self._friends = (
            Friends(config.friends, num_sessions, population)
            if config.friends.influence > 0
            else None
        )
        effects = (self.price, self._wear_out, self._tiredness, self._friends)
        self.any = any(effect is not None for effect in effects)
        """Whether a logit depends on more than taste and boredom."""

    def reset(self, rows: Tensor, users: Tensor, keys: Tensor) -> None:
        """Begin the sessions ``rows`` (int64 ``[n]``) of ``users`` anew, with their ``keys``."""
        if self._wear_out is not None:
            self._wear_out.reset(rows)
        if self._tiredness is not None:
            self._tiredness.reset(rows)
        if self._friends is not None:
            self._friends.reset(rows, users, keys)

    def apply(self, logits: Tensor, items: Tensor, users: Tensor) -> Tensor:
        """Return the logits of int64 ``[B, M]`` items for int64 ``[B]`` users, effects included."""
        if self.price is not None:
            logits = logits - self.price.loss(items, users)
        if self._wear_out is not None:
            logits = logits - self._wear_out.loss(items)
        if self._tiredness is not None:
            logits = logits - self._tiredness.loss()
        if self._friends is not None:
            logits = logits + self._friends.gain(items)
        return logits

    def update(
        self,
        slate: Tensor,
        behaviours: Mapping[str, Tensor],
        users: Tensor,
        keys: Tensor,
        step: Tensor,
    ) -> None:
        """Take one answered request into account."""
        if self._wear_out is not None:
            self._wear_out.update(slate)
        if self._tiredness is not None:
            self._tiredness.update(behaviours["watch_time"])
        if self._friends is not None:
            self._friends.update(users, keys, step)

    def hidden(self, users: Tensor) -> list[Tensor]:
        """Return what a privileged critic may see, float32 ``[B, n]`` each; friends' endorsements,
        a number an item, are left out.
        """
        parts = []
        if self._wear_out is not None:
            parts.append(torch.log1p(self._wear_out.seen))
        if self._tiredness is not None:
            parts.append(self._tiredness.loss())
        if self.price is not None:
            parts.append(self.price.level[users].unsqueeze(1))
        return parts

    def state(self) -> dict[str, Tensor]:
        """Return the live tensors that make up the state."""
        found = {}
        if self._wear_out is not None:
            found["sightings"] = self._wear_out.seen
        if self._tiredness is not None:
            found["watched"] = self._tiredness.watched
        if self._friends is not None:
            found["endorsed"] = self._friends.endorsed
        return found
