"""What scenarios do to the logit of a click: price, wear-out, tiredness and friends.

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
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env import random
from marec_env.catalog.population import Population
from marec_env.data.interactions import lexicographic
from marec_env.data.scenarios.numbers import (
    FRIENDS_BY_CHANCE,
    FRIENDS_NEAR,
    PEOPLE_MET,
    PRICE_LEVEL_SPREAD,
)
from marec_env.errors import ConfigError
from marec_env.users.base import Module, Shown, pick
from marec_env.users.config import UsersConfig
from marec_env.vector import Rows


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


class PriceSense(Module):
    """Logits lost to prices; it has no state."""

    def _build(self, config: UsersConfig, population: Population) -> None:
        price = needed_attribute(population, "price", "users.price.sensitivity")
        log_price = price.to(torch.float32).clamp(min=_CHEAPEST).log()
        middle = torch.zeros(population.num_topics, device=log_price.device)
        for topic in torch.unique(population.topics):
            middle[topic] = log_price[population.topics == topic].median()
        self._sensitivity = config.price.sensitivity
        self.dearness = log_price - middle[population.topics]
        """Float32 ``[N]``."""
        self.level = PRICE_LEVEL_SPREAD * trait(population, "price_level")
        """Float32 ``[U]``."""

    def loss(self, items: Tensor, users: Tensor) -> Tensor:
        """Return logits lost by int64 ``[B, M]`` items to int64 ``[B]`` users."""
        above = self.dearness[items] - self.level[users].unsqueeze(1)
        return self._sensitivity * above.clamp_(min=0.0)

    def adjust(self, logits: Tensor, shown: Shown) -> Tensor:
        """Take :meth:`loss` off."""
        return logits - self.loss(shown.slate, shown.users)

    def hidden(self, users: Tensor) -> Tensor:
        """Return the price level."""
        return self.level[users].unsqueeze(1)


_SIGHTINGS_KEPT = 0.9  # from request to request (assumption)


class WearOut(Module):
    """Sightings of ``P`` providers by ``B`` sessions."""

    def _build(self, config: UsersConfig, population: Population) -> None:
        self._weight = config.wear_out.weight
        self._provider = needed_providers(
            population, "users.wear_out.weight is above 0", "the weight to 0"
        )
        self.seen = self._keep("seen", 0.0, int(self._provider.max()) + 1)
        """Float32 ``[B, P]``."""

    def adjust(self, logits: Tensor, shown: Shown) -> Tensor:
        """Take off what repetition costs."""
        seen = self.seen.gather(1, self._provider[shown.slate])
        return logits - self._weight * torch.log1p(seen)

    def update(self, shown: Shown) -> None:
        """Count who was seen."""
        once = torch.ones(shown.slate.shape, device=self.device)
        self.seen.mul_(_SIGHTINGS_KEPT).scatter_add_(1, self._provider[shown.slate], once)

    def hidden(self, users: Tensor) -> Tensor:
        """Return log(1 + sightings)."""
        return torch.log1p(self.seen)


class Tiredness(Module):
    """Minutes that ``B`` sessions have watched."""

    def _build(self, config: UsersConfig, population: Population) -> None:
        self._minutes = config.tiredness.minutes
        self.watched = self._keep("watched", 0.0)
        """Float32 ``[B]``, minutes."""

    def hidden(self, users: Tensor) -> Tensor:
        """Return the logits that every item loses now, float32 ``[B, 1]``."""
        return (self.watched / self._minutes).unsqueeze(1)

    def adjust(self, logits: Tensor, shown: Shown) -> Tensor:
        """Take :meth:`hidden` off."""
        return logits - self.hidden(shown.users)

    def update(self, shown: Shown) -> None:
        """Add the minutes of a request."""
        self.watched += shown.found["watch_time"].sum(1)


_CELLS = 1 << 22  # likenesses computed at once


_ACTIVITY = 0.1  # probability a request that a friend endorses one more item (assumption)
_ENDORSEMENT_KEPT = 0.9  # share of its weight from request to request (assumption)


def befriend(population: Population) -> Tensor:
    """Return each user's friends, int64 ``[U, near + chance]``; never the user, where there is
    anybody else.

    Where the log has a graph they are drawn from the user's friends there, -1 where there are too
    few; else they are the nearest in taste among people met, and some by chance.
    """
    users = population.num_users
    device = population.user_factors.device
    place = torch.arange(users, device=device)
    keys = random.session_keys(0, place)
    if population.friends is not None:
        return _of_graph(population.friends, users)
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


def _of_graph(pairs: Tensor, users: int) -> Tensor:
    """Return at most ``near + chance`` friends of each user, drawn among the pairs' ``[F, 2]``."""
    user, friend = pairs.T
    width = FRIENDS_NEAR + FRIENDS_BY_CHANCE
    keys = random.session_keys(0, user * users + friend)
    draw = random.uniform(keys, 0, "users/friends_of_graph", 1).squeeze(1)
    order = lexicographic(draw, user)
    user, friend = user[order], friend[order]
    count = torch.bincount(user, minlength=users)
    rank = torch.arange(len(user), device=user.device) - (count.cumsum(0) - count)[user]
    kept = rank < width
    table = torch.full((users, width), -1, dtype=torch.int64, device=user.device)
    table[user[kept], rank[kept]] = friend[kept]
    return table


class Friends(Module):
    """Endorsements that ``B`` sessions see of ``N`` items."""

    def _build(self, config: UsersConfig, population: Population) -> None:
        self._influence = config.friends.influence
        self.friends = befriend(population)
        """Int64 ``[U, F]``; -1 for none."""
        self._likes = population.history.likes()
        self._count = self._likes.count
        self.endorsed = self._keep("endorsed", 0.0, population.num_items)
        """Float32 ``[B, N]``."""

    def _endorse(self, rows: Rows, users: Tensor, chosen: Tensor, active: Tensor | bool) -> None:
        """Let the friends of ``users`` who are ``active`` endorse one liked item each."""
        friends = self.friends[users]
        count = torch.where(friends >= 0, self._count[friends], 0)
        item = self._likes.item[self._likes.begin[friends] + pick(chosen, count.clamp(min=1))]
        weight = (active & (count > 0)).to(torch.float32)
        # An unliked history has no item to name: its weight is 0 wherever it lands.
        before = rows.of(self.endorsed)
        added = torch.zeros_like(before).scatter_add_(1, item.clamp(min=0), weight)
        rows.put(self.endorsed, before + added)

    def reset(self, rows: Rows, users: Tensor, keys: Tensor, draw: Tensor) -> None:
        """Let every friend endorse an item."""
        super().reset(rows, users, keys, draw)
        chosen = random.uniform(keys, 0, "users/friends_reset", self.friends.shape[1])
        self._endorse(rows, users, chosen, True)

    def adjust(self, logits: Tensor, shown: Shown) -> Tensor:
        """Add what endorsements win."""
        return logits + self._influence * torch.log1p(self.endorsed.gather(1, shown.slate))

    def update(self, shown: Shown) -> None:
        """Let old endorsements fade and some friends endorse anew."""
        count = self.friends.shape[1]
        draws = random.uniform(shown.keys, shown.step, "users/friends", 2 * count)
        self.endorsed *= _ENDORSEMENT_KEPT
        self._endorse(Rows(), shown.users, draws[:, count:], draws[:, :count] < _ACTIVITY)
