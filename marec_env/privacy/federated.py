"""Item factors learned where the users are: shards of users train, a server averages.

In a round some shards (clients) take the server's item factors, do sweeps of alternating least
squares on their own users, and send item factors back; the server takes their mean, each item
weighted by the interactions that a shard has with it (FedAvg; H. McMahan et al., AISTATS 2017).
With ``proximal`` a client also stays near to what it was sent (FedProx; T. Li et al., MLSys 2020).
Users' own vectors never leave a shard. Secure aggregation is not done: the server sees each answer.

With ``noise`` answers are changes of the factors, shortened to length ``clip``, of which the server
adds up what it gets, with normal noise, and divides by the expected number: private for a shard
with all its users, or for a user where each is a shard.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from marec_env import random
from marec_env.config import ConfigModel, between, share
from marec_env.data.factors import INITIAL, Factors, ObservedRows
from marec_env.data.interactions import InteractionLog
from marec_env.errors import DataError
from marec_env.privacy.accountant import Releases, epsilon_spent
from marec_env.privacy.mechanisms import keyed_normal, noise_key

_FLOAT = 4  # bytes of a number that is sent


class FederatedConfig(ConfigModel):
    """Rounds of learning over shards of the users."""

    shards: int = Field(default=20, ge=1, le=100_000, description="clients, each with its users")
    split: Literal["even", "sorted"] = Field(
        default="even",
        description="even: users by chance; sorted: by how popular their items are, so that shards "
        "differ",
    )
    rounds: int = Field(default=10, ge=1, le=10_000, description="times the server averages")
    local_sweeps: int = Field(default=1, ge=1, le=100, description="of a client in a round")
    client_share: float = Field(
        default=1.0, gt=0.0, le=1.0, description="probability that a client takes part in a round"
    )
    dropout: float = share(0.0, "probability that a client that takes part never answers")
    proximal: float = Field(
        default=0.0, ge=0.0, description="FedProx: weight of staying near what was sent; 0: FedAvg"
    )
    noise: float = Field(
        default=0.0, ge=0.0, description="standard deviation of noise over the clip; 0: none"
    )
    clip: float = between(
        1.0, 1e-6, 1e6, "length of a client's answer at most, where there is noise"
    )
    delta: float = Field(default=1e-5, gt=0.0, le=1e-2, description="δ of the stated ε")


@dataclass(frozen=True, slots=True)
class FederatedReport:
    """What learning cost."""

    answers: int
    """That arrived, over all rounds."""
    lost: int
    """Clients that took part and never answered, over all rounds."""
    bytes_down: int
    """Sent to clients."""
    bytes_up: int
    """Sent by clients."""
    epsilon: float | None
    """Of a shard at the configured δ, by Rényi moments; ``None`` without noise."""

    @property
    def line(self) -> str:
        """The report on factors in one line."""
        noise = (
            "" if self.epsilon is None else f"; ε = {self.epsilon:.4g} of a shard, factors alone"
        )
        return (
            f"factors learned over shards of the users: {self.answers:,} answers, {self.lost:,} "
            f"lost; {self.bytes_down / 1e6:.1f} MB sent to them and {self.bytes_up / 1e6:.1f} MB "
            f"back, without secure aggregation{noise}"
        )


def shards_of(log: InteractionLog, config: FederatedConfig, seed: int) -> Tensor:
    """Return each user's shard, int64 ``[U]``, of sizes that differ by one at most."""
    keys = random.session_keys(seed, torch.arange(log.num_users))
    order = random.uniform(keys, 0, "federated/shard", 1).squeeze(1)
    if config.split == "sorted":
        count = torch.bincount(log.item, minlength=log.num_items).to(torch.float64)
        mine = torch.zeros(log.num_users, dtype=torch.float64).index_add_(
            0, log.user, count[log.item]
        )
        order = mine / torch.bincount(log.user, minlength=log.num_users).clamp_min(1)
    place = torch.empty(log.num_users, dtype=torch.int64)
    place[torch.argsort(order, stable=True)] = torch.arange(log.num_users)
    return place * config.shards // log.num_users


class _Client:
    """A shard: its users' interactions stay here."""

    def __init__(
        self, log: InteractionLog, ridge: float, confidence: float, share: float = 1.0
    ) -> None:
        """``share`` of all users is here, and so much of the items' ridge term: the shards' losses
        add up to the loss of all.
        """
        self._weight = confidence * torch.where(log.liked, 1.0, 0.5).to(torch.float64)
        users, user = torch.unique(log.user, return_inverse=True)
        self._by_user = ObservedRows(user, log.item, len(users))
        self._by_item = ObservedRows(log.item, user, log.num_items)
        self._ridge, self._share = ridge, share
        self.count = self._by_item.length.to(torch.float64)
        """Float64 ``[N]``: interactions with each item."""

    def train(self, sent: Tensor, sweeps: int, proximal: float) -> Tensor:
        """Return item factors, float64 ``[N, d]``, after sweeps from those sent."""
        item, target = sent, 1.0 + self._weight
        identity = torch.eye(sent.shape[1], dtype=torch.float64)
        for _ in range(sweeps):
            base = item.T @ item + self._ridge * identity
            user = self._by_user.solve(item, self._weight, target, base)
            base = user.T @ user + (self._share * self._ridge + proximal) * identity
            towards = proximal * sent if proximal else None
            item = self._by_item.solve(user, self._weight, target, base, towards)
        return item


