"""RecSim's long-term satisfaction (Ie et al., "RecSim", 2019), "choc and kale".

Items differ in clickbait ``c`` in [0, 1]. The user always takes the first item of the slate. One
request, with net positive exposure ``e`` and satisfaction ``s = sigmoid(sensitivity e)``:

    engagement = exp(N((5 c + 4 (1 - c)) s, 1))
    e <- 0.7 e - 2 (c - 0.5) + N(0, 0.05)

At first ``e`` is uniform with width ``1 / (1 - 0.7)``. At the published sensitivity of 0.01
satisfaction stays within 0.49-0.51, so clickbait wins at any horizon: there is no dilemma. In the
long run ``e`` is -3.3 under clickbait and 3.3 under quality, and quality wins if
``4 sigmoid(3.3 k) > 5 sigmoid(-3.3 k)``, that is from a sensitivity of ``k`` = 0.067; the corrected
default is 0.3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env import random
from marec_env.catalog.population import Population
from marec_env.config import ConfigModel, between
from marec_env.config.loader import load_mapping
from marec_env.users.base import Feedback, Users
from marec_env.users.config import UsersConfig
from marec_env.vector import Rows

# As published.
MEMORY, INNOVATION = 0.7, 0.05
"""The share of the net exposure kept a request, and the standard deviation of its noise."""
CLICKBAIT_MEAN, QUALITY_MEAN, DEVIATION = 5.0, 4.0, 1.0
"""The log engagement of clickbait and of quality at satisfaction 1, and its deviation."""
REQUESTS = 60
"""Of an episode."""
_ENGAGEMENT_LIMIT = 100.0  # MAX_ENGAGEMENT_MAGNITUDE of the published observation


class LongTermSatisfactionConfig(ConfigModel):
    """What is not as published."""

    sensitivity: float = between(
        0.3,
        0,
        100,
        "slope of satisfaction in net exposure; as published 0.01, at which clickbait wins in the "
        "long run as well (above 0.067 it does not)",
    )


class LongTermSatisfactionUsers(Users):
    """Users whose satisfaction follows the quality of what they consumed."""

    behaviours: tuple[str, ...] = ("click", "watch_time")

    def _build(self, config: UsersConfig, population: Population) -> None:
        """The only item factor is the clickbait in [0, 1]."""
        own = load_mapping(config.settings, LongTermSatisfactionConfig, "users.settings")
        self._sensitivity = own.sensitivity
        self._clickbait = population.item_factors[:, 0]
        self.exposure = self._keep("exposure", 0.0)
        """Float32 ``[B]``: net positive exposure."""
        self.hidden_size = 2

    @property
    def satisfaction(self) -> Tensor:
        """Float32 ``[B]`` in [0, 1]."""
        return torch.sigmoid(self._sensitivity * self.exposure)

    def _begin(self, rows: Rows, users: Tensor, draw: Tensor) -> None:
        rows.put(self.exposure, (draw[:, 0] - 0.5) / (1.0 - MEMORY))

    def _mean(self, clickbait: Tensor, satisfaction: Tensor) -> Tensor:
        """Return the mean of the log engagement."""
        quality = torch.full_like(clickbait, QUALITY_MEAN)
        bait = torch.full_like(clickbait, CLICKBAIT_MEAN)
        return torch.lerp(quality, bait, clickbait).mul_(satisfaction)

    def respond(self, slate: Tensor) -> Feedback:
        """Show ``slate``; see :meth:`marec_env.users.base.Users.respond`."""
        noise = random.normal(self._keys, self.request_index, "users/request", 2)
        clickbait = self._clickbait[slate[:, 0]]
        log_engagement = self._mean(clickbait, self.satisfaction) + DEVIATION * noise[:, 0]
        amount = torch.exp(log_engagement)
        self.exposure.copy_(
            MEMORY * self.exposure - 2.0 * (clickbait - 0.5) + INNOVATION * noise[:, 1]
        )
        self.request_index += 1
        clicks = torch.zeros(slate.shape, device=self.device)
        clicks[:, 0] = 1.0
        watch = torch.zeros_like(clicks)
        watch[:, 0] = amount
        return Feedback(
            {"click": clicks, "watch_time": watch},
            (amount / _ENGAGEMENT_LIMIT).clamp(max=1.0),
            self.satisfaction,
            self.request_index >= REQUESTS,
        )

    def click_probability(self, items: Tensor | None = None) -> Tensor:
        """Return 1 everywhere: whatever is shown first is consumed."""
        size = self.num_items if items is None else items.shape[1]
        return torch.ones(self.num_sessions, size, device=self.device)

    def expected_reward(self) -> Tensor:
        """Return the engagement each item would bring now, ``exp(mean + deviation^2 / 2)``,
        float32 ``[B, N]``.
        """
        everything = self._clickbait.expand(self.num_sessions, -1)
        return torch.exp(self._mean(everything, self.satisfaction.unsqueeze(1)) + DEVIATION**2 / 2)

    def long_term_value(self) -> Tensor:
        """Return quality (``1 - c``), and clickbait in the last request, when no future is left to
        spoil, float32 ``[B, N]``.
        """
        last = (self.request_index >= REQUESTS - 1).unsqueeze(1)
        return torch.where(last, self._clickbait, 1.0 - self._clickbait)

    def long_term_relevance(
        self, items: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """Return quality (``1 - c``), the same for every user."""
        count = self.num_sessions if rows is None else len(rows)
        quality = 1.0 - self._clickbait
        return quality.expand(count, -1) if items is None else quality[items]

    def hidden_state(self) -> Tensor:
        """Return exposure over its long-run limit, and satisfaction."""
        scaled = (self.exposure / (1.0 / (1.0 - MEMORY))).clamp(-1.0, 1.0)
        return torch.stack([scaled, self.satisfaction], dim=1)
