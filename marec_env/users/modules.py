"""What a slate becomes clicks by: relevance, examination, choice; and what a module with state is.

Relevance: the click logit of an item for an interest.

    r = factor * scale * (u . x) + quality + intercept + shift

with ``scale`` and ``intercept`` calibrated on the log (a matrix-factorisation model with item bias:
Koren, Bell and Volinsky, "Matrix factorization techniques for recommender systems", 2009).

Which positions of the slate the user looks at.

* position: ``P(look at k) = alpha decay^k`` (Craswell et al., "An experimental comparison of click
  position-bias models", WSDM 2008; geometric as in SARDINE).
* mixed: half of the users browse from the top, half from the bottom:
  ``alpha (decay^k + decay^(K-1-k)) / 2``.
* cascade: the user goes down the list, on to the next with probability ``decay``, and stops at a
  click with probability ``stop_after_click`` (the dependent click model of Guo, Liu and Wang,
  "Efficient multiple-click models in web search", WSDM 2009, with constant lambda).

How clicks follow from logits ``r_k`` and examination ``e_k``.

* independent: every examined item is clicked with probability ``sigmoid(r_k)``, whatever the others
  do (position-based model, Craswell et al. 2008).
* multinomial_logit: at most one click, ``P(k) = e_k exp(r_k) / (sum_j e_j exp(r_j) + exp(c))`` with
  ``c`` the no-click logit (McFadden 1974; RecSim's MultinomialLogitChoiceModel).
* proportional: at most one click, ``P(k) = e_k (r_k - m) / (sum_j e_j (r_j - m) + c - m)`` with the
  least score ``m`` and the no-click score ``c`` (RecSim's MultinomialProportionalChoiceModel).
* exponential_cascade: down the list until the first click, which an item reached gets with
  probability ``e_k min(1, a exp(r_k))`` (RecSim's ExponentialCascadeChoiceModel; ``a`` its
  score scaling, ``e_k`` its attention).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import embedding

from marec_env.catalog.population import Population
from marec_env.compiled import Rows
from marec_env.users.base import Draws
from marec_env.users.config import ChoiceConfig, ExaminationConfig, RelevanceConfig, UsersConfig

__all__ = ["Choice", "Examination", "Module", "Relevance", "Shown"]

_DENSE_SHARE = 32  # from a 32nd of the catalog on, one dense product is faster (measured, CPU)


@dataclass(slots=True)
class Shown:
    """Items that ``B`` sessions are shown, or asked about, and what came of it."""

    slate: Tensor
    """Int64 ``[B, K]``."""
    topics: Tensor
    """Int64 ``[B, K]``, of the items."""
    users: Tensor
    """Int64 ``[B]``."""
    keys: Tensor
    """Int64 ``[B]``, the sessions' keys; ``step`` int64 ``[B]`` counts their requests."""
    step: Tensor
    taste: Tensor
    """Float32 ``[B, d]``, the users' own: a drift writes here."""
    susceptibility: Tensor
    """Float32 ``[B]``, logits lost at full boredom."""
    logits: Tensor = field(init=False)
    """Float32 ``[B, K]``, of a click on the examined item."""
    draws: Draws = field(init=False)
    found: dict[str, Tensor] = field(default_factory=dict)
    """Float32 ``[B, K]``: the behaviours so far, ``click`` first."""
    engagement: Tensor = field(init=False)
    """Float32 ``[B]``; so is ``satisfaction``, after the request."""
    satisfaction: Tensor = field(init=False)
    left: Tensor | None = None
    """Bool ``[B]``: who left, the session at first and in the end for good."""
    gap: Tensor | None = None
    """Float32 ``[B]``, days until the next session where one begins, 0 elsewhere."""
    changed: Rows | None = None
    """Whose interest of the moment is another after the request."""


