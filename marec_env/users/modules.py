"""What users are composed of by default: what they want, look at and click, and when they leave.

Relevance: the click logit of an item for an interest.

    r = factor * scale * (u . x) + quality + intercept + shift

with ``scale`` and ``intercept`` calibrated on the log (a matrix-factorisation model with item bias:
Koren, Bell and Volinsky, "Matrix factorization techniques for recommender systems", 2009).

Intent: a passing interest mixed into the lasting taste.

The present interest is ``normalise((1 - w) u + w v)``; it keeps unit length so that the calibrated
scale keeps its meaning. ``v`` is the factor of one item: one the user liked before (the default;
any item of the catalog for users without likes), or any item at all. After each request it is
replaced with the configured probability, so what :meth:`Intent.interest` returns between two
requests is what the next response uses.

Boredom as an exposure state per topic: build-up, threshold and recovery.

With ``share`` the share of the slate in the topic, every request

    m <- memory m + (1 - memory) share,
    b = clamp((m - threshold) / (saturation - threshold), 0, 1)     (threshold)
    b = clamp(m / saturation, 0, 1)                                 (continuous)

and the click logit of a topic's item falls by ``weight b`` for susceptible users. Recovery is the
same decay without exposure. Forms of this kind: Leqi et al., "Rebounding bandits for modelling
satiation effects", NeurIPS 2021 (linear dynamics); the threshold is ours: a little repetition costs
nothing.

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

Patience: why and when a user leaves a session.

    P <- min(maximum, P + gain * engagement - cost)

* budget: the user leaves when ``P <= 0``. The engagement at which patience stays level is
  ``cost / gain``.
* hazard: the user also leaves with probability ``hazard * exp(-hazard_slope * P)`` a request.

The budget is RecSim's time budget (Ie et al., "RecSim", 2019) in units of engagement; the hazard is
the usual form in survival analysis with a log-linear covariate (Cox 1972).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding, normalize

from marec_env.catalog.population import Population
from marec_env.users import base as lane
from marec_env.users.base import Module, Shown, pick
from marec_env.users.config import (
    BudgetPatience,
    ChoiceConfig,
    ContinuousBoredom,
    ExaminationConfig,
    HazardPatience,
    RelevanceConfig,
    ThresholdBoredom,
    UsersConfig,
)
from marec_env.vector import Rows

_DENSE_SHARE = 32  # from a 32nd of the catalog on, one dense product is faster (measured, CPU)


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
        """Return the click probability of each position, float32 ``[B, K]``, from logits of that
        shape and what is examined, ``[K]`` or ``[B, K]`` in [0, 1].
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
        """Return the clicks, float32 ``[B, K]`` of 0 and 1; see :meth:`probability`.

        Args:
            logits: float32 ``[B, K]``.
            examined: float32 ``[K]`` or ``[B, K]``.
            each: float32 ``[B, K]``, uniform.
            one: float32 ``[B, 1]``, uniform; used instead by the multinomial rules.
        """
        if self._config.kind == "independent":
            return (each < examined * torch.sigmoid(logits)).to(torch.float32)
        if self._config.kind == "exponential_cascade":
            hit = (each < examined * self.alone(logits)).to(torch.float32)
            return hit * (hit.cumsum(1) <= 1)
        upper = self.probability(logits, examined).cumsum(1)
        below = (one < upper).to(torch.float32)
        return torch.diff(below, dim=1, prepend=torch.zeros_like(below[:, :1]))


class Intent(Module):
    """The item that stands for the passing interest of each of ``B`` sessions."""

    def _build(self, config: UsersConfig, population: Population) -> None:
        self._own, self._items = config.intent, population.num_items
        self._likes = population.history.likes()
        self._count = self._likes.count
        if self._own.source == "catalog":
            self._count = torch.zeros_like(self._count)
        self.item = self._keep("item", 0, dtype=torch.int64)
        """Int64 ``[B]``."""

    def _draw(self, users: Tensor, draw: Tensor) -> Tensor:
        count = self._count[users]
        some = self._likes.item[self._likes.begin[users] + pick(draw, count.clamp(min=1))]
        return torch.where(count > 0, some, pick(draw, self._items))

    def reset(self, rows: Rows, users: Tensor, keys: Tensor, draw: Tensor) -> None:
        """Draw an intent."""
        rows.put(self.item, self._draw(users, draw))

    def update(self, shown: Shown) -> None:
        """Replace intents by chance."""
        switch = shown.draws.scalars[:, lane.INTENT_SWITCH] < self._own.switch_probability
        rows = Rows(switch)
        self._renew(rows, shown)
        shown.changed = shown.changed or rows

    def _renew(self, rows: Rows, shown: Shown) -> None:
        draw = shown.draws.scalars[:, lane.INTENT_PICK]
        rows.put(self.item, self._draw(rows.of(shown.users), rows.of(draw)))

    def come_back(self, rows: Rows, rested: Tensor, shown: Shown) -> None:
        """Draw an intent for the new session."""
        self._renew(rows, shown)

    def interest(self, interest: Tensor, rows: Rows) -> Tensor:
        """Mix the intents into tastes, float32 ``[n, d]``, unit length."""
        return self.mixed(interest, rows.of(self.item))

    def mixed(self, taste: Tensor, items: Tensor) -> Tensor:
        """Return the interests of the moment of tastes ``[..., d]`` with intents int64 ``[...]``,
        unit length.
        """
        direction = self._population.item_factors[items]
        return normalize(taste.lerp(direction, self._own.weight), dim=-1)

    def hidden(self, users: Tensor) -> Tensor:
        """Return the intents' factors, float32 ``[B, d]``."""
        return self._population.item_factors[self.item]