def fit_federated(
    log: InteractionLog,
    dim: int,
    config: FederatedConfig,
    *,
    ridge: float = 8.0,
    confidence: float = 4.0,
    seed: int = 0,
) -> tuple[Factors, FederatedReport]:
    """Fit the implicit model of :func:`marec_env.data.factors.fit_factors` over shards of users.

    With one shard that always answers it is that fit of ``rounds * local_sweeps`` sweeps.

    Args:
        log: of all users; a client is given its own only.
        dim: of the factors.
        config: see the class.
        ridge, confidence: as of :func:`fit_factors`.
        seed: of shards, first factors, sampling, losses.

    Raises:
        DataError: the log has no interactions, or fewer users than shards.
        ConfigError: opacus, which counts ε, is missing.
    """
    if log.num_interactions == 0 or log.num_users < config.shards:
        raise DataError(
            f"federated: {log.num_users} users with {log.num_interactions} interactions for "
            f"{config.shards} shards; each needs a user"
        )
    shard = shards_of(log, config, seed)
    clients = [
        _Client(log.select(shard[log.user] == place), ridge, confidence, share_of)
        for place, share_of in enumerate(
            (torch.bincount(shard, minlength=config.shards) / log.num_users).tolist()
        )
    ]
    keys = random.session_keys(seed, torch.arange(log.num_items))
    item = INITIAL * random.normal(keys, 0, "data/factors", dim).to(torch.float64)
    item[torch.bincount(log.item, minlength=log.num_items) == 0] = 0.0
    item, report = federate(
        item,
        [
            partial(one.train, sweeps=config.local_sweeps, proximal=config.proximal)
            for one in clients
        ],
        [one.count for one in clients],
        config,
        seed,
    )
    users = log.num_users  # their own vectors stay where they are
    factors = Factors(
        torch.zeros(users, dim), item.float(), torch.zeros(users), torch.zeros(log.num_items), 0.0
    )
    return factors, report


def federate(
    sent: Tensor,
    clients: Sequence[Callable[[Tensor], Tensor]],
    weights: Sequence[Tensor],
    config: FederatedConfig,
    seed: int,
) -> tuple[Tensor, FederatedReport]:
    """Return what a server has after all rounds of averaging answers, and what that took.

    A client that is lost in a round changes nothing: the server goes on with the others' answers,
    and the client's data is there for the next round.

    Args:
        sent: float64 of any shape: what clients are sent first.
        clients: each returns its answer to what it is sent, in the same shape.
        weights: of each client's answer; a number, or one for each place of the first dimension.
        config: rounds, sampling, losses, noise.
        seed: of sampling, losses, noise.

    Raises:
        ConfigError: opacus, which counts ε, is missing.
    """
    places = random.session_keys(seed, torch.arange(len(clients)))
    asked = answered = 0
    size, own = sent.numel() * _FLOAT, weights[0].numel() * _FLOAT
    for number in range(config.rounds):
        luck = random.uniform(places, number, "federated/round", 2)
        chosen = luck[:, 0] < config.client_share
        back = chosen & (luck[:, 1] >= config.dropout)
        asked += int(chosen.sum())
        answered += int(back.sum())
        those = back.nonzero().squeeze(1).tolist()
        answers = [clients[place](sent) for place in those]
        if config.noise:
            sent = sent + _noisy_mean(sent, answers, config, seed, number)
        elif answers:
            sent = _mean(sent, answers, [weights[place] for place in those])
    return sent, FederatedReport(
        answers=answered,
        lost=asked - answered,
        bytes_down=asked * size,
        bytes_up=answered * (size + own * (config.noise == 0)),
        epsilon=_epsilon(config),
    )


def _mean(sent: Tensor, answers: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Return the weighted mean of answers; what nobody has weight for stays as it was sent."""
    weight = torch.stack(list(weights)).unsqueeze(-1)
    total = weight.sum(0)
    mean = (weight * torch.stack(list(answers))).sum(0) / total.where(total > 0, 1.0)
    return torch.where(total > 0, mean, sent)


def _noisy_mean(
    sent: Tensor, answers: Sequence[Tensor], config: FederatedConfig, seed: int, number: int
) -> Tensor:
    total = torch.zeros_like(sent)
    for answer in answers:
        change = answer - sent
        total += change * (config.clip / change.norm().clamp_min(1e-12)).clamp(max=1.0)
    drawn = keyed_normal(noise_key(seed)[0], f"federated/{number}", sent.numel()).view_as(sent)
    expected = max(1.0, config.shards * config.client_share * (1.0 - config.dropout))
    return (total + config.noise * config.clip * drawn) / expected


def _epsilon(config: FederatedConfig) -> float | None:
    if not config.noise:
        return None
    schedule = [Releases(config.noise, config.client_share, config.rounds)]
    return epsilon_spent("rdp", schedule, config.delta)