class Module:
    """A part of the users that remembers something of ``B`` sessions.

    A model calls its modules in a fixed order; each does what it does at any of these points.
    """

    def __init__(self, config: UsersConfig, population: Population, num_sessions: int) -> None:
        """Args:
        config: the section ``users``.
        population: who the users are; the state lives on its device.
        num_sessions: B.
        """
        self._population, self._num_sessions = population, num_sessions
        self._device = population.user_factors.device
        self._first: dict[str, Tensor | float] = {}
        self._live: dict[str, Tensor] = {}
        self._build(config, population)

    def _build(self, config: UsersConfig, population: Population) -> None:
        """Set up the state and what else the module needs.

        Raises:
            ConfigError: the population lacks something, which the message names.
        """

    def _keep(
        self, name: str, first: Tensor | float, *shape: int, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Return state ``[B, *shape]``, which every episode begins with ``first``."""
        live = torch.empty(self._num_sessions, *shape, dtype=dtype, device=self._device)
        self._first[name], self._live[name] = first, live
        Rows().put(live, first)
        return live

    def reset(self, rows: Rows, users: Tensor, keys: Tensor, draw: Tensor) -> None:
        """Begin episodes.

        Args:
            rows: the sessions; the others are of as many rows.
            users: int64 ``[n]``.
            keys: int64 ``[n]``.
            draw: float32 ``[n]``, uniform.
        """
        for name, first in self._first.items():
            rows.put(self._live[name], first)

    def adjust(self, logits: Tensor, shown: Shown) -> Tensor:
        """Return the click logits, float32 ``[B, K]``, after what the module does to them."""
        return logits

    def interest(self, interest: Tensor, rows: Rows) -> Tensor:
        """Return the interest of the moment of ``rows``, float32 ``[n, d]``, likewise."""
        return interest

    def update(self, shown: Shown) -> None:
        """Take one answered request into account."""

    def come_back(self, rows: Rows, rested: Tensor, shown: Shown) -> None:
        """Begin another session of the same episode in ``rows``, after an absence that is worth
        float32 ``[B]`` requests.
        """

    def hidden(self, users: Tensor) -> Tensor | None:
        """Return what a privileged critic may see of the users int64 ``[B]``, float32 ``[B, n]``,
        about [-1, 1].
        """
        return None

    def state(self) -> dict[str, Tensor]:
        """Return the live tensors that make up the state; they are written in place."""
        return self._live


class Relevance:
    """Logits from interests that carry a constant 1 as their last factor.

    The logit's constant part rides along as one more item factor, so that one product of vectors of
    ``d + 1`` gives the whole logit.
    """

    def __init__(self, config: RelevanceConfig, population: Population) -> None:
        """Args:
        config: the section ``users.relevance``.
        population: whose items are rated.
        """
        scale = population.scale * config.scale_factor
        offset = population.quality + (population.intercept + config.intercept_shift)
        self._table = torch.cat([scale * population.item_factors, offset.unsqueeze(1)], dim=1)

    def logits(self, interest: Tensor, items: Tensor | None = None) -> Tensor:
        """Return logits, float32 ``[B, M]`` (or ``[B, N]`` for the whole catalog).

        Args:
            interest: float32 ``[B, d + 1]``, the last factor 1.
            items: int64 ``[B, M]``, or ``None``.
        """
        if items is None:
            return interest @ self._table.T
        if items.shape[1] * _DENSE_SHARE > self._table.shape[0]:
            return (interest @ self._table.T).gather(1, items)
        return torch.bmm(embedding(items, self._table), interest.unsqueeze(2)).squeeze(2)


class Examination:
    """Probabilities of examination by position, and the stopping rule of the cascade."""

    def __init__(self, config: ExaminationConfig, device: torch.device) -> None:
        """Args:
        config: the section ``users.examination``.
        device: where the probabilities live.
        """
        self._config = config
        self._device = device
        self._by_size: dict[int, Tensor] = {}

    def probability(self, slate_size: int) -> Tensor:
        """Return float32 ``[K]``: the probability of looking at each position, clicks aside."""
        if slate_size not in self._by_size:
            config = self._config
            position = torch.arange(slate_size, dtype=torch.float32, device=self._device)
            curve = config.decay**position
            if config.kind == "mixed":
                curve = (curve + curve.flip(0)) / 2
            self._by_size[slate_size] = config.alpha * curve
        return self._by_size[slate_size]

    def draw(self, slate_size: int, draw: Tensor) -> Tensor:
        """Return what to weigh clicks by: the probabilities ``[K]``, or for the cascade, where one
        number decides how far down the user gets, float32 ``[B, K]`` with 1 where they do.

        Args:
            slate_size: K.
            draw: float32 ``[B, 1]``, uniform (cascade only).
        """
        probability = self.probability(slate_size)
        if self._config.kind != "cascade":
            return probability
        return (draw < probability).to(torch.float32)

    def stop(self, clicks: Tensor, draw: Tensor) -> Tensor:
        """Strike out the clicks after the user has stopped (cascade only).

        Args:
            clicks: float32 ``[B, K]``, clicks if every position reached is examined.
            draw: float32 ``[B, 1]``, uniform; inverted to the number of clicks survived, which is
                geometric, so that one number a session suffices.

        Returns:
            Float32 ``[B, K]``.
        """
        stop = getattr(self._config, "stop_after_click", 0.0)
        if stop == 0.0:
            return clicks
        if stop == 1.0:
            allowed = torch.ones_like(draw)
        else:
            allowed = 1.0 + torch.floor(torch.log(draw) / torch.log1p(-torch.tensor(stop)))
        return clicks * (clicks.cumsum(1) <= allowed)


_LARGEST_LOGIT = 80.0  # exp of it is finite in float32


class Choice:
    """One rule of choice."""

    def __init__(self, config: ChoiceConfig) -> None:
        """Args:
        config: the section ``users.choice``.
        """
        self._config = config
        self.single = config.kind in ("multinomial_logit", "proportional")
        """Whether one number a session, not one a position, decides."""

    def _weights(self, logits: Tensor) -> tuple[Tensor, float]:
        """Return the weights of the items and of no click (multinomial rules), up to a factor."""
        config = self._config
        if config.kind == "proportional":
            return (logits - config.min_score).clamp_(min=0.0), config.no_click - config.min_score
        assert config.kind == "multinomial_logit"
        # Relative to the no-click logit: the ratio is all that counts, and it stays finite.
        return torch.exp((logits - config.no_click).clamp(max=_LARGEST_LOGIT)), 1.0

    def alone(self, logits: Tensor) -> Tensor:
        """Return the click probability of examined items, each alone on its slate, ``[B, M]``."""
        if self._config.kind == "independent":
            return torch.sigmoid(logits)
        if self._config.kind == "exponential_cascade":
            scaled = self._config.score_scaling * torch.exp(logits.clamp(max=_LARGEST_LOGIT))
            return scaled.clamp_(max=1.0)
        weights, nothing = self._weights(logits)
        total = weights + nothing
        return torch.where(total > 0, weights / total.clamp(min=1e-30), 0.0)

    def probability(self, logits: Tensor, examined: Tensor) -> Tensor:
        """Return the click probability of each position of these slates.

        Args:
            logits: float32 ``[B, K]``.
            examined: float32 ``[K]`` or ``[B, K]`` in [0, 1].

        Returns:
            Float32 ``[B, K]``.
        """
        if self._config.kind == "independent":
            return examined * torch.sigmoid(logits)
        if self._config.kind == "exponential_cascade":
            reached = examined * self.alone(logits)
            passed = torch.cumprod(1.0 - reached, dim=1)
            return reached * torch.cat([torch.ones_like(passed[:, :1]), passed[:, :-1]], dim=1)
        weights, nothing = self._weights(logits)
        weights = weights * examined
        total = weights.sum(1, keepdim=True) + nothing
        return torch.where(total > 0, weights / total.clamp(min=1e-30), 0.0)

    def clicks(self, logits: Tensor, examined: Tensor, each: Tensor, one: Tensor) -> Tensor:
        """Draw the clicks.

        Args:
            logits: float32 ``[B, K]``.
            examined: float32 ``[K]`` or ``[B, K]`` in [0, 1].
            each: float32 ``[B, K]``, uniform.
            one: float32 ``[B, 1]``, uniform; used instead by the multinomial rules.

        Returns:
            Float32 ``[B, K]`` of 0 and 1.
        """
        if self._config.kind == "independent":
            return (each < examined * torch.sigmoid(logits)).to(torch.float32)
        if self._config.kind == "exponential_cascade":
            hit = (each < examined * self.alone(logits)).to(torch.float32)
            return hit * (hit.cumsum(1) <= 1)
        upper = self.probability(logits, examined).cumsum(1)
        below = (one < upper).to(torch.float32)
        return torch.diff(below, dim=1, prepend=torch.zeros_like(below[:, :1]))
