"""Messages between components: who hears whom, when, how clearly, and at what cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from marec_env import random
from marec_env.errors import ConfigError
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
        self._spent = torch.zeros(num_sessions, senders, device=device)

    def cost(self, without: int | None = None) -> Tensor:
        """Return the bandwidth spent in the present request, float32 ``[B]``.

        Args:
            without: a sender whose message is left out.
        """
        if without is None:
            return self._spent.sum(1)
        others = [sender for sender in range(self.senders) if sender != without]
        return self._spent[:, others].sum(1)

    def price(self, place: int, message: Tensor, due: Tensor) -> Tensor:
        """Return what a component's message costs, float32 ``[B]``; nothing if nobody hears it.

        Args:
            place: the sender.
            message: ``[B, dim]``, before noise.
            due: bool ``[B]``, from :meth:`due`.
        """
        heard = any(place in self.heard_by(receiver) for receiver in range(self.senders))
        return self.config.bandwidth_cost * heard * torch.where(due, message.abs().mean(1), 0.0)

    def due(self, step: Tensor, active: Tensor | None) -> Tensor:
        """Return in which sessions a component sends at the request ``step`` (int64 ``[B]``): in
        the period's, where its action counts (``active``, bool ``[B]``; ``None``: everywhere).
        """
        due = step % self.config.every == 0
        return due if active is None else due & active

    def heard_by(self, place: int) -> list[int]:
        """Return the senders that the component at ``place`` of the pipeline hears."""
        if self.config.topology == "downstream":
            return list(range(place))
        return [sender for sender in range(self.senders) if sender != place]

    def read(self, place: int) -> Tensor:
        """Return what a component hears, float32 ``[B, heard * dim]``."""
        return self._queue[0][:, self.heard_by(place)].flatten(1)

    def publish(self, place: int, message: Tensor, due: Tensor, keys: Tensor, step: Tensor) -> None:
        """Send a component's message ``[B, dim]`` in the sessions where it is :meth:`due`."""
        config = self.config
        self._spent[:, place] = self.price(place, message, due)
        if config.noise > 0:
            stream = f"pipeline/message/{place}"
            message = message + config.noise * random.normal(keys, step, stream, config.dim)
        slot = self._queue[config.delay]
        slot[:, place] = torch.where(due.unsqueeze(1), message, slot[:, place])

    def next_request(self) -> None:
        """Let messages travel one request further; the last one sent stays in force."""
        self._spent = torch.zeros_like(self._spent)
        if self.config.delay:
            self._queue = torch.cat([self._queue[1:], self._queue[-1:]])

    def reset(self, rows: Tensor) -> None:
        """Empty the mail of new episodes (int64 ``[n]``)."""
        self._queue[:, rows] = 0.0
        self._spent[rows] = 0.0

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of what is on its way and what has arrived."""
        return {"queue": self._queue.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        queue = state["queue"].to(self._queue.device)
        if queue.shape != self._queue.shape:
            raise ConfigError(
                f"the saved messages have shape {list(queue.shape)} [delay + 1, sessions, senders, "
                f"dim], this environment's {list(self._queue.shape)}; use the configuration and "
                "the number of sessions that they were saved with"
            )
        self._queue = queue.clone()
        self._spent = torch.zeros_like(self._spent)
