"""Intent: a passing interest mixed into the lasting taste.

The present interest is ``normalise((1 - w) u + w v)``; it keeps unit length so that the calibrated
scale keeps its meaning. ``v`` is the factor of one item: one the user liked before (the default;
any item of the catalog for users without likes), or any item at all. After each request it is
replaced with the configured probability, so what :meth:`Intent.interest` returns between two
requests is what the next response uses.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from marec_env.catalog.population import Population
from marec_env.users.config import IntentConfig
from marec_env.users.draws import pick

__all__ = ["Intent"]


class Intent:
    """The item that stands for the passing interest of each of ``B`` sessions."""

    def __init__(self, config: IntentConfig, num_sessions: int, population: Population) -> None:
        """Args:
        config: the section ``users.intent``.
        num_sessions: B.
        population: whose histories and item factors intents come from.
        """
        self.weight = config.weight
        self._switch = config.switch_probability
        self._num_items = population.num_items
        self._factors = population.item_factors
        liked = population.history_liked & (population.history >= 0)
        if config.source == "catalog":
            liked = torch.zeros_like(liked)
        # Liked items first, so that one draw below their count picks one of them.
        order = liked.to(torch.int8).argsort(dim=1, descending=True, stable=True)
        self._liked = population.history.gather(1, order)
        self._count = liked.sum(1)
        if self._liked.shape[1] == 0:
            self._liked = torch.zeros(
                population.num_users, 1, dtype=torch.int64, device=self._factors.device
            )
        self.item = torch.zeros(num_sessions, dtype=torch.int64, device=self._factors.device)
        """Int64 ``[B]``."""

    def _draw(self, users: Tensor, draw: Tensor) -> Tensor:
        count = self._count[users]
        some = self._liked[users, pick(draw, count.clamp(min=1))]
        return torch.where(count > 0, some, pick(draw, self._num_items))

    def reset(self, rows: Tensor, users: Tensor, draw: Tensor) -> None:
        """Draw an intent for the sessions ``rows`` (int64 ``[n]``) of ``users``, by ``draw``."""
        self.item[rows] = self._draw(users, draw)

    def update(self, users: Tensor, switch: Tensor, draw: Tensor) -> Tensor:
        """Replace intents by chance.

        Args:
            users: int64 ``[B]``.
            switch: float32 ``[B]``, uniform; below the switch probability the intent is replaced.
            draw: float32 ``[B]``, uniform; picks the new one.

        Returns:
            Int64 ``[n]``: the sessions that have a new intent.
        """
        rows = (switch < self._switch).nonzero().squeeze(1)
        self.item[rows] = self._draw(users[rows], draw[rows])
        return rows

    def direction(self, rows: Tensor | None = None) -> Tensor:
        """Return the intents' factors, float32 ``[B, d]`` (or of ``rows``)."""
        return self._factors[self.item if rows is None else self.item[rows]]

    def interest(self, taste: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return the present interest, unit length, ``[B, d]``, from the same rows' taste."""
        return normalize(taste.lerp(self.direction(rows), self.weight), dim=-1)

    def state(self) -> dict[str, Tensor]:
        """Return the live tensors that make up the state."""
        return {"item": self.item}
