"""Friends' influence: what friends endorsed of late is wanted more.

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
from marec_env.users.draws import pick
from marec_env.users.scenario.config import FriendsConfig

__all__ = ["Friends", "befriend"]

_CELLS = 1 << 22  # likenesses computed at once


def befriend(config: FriendsConfig, population: Population) -> Tensor:
    """Return each user's friends, int64 ``[U, near + chance]``; never the user, where there is
    anybody else.
    """
    users = population.num_users
    device = population.user_factors.device
    place = torch.arange(users, device=device)
    keys = random.session_keys(0, place)
    # Drawn among the others: a draw at or above one's own place means the next user.
    met = random.integers(keys, 0, "users/met", config.met, max(users - 1, 1))
    chance = random.integers(keys, 0, "users/chance_friend", config.chance, max(users - 1, 1))
    if users > 1:
        met += met >= place.unsqueeze(1)
        chance += chance >= place.unsqueeze(1)
    factors = population.user_factors
    near = min(config.near, config.met)
    step = max(1, _CELLS // (config.met * factors.shape[1]))
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
        self.friends = befriend(config, population)
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
        self.endorsed *= self._config.memory
        active = draws[:, :count] < self._config.activity
        self._endorse(
            torch.arange(len(users), device=users.device), users, draws[:, count:], active
        )
