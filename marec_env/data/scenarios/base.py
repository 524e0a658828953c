"""What a scenario adds to the engine: words, attributes, and how its users answer a slate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from marec_env import random
from marec_env.data.config import SyntheticConfig
from marec_env.data.scenarios.numbers import FOLLOW_SLOPE
from marec_env.data.scenarios.world import GeneratedWorld, Vocabulary
from marec_env.registry import Registry


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One slate each for ``a`` users who are there at the same time."""

    users: Tensor
    """Int64 ``[a]``, each user at most once."""
    slate: Tensor
    """Int64 ``[a, K]``."""
    click: Tensor
    """Float32 ``[a, K]``, 0 or 1."""
    logit: Tensor
    """Float32 ``[a, K]``, the logit of a click on an examined item."""
    keys: Tensor
    """Int64 ``[a]``, of the users' visits; ``index`` is the request within the visit."""
    index: int
    day: int

    def happens(self, probability: Tensor, stream: str) -> Tensor:
        """Draw events with the given probabilities ``[a, K]``: float32, 0 or 1."""
        return (self.draws(stream) < probability).to(torch.float32)

    def draws(self, stream: str) -> Tensor:
        """Return uniform draws, ``[a, K]``."""
        return random.uniform(self.keys, self.index, stream, self.slate.shape[1])


class Scenario:
    """Base of the scenarios; an instance lives for one generated log and keeps its state."""

    vocabulary: ClassVar[Vocabulary]
    behaviours: ClassVar[tuple[str, ...]]
    """What may follow a click, beside the click itself."""
    click_rate: ClassVar[float]
    """Clicks per impression that the intercept is calibrated to, under the logging platform."""
    slate_size: ClassVar[int] = 10
    relevance: ClassVar[float] = 6.0
    """Logits per unit of taste."""

    def __init__(self, world: GeneratedWorld, config: SyntheticConfig) -> None:
        """Args:
        world: users and items.
        config: sizes and seed.
        """
        self.world = world
        self.config = config
        self.item_attributes: dict[str, Tensor] = {}
        """Numbers of each item, float32 ``[N]``."""
        self.user_attributes: dict[str, Tensor] = {}
        """Numbers of each user, float32 ``[U]``."""
        self.usual = 0.0
        """Mean logit of clicked items, set by :meth:`calibrate`."""
        self._follow_centre = 0.0

    def calibrate(self, logits: Tensor, clicks: Tensor) -> None:
        """Learn what logits clicked items have.

        Args:
            logits: float64 ``[M]`` of impressions under the logging platform.
            clicks: float64 ``[M]``, their click probabilities.
        """
        share = clicks / clicks.sum()
        self.usual = float((share * logits).sum())
        # The mean of exp(slope · (logit - centre)) over clicks is 1: rare events keep their rate.
        tilted = (share * (FOLLOW_SLOPE * logits).exp()).sum()
        self._follow_centre = float(tilted.log()) / FOLLOW_SLOPE

    def follows(self, rate: float, logit: Tensor) -> Tensor:
        """Return the probability of an event after a click: ``rate`` on average over clicks (a
        little less for frequent events), rising with the logit of the click.
        """
        base = torch.logit(torch.tensor(rate))
        return torch.sigmoid(base + FOLLOW_SLOPE * (logit - self._follow_centre))

    def begin_day(self, day: int) -> None:
        """Let a night pass."""

    def eligible(self, users: Tensor) -> Tensor | None:
        """Return bool ``[a, N]``, what may be shown; ``None`` if anything may."""
        return None

    def ranking_bonus(self, users: Tensor) -> Tensor | None:
        """Return float32 ``[a, N]``, added to the logging platform's scores, or ``None``."""
        return None

    def click_bonus(self, users: Tensor, slate: Tensor) -> Tensor:
        """Return float32 ``[a, K]``, logits beside taste and quality."""
        return torch.zeros(slate.shape)

    def own_visits(self, users: Tensor, keys: Tensor) -> Tensor | None:
        """Return items that users consume unprompted on a visit, int64 ``[a, m]``, or ``None``."""
        return None

    def respond(self, request: LoggedRequest) -> dict[str, Tensor]:
        """Return what follows the clicks, float32 ``[a, K]`` per behaviour, zero without a click,
        and update the state.
        """
        raise NotImplementedError

    def rating(self, behaviours: dict[str, Tensor]) -> Tensor:
        """Return the strength of clicked interactions on a scale of 1 to 5, of which 4 is liked.

        Args:
            behaviours: float32 ``[R]`` each.
        """
        raise NotImplementedError

    def finish(self, behaviours: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the behaviours of all impressions ``[M]``, in the order of the answers, completed
        by what only the end of the log tells.
        """
        return behaviours


SCENARIOS: Registry[type[Scenario]] = Registry("scenario")
"""Generators by name; a configuration says ``synthetic/<name>``."""
