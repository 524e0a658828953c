"""What scenarios do to the logit of a click: price, wear-out, tiredness and friends.

Traits of the users that no factor holds, and attributes that scenarios need.

Price sensitivity: what is dearer than a user's level loses logits.

    dearness(i) = log price(i) - median log price of the item's topic,
    loss(u, i)  = sensitivity * max(0, dearness(i) - level(u)),    level ~ N(0, level_spread^2)

A log-price term in the logit of choice is that of discrete choice models of demand (McFadden 1974;
Train, "Discrete choice methods with simulation", 2009, ch. 2); that only what lies above a
reference price counts follows loss aversion about reference prices (Kalyanaram and Winer 1995).
Price is judged within the topic: a cheap tablet is not a dear book.

Wear-out: an advertiser seen too often of late is clicked less.

    loss(i) = weight * log(1 + n_p),    n_p <- memory n_p + items of provider p shown

Advertisements wear out with repetition (review: Pechmann and Stewart 1988); form and size are
assumptions. A pipeline shows an item once a session, so what is repeated, and wears out, is its
provider.

Tiredness: minutes watched in a session cost logits.

    loss = watched / minutes,    watched <- watched + watch time of the request

An assumption of form: the hazard of ending a viewing session rises with the time spent.

Friends' influence: what friends endorsed of late is wanted more.

    gain(i) = influence * log(1 + e_i),    e <- memory e + endorsements of the request

A user's friends are the nearest in taste among the people met, and some by chance (homophily:
McPherson, Smith-Lovin and Cook 2001). Every friend has endorsed one item when a session begins and
endorses another with probability ``activity`` a request, each time one that they liked in the log.
That popularity among others moves choices was shown by experiment (Salganik, Dodds and Watts 2006);
the logarithm and the size are assumptions. Friends' own sessions are not simulated, so that a
session does not depend on the batch it runs in.

What scenarios do to the logit of a click, together: price, wear-out, tiredness and friends.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from marec_env import random
from marec_env.catalog.population import Population
from marec_env.data.scenarios.numbers import (
    FRIENDS_BY_CHANCE,
    FRIENDS_NEAR,
    PEOPLE_MET,
    PRICE_LEVEL_SPREAD,
)
from marec_env.errors import ConfigError
from marec_env.users.base import pick
from marec_env.users.config import UsersConfig
from marec_env.users.scenario_config import (
    FriendsConfig,
    PriceConfig,
    TirednessConfig,
    WearOutConfig,
)

__all__ = [
    "Effects",
    "Friends",
    "PriceSense",
    "Tiredness",
    "WearOut",
    "befriend",
    "needed_attribute",
    "needed_providers",
    "trait",
]


def trait(population: Population, name: str) -> Tensor:
    """Return a standard normal number of each user, float32 ``[U]``: the same in every session."""
    users = torch.arange(population.num_users, device=population.user_factors.device)
    return random.normal(random.session_keys(0, users), 0, f"users/trait/{name}", 1).squeeze(1)


def needed_attribute(population: Population, name: str, what_for: str) -> Tensor:
    """Return an item attribute, float32 ``[N]``.

    Raises:
        ConfigError: the population has none of that name; says what needs it and what there is.
    """
    found = population.item_attributes.get(name)
    if found is None:
        there = ", ".join(sorted(population.item_attributes)) or "none"
        raise ConfigError(
            f"{what_for} needs the item attribute '{name}', which the data lack (there: {there}); "
            "choose a data.source that has it or switch this off"
        )
    return found


def needed_providers(population: Population, what: str, cure: str) -> Tensor:
    """Return who offers each item, int64 ``[N]``.

    Args:
        population: whose items.
        what: needs them, for the message.
        cure: what to set instead.

    Raises:
        ConfigError: the population does not say who offers its items.
    """
    if population.providers is None:
        raise ConfigError(
            f"{what}, but the population has no providers; set Population.providers or {cure}"
        )
    return population.providers


_CHEAPEST = 1e-6  # currency units; keeps the logarithm of a free item finite


class PriceSense:
    """Logits lost to prices; it has no state."""

    def __init__(self, config: PriceConfig, population: Population) -> None:
        """Args:
        config: the section ``users.price``.
        population: its items need the attribute ``price`` (currency units).
        """
        price = needed_attribute(population, "price", "users.price.sensitivity")
        log_price = price.to(torch.float32).clamp(min=_CHEAPEST).log()
        middle = torch.zeros(population.num_topics, device=log_price.device)
        for topic in torch.unique(population.topics):
            middle[topic] = log_price[population.topics == topic].median()
        self._sensitivity = config.sensitivity
        self.dearness = log_price - middle[population.topics]
        """Float32 ``[N]``."""
        self.level = PRICE_LEVEL_SPREAD * trait(population, "price_level")
        """Float32 ``[U]``."""

    def loss(self, items: Tensor, users: Tensor) -> Tensor:
        """Return logits lost by int64 ``[B, M]`` items to int64 ``[B]`` users."""
        above = self.dearness[items] - self.level[users].unsqueeze(1)
        return self._sensitivity * above.clamp_(min=0.0)


_SIGHTINGS_KEPT = 0.9  # from request to request (assumption)


class WearOut:
    """Sightings of ``P`` providers by ``B`` sessions."""

    def __init__(self, config: WearOutConfig, num_sessions: int, population: Population) -> None:
        """Args:
        config: the section ``users.wear_out``.
        num_sessions: B.
        population: its ``providers`` must be given.

        Raises:
            ConfigError: the population does not say who offers its items.
        """
        self._config = config
        self._provider = needed_providers(
            population, "users.wear_out.weight is above 0", "the weight to 0"
        )
        providers = int(self._provider.max()) + 1
        self.seen = torch.zeros(num_sessions, providers, device=self._provider.device)
        """Float32 ``[B, P]``."""

    def reset(self, rows: Tensor) -> None:
        """Forget what the sessions ``rows`` (int64 ``[n]``) saw."""
        self.seen[rows] = 0.0

    def loss(self, items: Tensor) -> Tensor:
        """Return logits lost by int64 ``[B, M]`` items."""
        return self._config.weight * torch.log1p(self.seen.gather(1, self._provider[items]))

    def update(self, slate: Tensor) -> None:
        """Take one slate, int64 ``[B, K]``, into account."""
        once = torch.ones(slate.shape, device=slate.device)
        self.seen.mul_(_SIGHTINGS_KEPT).scatter_add_(1, self._provider[slate], once)


class Tiredness:
    """Minutes that ``B`` sessions have watched."""

    def __init__(self, config: TirednessConfig, num_sessions: int, device: torch.device) -> None:
        """Args:
        config: the section ``users.tiredness``, with ``minutes`` above 0.
        num_sessions: B.
        device: where the state lives.
        """
        self._minutes = config.minutes
        self.watched = torch.zeros(num_sessions, device=device)
        """Float32 ``[B]``, minutes."""

    def reset(self, rows: Tensor) -> None:
        """Let the sessions ``rows`` (int64 ``[n]``) begin rested."""
        self.watched[rows] = 0.0

    def loss(self) -> Tensor:
        """Return the logits that every item loses now, float32 ``[B, 1]``."""
        return (self.watched / self._minutes).unsqueeze(1)

    def update(self, watch_time: Tensor) -> None:
        """Add float32 ``[B, K]`` minutes."""
        self.watched += watch_time.sum(1)


_CELLS = 1 << 22  # likenesses computed at once


_ACTIVITY = 0.1  # probability a request that a friend endorses one more item (assumption)
_ENDORSEMENT_KEPT = 0.9  # share of its weight from request to request (assumption)


def befriend(population: Population) -> Tensor:
    """Return each user's friends, int64 ``[U, near + chance]``; never the user, where there is
    anybody else.
    """
    users = population.num_users
    device = population.user_factors.device
    place = torch.arange(users, device=device)
    keys = random.session_keys(0, place)
    # Drawn among the others: a draw at or above one's own place means the next user.
    met = random.integers(keys, 0, "users/met", PEOPLE_MET, max(users - 1, 1))
    chance = random.integers(keys, 0, "users/chance_friend", FRIENDS_BY_CHANCE, max(users - 1, 1))
    if users > 1:
        met += met >= place.unsqueeze(1)
        chance += chance >= place.unsqueeze(1)
    factors = population.user_factors
    near = min(FRIENDS_NEAR, PEOPLE_MET)
    step = max(1, _CELLS // (PEOPLE_MET * factors.shape[1]))
    parts = []
    for rows in torch.split(place, step):
        likeness = torch.einsum("ud,umd->um", factors[rows], factors[met[rows]])
        parts.append(met[rows].gather(1, likeness.topk(near, dim=1).indices))
    return torch.cat([torch.cat(parts), chance], dim=1)


class Friends:
    """Endorsements that ``B`` sessions see of ``N`` items."""

    def __init__(self, config: FriendsConfig, num_sessions: int, population: Population) -> None:
        """Args:
        config: the section ``users.friends``.
        num_sessions: B.
        population: whose users befriend each other and whose histories tell what they like.
        """
        self._config = config
        self.friends = befriend(population)
        """Int64 ``[U, F]``."""
        liked = population.history_liked & (population.history >= 0)
        order = liked.to(torch.int8).argsort(dim=1, descending=True, stable=True)
        self._liked = population.history.gather(1, order)
        self._count = liked.sum(1)
        self.endorsed = torch.zeros(
            num_sessions, population.num_items, device=population.user_factors.device
        )
        """Float32 ``[B, N]``."""

    def _endorse(self, rows: Tensor, users: Tensor, chosen: Tensor, active: Tensor) -> None:
        """Let the friends of ``users`` who are ``active`` endorse one liked item each."""
        if self._liked.shape[1] == 0:
            return
        friends = self.friends[users]
        count = self._count[friends]
        item = self._liked[friends, pick(chosen, count.clamp(min=1))]
        weight = (active & (count > 0)).to(torch.float32)
        # An unliked history has no item to name: its weight is 0 wherever it lands.
        added = torch.zeros(len(rows), self.endorsed.shape[1], device=rows.device)
        self.endorsed[rows] += added.scatter_add_(1, item.clamp(min=0), weight)

    def reset(self, rows: Tensor, users: Tensor, keys: Tensor) -> None:
        """Begin the sessions ``rows`` (int64 ``[n]``) of ``users``, with their ``keys``."""
        self.endorsed[rows] = 0.0
        chosen = random.uniform(keys, 0, "users/friends_reset", self.friends.shape[1])
        self._endorse(rows, users, chosen, torch.ones_like(chosen, dtype=torch.bool))

    def gain(self, items: Tensor) -> Tensor:
        """Return the logits won by int64 ``[B, M]`` items."""
        return self._config.influence * torch.log1p(self.endorsed.gather(1, items))

    def update(self, users: Tensor, keys: Tensor, step: Tensor) -> None:
        """Let a request pass: old endorsements fade, some friends endorse anew."""
        count = self.friends.shape[1]
        draws = random.uniform(keys, step, "users/friends", 2 * count)
        self.endorsed *= _ENDORSEMENT_KEPT
        active = draws[:, :count] < _ACTIVITY
        self._endorse(
            torch.arange(len(users), device=users.device), users, draws[:, count:], active
        )


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
