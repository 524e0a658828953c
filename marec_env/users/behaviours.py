"""What may follow a click.

Given a click on an item of logit ``r``, each behaviour is independent of the others:

* like, purchase: Bernoulli(sigmoid(r - offset));
* watch_time (minutes): exponential with mean ``watch_minutes * sigmoid(r)``;
* hide: Bernoulli(sigmoid(-r - offset)) on items examined or not, but never on a clicked one.

The conditional factorisation click, then conversion is that of Ma et al., "Entire space multi-task
model", SIGIR 2018; durations are often taken as exponential in simulators of watch time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env.users.config import BehaviourConfig

__all__ = ["Behaviours"]


class Behaviours:
    """The behaviours beside the click, in configured order."""

    def __init__(self, config: BehaviourConfig) -> None:
        """Args:
        config: the section ``users.behaviours``.
        """
        self._config = config
        self.names: tuple[str, ...] = ("click", *config.names)

    @property
    def extra(self) -> int:
        """How many behaviours need a number a position."""
        return len(self.names) - 1

    def respond(self, clicks: Tensor, logits: Tensor, draws: Tensor) -> dict[str, Tensor]:
        """Return every behaviour.

        Args:
            clicks: float32 ``[B, K]``.
            logits: float32 ``[B, K]``.
            draws: float32 ``[B, extra * K]``, uniform.

        Returns:
            Float32 ``[B, K]`` each, ``click`` first.
        """
        config, size = self._config, clicks.shape[1]
        found = {"click": clicks}
        for place, name in enumerate(config.names):
            draw = draws[:, place * size : (place + 1) * size]
            if name == "like":
                found[name] = clicks * (draw < torch.sigmoid(logits - config.like_offset))
            elif name == "purchase":
                found[name] = clicks * (draw < torch.sigmoid(logits - config.purchase_offset))
            elif name == "watch_time":
                mean = config.watch_minutes * torch.sigmoid(logits)
                found[name] = clicks * mean * -torch.log(draw)
            else:
                found[name] = (1 - clicks) * (draw < torch.sigmoid(-logits - config.hide_offset))
        return found
