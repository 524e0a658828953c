"""A private release of a log: a few noisy statistics, and all that is made of them.

Unit of privacy is the user: two logs are neighbours if one has a user more, with all of his
events. Of each user at most ``contribution.events`` items count, drawn from his own. Two sums over
users are released, and nothing else of the log is read on the recommender's side:

* *counts*: ``e_i / √events`` for liked and for other items apart: length at most 1;
* *co-occurrence* of the items with the largest noisy counts: ``v vᵀ``, where v has 1 for a liked
  item, ½ for another, shortened to length 1 where it is longer: Frobenius norm at most 1.

Contributions are whole multiples of a grid, so sums are exact in any order, and since the noise is
rounded to the grid as well, what is released is a rounding of the sum with continuous noise: its
last bits tell nothing (I. Mironov, "On significance of the least significant bits for differential
privacy", CCS 2012). Everything after the two sums is post-processing.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from marec_env import random
from marec_env.data.factors import Factors
from marec_env.data.interactions import InteractionLog, lexicographic
from marec_env.data.recommender_log import KnowledgeConfig, LearnedSpace
from marec_env.privacy.accountant import Releases, epsilon_spent, largest_mu
from marec_env.privacy.config import ContributionConfig, PrivacyConfig
from marec_env.privacy.mechanisms import keyed_normal, noise_key

GRID = 1 << 16
"""Steps of a contribution of 1. Sums of products stay below 2^53, exact in float64, for 2^21
users."""
COUNTS_SHARE = 0.25
"""Share of the loss (of μ²) that goes to the counts. Of .1, .25 and .4 the best of held-out recall
on MovieLens-100k at ε = 2 and 1, with 256 items."""
_WEIGHT_OTHER = 0.5  # of an item consumed and not liked; the factors' weights
_FEWEST_USERS = 50  # that are drawn from a release, however noisy the number is
_MOST_USERS = 1 << 20
_BLOCK = 1024  # users whose vectors are laid out at once
_EVEN = 5.0  # events at the average rate of likes that each item's rate begins with


@dataclass(frozen=True, slots=True)
class Events:
    """What counts of a log: distinct pairs of user and item, a bounded number of each user."""

    user: Tensor
    """Int64 ``[R]``, ascending."""
    item: Tensor
    """Int64 ``[R]``."""
    liked: Tensor
    """Bool ``[R]``: liked at least once."""


@dataclass(frozen=True, slots=True)
class Release:
    """What may be known of a log by everybody."""

    config: PrivacyConfig
    counts: Tensor
    """Float64 ``[2, N]``: events of each item, others and liked ones, with noise."""
    counts_noise: float
    """Its standard deviation, in events."""
    items: Tensor
    """Int64 ``[M]``: those with the largest counts."""
    gram: Tensor
    """Float64 ``[M, M]``, symmetric: their co-occurrence, with noise."""
    gram_noise: float
    """Standard deviation on the diagonal; off it, 1/√2 of that."""
    statement: dict[str, object]
    """Unit, ε, δ, mechanism, what is covered and what is not: for manifests and reports."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the released numbers."""
        digest = hashlib.sha256()
        for part in (self.counts, self.items, self.gram):
            digest.update(part.numpy().tobytes())
        return digest.hexdigest()

    def popularity(self) -> Tensor:
        """Return float32 ``[N]`` in [0, 1]: expected counts over the largest.

        The expectation is under an exponential prior with the released mean: of a count below the
        noise hardly more is believed than of any other.
        """
        counts = self._expected_counts()
        return (counts / counts.max()).to(torch.float32)

    def _expected_counts(self) -> Tensor:
        total = self.counts.sum(0)
        noise = self.counts_noise * math.sqrt(2.0)
        if noise == 0.0:
            return total
        mean = max(float(total.mean()), noise / math.sqrt(len(total)))
        # A normal about `centre`, cut off at zero, has mean centre + noise φ(z)/Φ(z).
        centre = total - noise**2 / mean
        z = centre / noise
        log_ratio = -0.5 * z.square() - 0.5 * math.log(2 * math.pi) - torch.special.log_ndtr(z)
        expected: Tensor = centre + noise * log_ratio.exp()
        return expected.clamp_min(1e-6 * mean)

    def components(self) -> tuple[Tensor, Tensor]:
        """Return what co-occurs beyond noise: vectors, float64 ``[M, r]``, whose products are the
        co-occurrence, strongest first, and their strengths ``[r]``.

        Eigenvalues of noise alone stay within ``s √(2M)``; those beyond are shrunk to
        ``√(λ² - edge²)``, the best guess of what was there (M. Gavish and D. Donoho, "Optimal
        shrinkage of singular values", IEEE Trans. Information Theory 63(4), 2017).
        """
        value, vector = torch.linalg.eigh(self.gram)
        value, vector = value.flip(0), vector.flip(1)
        edge = self.gram_noise * math.sqrt(2.0 * len(value))
        kept = value > max(edge, 1e-9 * float(value[0]))
        strength = (value[kept].square() - edge**2).sqrt()
        vector = vector[:, kept]
        # Of a vector and its opposite, both eigenvectors, the one of positive sum.
        sign = torch.where(vector.sum(0) < 0, -1.0, 1.0)
        return vector * sign * strength.sqrt(), strength

    def learned(self, config: KnowledgeConfig, known_users: Tensor) -> LearnedSpace:
        """Return factors, neighbours and popularity as of a log; ``known_users`` is handed on."""
        size, vectors = self.counts.shape[1], self.components()[0]
        item = torch.zeros(size, config.dim)
        kept = vectors[:, : config.dim]
        item[self.items, : kept.shape[1]] = kept.to(torch.float32)
        unit = torch.nn.functional.normalize(vectors, dim=1)
        cosine = unit @ unit.T
        cosine.fill_diagonal_(-1.0)
        width = min(config.neighbours, len(self.items) - 1)
        value, place = torch.topk(cosine, width, dim=1)
        found = value > 0
        neighbours = torch.full((size, config.neighbours), -1, dtype=torch.int64)
        similarity = torch.zeros(size, config.neighbours)
        neighbours[self.items, :width] = self.items[place].where(found, -1)
        similarity[self.items, :width] = value.where(found, 0.0).to(torch.float32)
        users = len(known_users)
        factors = Factors(  # nobody's own vector is released
            torch.zeros(users, config.dim), item, torch.zeros(users), torch.zeros(size), 0.0
        )
        return LearnedSpace(factors, neighbours, similarity, self.popularity(), known_users)

    def draw_log(self, like: InteractionLog) -> InteractionLog:
        """Return a log of users drawn from the release; of ``like`` only its catalog is read.

        A user's items are drawn without replacement: a share as the counts have it of items beside
        those of the co-occurrence, by their counts; the others in proportion to ``f_1 + Σ_k z_k
        f_k``, with f the components, z standard normal, at least 0: their co-occurrence is that of
        the release. Likes are drawn by each item's rate.
        """
        counts, events = self._expected_counts(), self.config.contribution.events
        users = min(max(round(float(self.gram.trace())), _FEWEST_USERS), _MOST_USERS)
        each = round(float(self.counts.sum()) / users)
        each = min(max(each, 1), events, max(1, like.num_items // 2))
        vectors, _ = self.components()
        keys = random.session_keys(self.config.seed, torch.arange(users))
        chance = counts.repeat(users, 1)
        if vectors.shape[1] > 0:
            place = random.normal(keys, 0, "privacy/taste", vectors.shape[1]).to(torch.float64)
            place[:, 0] = 1.0
            taste = (place @ vectors.T).clamp_min(0.0)
            mass = counts[self.items].sum() / taste.sum(1, keepdim=True).clamp_min(1e-12)
            chance[:, self.items] = taste * mass
        draws = random.gumbel(keys, 0, "privacy/items", like.num_items).to(torch.float64)
        chosen = (chance.clamp_min(1e-12).log() + draws).topk(each, dim=1).indices
        liked = random.uniform(keys, 0, "privacy/likes", each) < self._like_rate()[chosen]
        # All at one time, in the order of drawing: when somebody consumed is not released.
        end = int((like.year.max() - 1969) * 365.25 * 86_400) if bool(like.year.max() > 0) else 0
        threshold = like.like_threshold
        return InteractionLog(
            user=torch.arange(users).repeat_interleave(each),
            item=chosen.flatten(),
            rating=torch.where(liked, threshold, threshold - 1.0).to(torch.float32).flatten(),
            time=torch.full((users * each,), end),
            user_ids=tuple(f"drawn-{place}" for place in range(users)),
            item_ids=like.item_ids,
            titles=like.titles,
            texts=like.texts,
            genres=like.genres,
            year=like.year,
            like_threshold=threshold,
            group=torch.zeros(users, dtype=torch.int64),
            group_names=("all",),
            fingerprint=self.fingerprint,
            sources={"private release": self.fingerprint},
            item_attributes=like.item_attributes,
            images=like.images,
            provider=like.provider,
            user_attributes={  # what users declared is not released; that they did is no secret
                name: torch.full((users,), math.nan) for name in like.user_attributes
            },
            warnings=(self.line,),
        )

    def _like_rate(self) -> Tensor:
        others, liked = self.counts
        total = (others + liked).sum()
        overall = (liked.sum() / total.clamp_min(1e-12)).clamp(0.0, 1.0)
        even = _EVEN + 4.0 * self.counts_noise
        excess: Tensor = liked - overall * (others + liked)
        rate: Tensor = overall + excess / ((others + liked).clamp_min(0.0) + even)
        return rate.clamp(0.0, 1.0)

    @property
    def line(self) -> str:
        """The statement in one line."""
        told = self.statement
        if self.config.epsilon is None:
            return "private release without noise: contributions are bounded, nothing is guaranteed"
        noise = "" if told["noise_is_secret"] else "; noise of a known seed: for studies only"
        return (
            f"private release: ε = {told['epsilon']:.4g}, δ = {told['delta']:.3g} for each user "
            f"({told['accountant']}); covers {told['covers']}{noise}"
        )


def _user_draws(log: InteractionLog, user: Tensor, item: Tensor) -> Tensor:
    """Return a draw for each pair that depends on this user's identifier and the item alone."""
    own = random.session_keys(0, random.keys_of(log.user_ids))
    return random.session_keys(0, own[user] + item)


def contributions(log: InteractionLog, config: ContributionConfig) -> Events:
    """Return at most ``config.events`` items of each user, drawn from his own alone: whoever else
    is in the log changes nothing of them.
    """
    pair = log.user * log.num_items + log.item
    distinct, place = torch.unique(pair, return_inverse=True)
    liked = torch.zeros(len(distinct), dtype=torch.bool)
    liked[place[log.liked]] = True
    user, item = distinct // log.num_items, distinct % log.num_items
    order = lexicographic(_user_draws(log, user, item), user)
    start = torch.searchsorted(user, torch.arange(log.num_users))
    rank = torch.arange(len(order)) - start[user[order]]
    kept = order[rank < config.events].sort().values
    return Events(user[kept], item[kept], liked[kept])


def counts_of(events: Events, num_items: int, config: ContributionConfig) -> Tensor:
    """Return float64 ``[2, N]``, whole numbers: steps of the grid, others and liked apart."""
    step = math.floor(GRID / math.sqrt(config.events))
    cell = events.liked.to(torch.int64) * num_items + events.item
    count = torch.bincount(cell, minlength=2 * num_items).view(2, num_items)
    return (count * step).to(torch.float64)


def co_occurrence(events: Events, items: Tensor, num_items: int) -> Tensor:
    """Return float64 ``[M, M]``, whole numbers: steps of the squared grid, each user's part of
    length 1 at most.
    """
    column = torch.full((num_items,), -1, dtype=torch.int64)
    column[items] = torch.arange(len(items))
    inside = column[events.item] >= 0
    user, place = events.user[inside], column[events.item[inside]]
    weight = torch.where(events.liked[inside], 1.0, _WEIGHT_OTHER).to(torch.float64)
    total = torch.zeros(len(items), len(items), dtype=torch.float64)
    people, row = torch.unique(user, return_inverse=True)
    for first in range(0, len(people), _BLOCK):
        mine = (row >= first) & (row < first + _BLOCK)
        rows = torch.zeros(min(_BLOCK, len(people) - first), len(items), dtype=torch.float64)
        rows[row[mine] - first, place[mine]] = weight[mine]
        rows = (rows * GRID / rows.norm(dim=1, keepdim=True).clamp_min(1.0)).floor()
        total += rows.T @ rows  # whole numbers below 2^53: exact in any order
    return total


def release_log(log: InteractionLog, config: PrivacyConfig) -> Release:
    """Return the release of a log; the same log, configuration and key give the same one, which is
    one release and not two.

    Raises:
        ConfigError: the key is too short, or an accountant's package is missing.
    """
    bounds = config.contribution
    events = contributions(log, bounds)
    key, secret = noise_key(config.seed)
    # Another log gets other noise: the difference of two releases would else show the users.
    about = f"{log.fingerprint}/{config.model_dump_json()}"
    if config.epsilon is None:
        counts_sigma = gram_sigma = 0.0
    else:
        mu = largest_mu(config.accountant, config.epsilon, config.delta)
        counts_sigma = 1.0 / (mu * math.sqrt(COUNTS_SHARE))
        gram_sigma = 1.0 / (mu * math.sqrt(1.0 - COUNTS_SHARE))
    unit = math.floor(GRID / math.sqrt(bounds.events))  # of one event, in steps of the grid

    size = log.num_items
    noise = keyed_normal(key, f"{about}/counts", 2 * size).view(2, size)
    counts = (counts_of(events, size, bounds) + (noise * counts_sigma * GRID).round()) / unit
    number = min(bounds.items, size)
    items = torch.argsort(counts.sum(0), descending=True, stable=True)[:number].sort().values
    noise = keyed_normal(key, f"{about}/gram", number * number).view(number, number)
    # The co-occurrence's upper triangle, off the diagonal times √2, has the length of the whole.
    upper = torch.triu(noise, 1) / math.sqrt(2.0)
    noise = upper + upper.T + torch.diag(noise.diagonal())
    gram = co_occurrence(events, items, size)
    gram = (gram + (noise * gram_sigma * GRID**2).round()) / GRID**2
    schedule = [Releases(counts_sigma), Releases(gram_sigma)]
    return Release(
        config=config,
        counts=counts,
        counts_noise=counts_sigma * GRID / unit,
        items=items,
        gram=gram,
        gram_noise=gram_sigma,
        statement=_statement(config, schedule, secret),
    )


def _statement(config: PrivacyConfig, schedule: list[Releases], secret: bool) -> dict[str, object]:
    spent = epsilon_spent(config.accountant, schedule, config.delta)
    covers = {
        "release": "the recommender's knowledge, the simulated users and what is trained on them",
        "log": "the recommender's knowledge alone, not what is trained or measured on the log's "
        "own users",
    }
    return {
        "unit": "a user with all events, added or removed",
        "epsilon": spent if math.isfinite(spent) else None,
        "delta": config.delta,
        "accountant": config.accountant,
        "mechanism": "analytic Gaussian on bounded sums, rounded to a grid",
        "noise": {"counts": schedule[0].noise, "co_occurrence": schedule[1].noise},
        "noise_is_secret": secret,
        "events_a_user": config.contribution.events,
        "covers": covers[config.users],
        "outside": list(OUTSIDE),
    }


OUTSIDE = (
    "the catalog: items, titles, texts, years, providers, attributes",
    "settings that were chosen by looking at the log, and what is told of it while it is read",
    "an encoder that was fine-tuned on the log",
    "what a user is shown from his own history",
)
"""What the guarantee says nothing of."""


def with_line(log: InteractionLog, release: Release) -> InteractionLog:
    """Return the log with the statement among what is said of it."""
    return replace(log, warnings=(*log.warnings, release.line))
