"""Messages between components: who hears whom, when, how clearly, and at what cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from marec_env import random
from marec_env.pipeline.config import MessageConfig

__all__ = ["Mailbox", "fitted"]


def fitted(summary: Tensor, dim: int) -> Tensor:
    """Cut or zero-pad a summary ``[B, k]`` to ``[B, dim]`` and clip it to [-1, 1]."""
    cut = summary[:, :dim].clamp(-1.0, 1.0)
    return torch.nn.functional.pad(cut, (0, dim - cut.shape[1]))


class Mailbox:
    """The latest message of each sender as it stands at the receivers, and those on their way.

    A message published at request t is readable from request t + delay on: with delay 0 within the
    request by agents whose turn comes later (sequential mode) and by all at the next request.
    """

    def __init__(
        self, config: MessageConfig, senders: int, num_sessions: int, device: torch.device
    ) -> None:
        self.config = config
        self.senders = senders
        shape = (config.delay + 1, num_sessions, senders, config.dim)
        self._queue = torch.zeros(shape, device=device)
        self.cost = torch.zeros(num_sessions, device=device)
        """Float32 ``[B]``: bandwidth spent in the present request."""

    def heard_by(self, place: int) -> list[int]:
        """Return the senders that the component at ``place`` of the pipeline hears."""
        if self.config.topology == "downstream":
            return list(range(place))
        return [sender for sender in range(self.senders) if sender != place]

    def read(self, place: int) -> Tensor:
        """Return what a component hears, float32 ``[B, heard * dim]``."""
        return self._queue[0][:, self.heard_by(place)].flatten(1)

    def publish(self, place: int, message: Tensor, keys: Tensor, step: Tensor) -> None:
        """Send a component's message ``[B, dim]`` in the sessions whose request is due."""
        config = self.config
        if config.noise > 0:
            stream = f"pipeline/message/{place}"
            message = message + config.noise * random.normal(keys, step, stream, config.dim)
        due = (step % config.every == 0).unsqueeze(1)
        slot = self._queue[config.delay]
        slot[:, place] = torch.where(due, message, slot[:, place])
        self.cost = self.cost + config.bandwidth_cost * torch.where(
            due.squeeze(1), message.abs().mean(1), 0.0
        )

    def next_request(self) -> None:
        """Let messages travel one request further; the last one sent stays in force."""
        self.cost = torch.zeros_like(self.cost)
        if self.config.delay:
            self._queue = torch.cat([self._queue[1:], self._queue[-1:]])

    def reset(self, rows: Tensor) -> None:
        """Empty the mail of new episodes (int64 ``[n]``)."""
        self._queue[:, rows] = 0.0
        self.cost[rows] = 0.0

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of what is on its way and what has arrived."""
        return {"queue": self._queue.clone(), "cost": self.cost.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self._queue = state["queue"].to(self._queue.device).clone()
        self.cost = state["cost"].to(self.cost.device).clone()