class Patience(Module):
    """The patience left to each of ``B`` sessions; kind budget or hazard."""

    def _build(self, config: UsersConfig, population: Population) -> None:
        assert isinstance(config.patience, BudgetPatience)
        self._own = config.patience
        self.left = self._keep("left", self._own.initial)
        """Float32 ``[B]``."""

    def update(self, shown: Shown) -> None:
        """Say who leaves the session."""
        own = self._own
        self.left.add_(shown.engagement, alpha=own.gain).sub_(own.cost)
        self.left.clamp_(max=own.maximum)
        shown.left = self.left <= 0
        if isinstance(own, HazardPatience):
            chance = own.hazard * torch.exp(-own.hazard_slope * self.left)
            shown.left = shown.left | (shown.draws.scalars[:, lane.LEAVE] < chance)

    def come_back(self, rows: Rows, rested: Tensor, shown: Shown) -> None:
        """Give the new session its initial patience."""
        rows.put(self.left, self._own.initial)

    def hidden(self, users: Tensor) -> Tensor:
        """Return patience over its maximum, float32 ``[B, 1]``, in [-1, 1]."""
        return (self.left / self._own.maximum).clamp(-1.0, 1.0).unsqueeze(1)


class ExposureBoredom(Module):
    """Exposure ``m`` of ``B`` sessions to ``T`` topics and the boredom that follows from it; kind
    threshold or continuous.
    """

    def _build(self, config: UsersConfig, population: Population) -> None:
        own = config.boredom
        assert isinstance(own, ContinuousBoredom)
        self._memory = own.memory
        self._start = own.threshold if isinstance(own, ThresholdBoredom) else 0.0
        self._slope = 1.0 / (own.saturation - self._start)
        self.exposure = self._keep("exposure", 0.0, population.num_topics)
        """Float32 ``[B, T]``, in [0, 1]."""

    def _bored(self, exposure: Tensor) -> Tensor:
        return ((exposure - self._start) * self._slope).clamp_(0.0, 1.0)

    def level(self, topics: Tensor | None = None) -> Tensor:
        """Return boredom in [0, 1]: of int64 ``[B, M]`` topics, or of all, ``[B, T]``."""
        return self._bored(self.exposure if topics is None else self.exposure.gather(1, topics))

    def adjust(self, logits: Tensor, shown: Shown) -> Tensor:
        """See :meth:`Module.adjust`."""
        loss = self.level(shown.topics).mul_(shown.susceptibility.unsqueeze(1))
        return logits.sub_(loss)

    def update(self, shown: Shown) -> None:
        """Take the topics of one slate into the exposure."""
        self.expose(shown.topics)

    def expose(self, topics: Tensor) -> None:
        """Take a slate of int64 ``[B, K]`` topics into the exposure."""
        share = (1.0 - self._memory) / topics.shape[1]
        shares = torch.full(topics.shape, share, device=self.device)
        self.exposure.mul_(self._memory).scatter_add_(1, topics, shares)

    def room(self, slate_size: int, step: Tensor) -> Tensor:
        """Return how many items of each topic fit into a slate without boredom at the next request,
        int64 ``[B, T]``: the largest ``n`` with ``memory m + (1 - memory) n / K <= threshold``.
        """
        slack = (self._start - self._memory * self.exposure) / (1.0 - self._memory)
        # The small margin keeps a quotient that is whole in exact arithmetic from falling short.
        return torch.floor(slack * slate_size + 1e-4).clamp_(min=0).to(torch.int64)

    def ahead(self, counts: Tensor, slate_size: int, requests: Tensor) -> Tensor:
        """Return boredom if slates hold so many items of each topic from now on.

        Args:
            counts: float32 ``[C]``, items of the topic in every slate.
            slate_size: K.
            requests: float32 ``[H]``, how many such slates ahead.

        Returns:
            Float32 ``[B, T, C, H]`` in [0, 1].
        """
        kept = self._memory**requests
        exposure = self.exposure[:, :, None, None] * kept
        return self._bored(exposure + (counts / slate_size)[:, None] * (1.0 - kept))

    def come_back(self, rows: Rows, rested: Tensor, shown: Shown) -> None:
        """Let the exposure decay as over so many requests without any."""
        kept = (self._memory ** rows.of(rested)).unsqueeze(1)
        rows.put(self.exposure, rows.of(self.exposure) * kept)

    def hidden(self, users: Tensor) -> Tensor:
        """Return :meth:`level`."""
        return self.level()
