"""True users and items of the ``marec`` preset, estimated from a log.

Taste is the centred implicit-feedback factor space of the whole log; what everybody likes goes to
``quality``, from the ratings' item biases. A share ``w`` of topic identity is mixed in: an item is
``[√(1-w) x, √w e]`` with x its taste vector and e its centred one-hot topic, both of unit length,
and a user ``[√(1-w) u, √w a]`` with a his lasting affinity to the topics, so that
``u' · x' = (1-w) u·x + w a·e``.

Why implicit factors: on the last fifth of each MovieLens-100k user's ratings the implicit model
tells liked items from random ones with AUC .88, the explicit one with .65 (``fit_factors``, 16
dimensions); clicks are choices among items, most of which the user would never consume.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from marec_env import random
from marec_env.catalog.histories import Histories
from marec_env.catalog.population import Population, thinned
from marec_env.config import ConfigModel, Seed
from marec_env.data.factors import fit_factors
from marec_env.data.interactions import InteractionLog, without_gaps
from marec_env.data.propensity import has_propensities, position_curve
from marec_env.errors import DataError

_SMALLEST = 1e-12  # a vector shorter than this has no direction
_CELLS = 1 << 22  # user-item cells for the intercept
_BISECTIONS = 60  # halvings of [-_BOUND, _BOUND]: beyond float64 resolution
_BOUND = 60.0  # logits; sigmoid(±60) is 0 or 1 to within 1e-26


UNKNOWN_CLICK_RATE = 0.1
"""Click rate of random items where the log has no impressions: a choice between the bounds that
such a log gives (``docs/data.md``)."""


class PopulationConfig(ConfigModel):
    """How true users are estimated from the log."""

    dim: int = Field(default=16, ge=2, le=512, description="dimensions of taste, topics aside")
    topic_share: float = Field(
        default=0.65,
        ge=0.0,
        le=1.0,
        description="share w of topic identity in the true item vectors",
    )
    scale: float = Field(default=12.0, gt=0.0, description="logit κ per unit of u·x")
    quality_weight: float = Field(
        default=0.5, ge=0.0, description="logit per standard deviation of item quality"
    )
    random_click_rate: float | None = Field(
        default=None,
        gt=0.0,
        lt=1.0,
        description="probability that a user clicks an examined item drawn evenly from the "
        "catalog; sets the intercept; null: as the log's impressions say, 0.1 without any",
    )
    history: int = Field(default=50, ge=1, le=10_000, description="past items kept per user")
    topic_smoothing: float = Field(
        default=5.0,
        gt=0.0,
        description="interactions of the average user added to each user's topic counts",
    )
    ridge: float = Field(default=30.0, gt=0.0, description="ridge term of the taste factors")
    quality_ridge: float = Field(
        default=15.0,
        gt=0.0,
        description="ratings at the mean added to each item's quality estimate",
    )
    sweeps: int = Field(default=10, ge=1, le=200, description="alternations of the factor fit")
    seed: Seed = Field(
        default=0, description="of the factor fit, and of whose tastes drift whither"
    )
    taste_drift: float = Field(
        default=0.0,
        ge=0.0,
        le=1.0,
        description="how far each user's taste has moved since the log, towards another user's: "
        "share of a right angle",
    )
    fashion: float = Field(
        default=0.0,
        ge=-20.0,
        le=20.0,
        description="logits by which everybody's liking has moved since the log, towards new items "
        "(below 0: old ones), per standard deviation of their rank by age",
    )


def random_click_rate(config: PopulationConfig, log: InteractionLog) -> float:
    """Return the configured rate, or what the log's impressions say of it.

    With propensities this is the rate at the first position under even choice; without, the plain
    rate there, which a platform that chooses well makes too high. At least half a click is granted.
    """
    if config.random_click_rate is not None:
        return config.random_click_rate
    if log.impressions is None:
        return UNKNOWN_CLICK_RATE
    known = has_propensities(log.impressions)
    rate = float(position_curve(log.impressions, weighted=known)[0])
    first = int((log.impressions.position == 0).sum())
    half = 0.5 / max(first, 1)
    return min(max(rate, half), 1.0 - half)


def unit(vectors: Tensor) -> Tensor:
    """Return rows of unit length; a zero row, which has no direction, becomes the first axis."""
    norm = vectors.norm(dim=-1, keepdim=True)
    axis = torch.zeros_like(vectors)
    axis[..., 0] = 1.0
    return torch.where(norm > _SMALLEST, vectors / norm.clamp_min(_SMALLEST), axis)


def topic_affinity(
    log: InteractionLog, topics: Tensor, num_topics: int, smoothing: float
) -> Tensor:
    """Return how much more than the average user each user favours each topic.

    The log ratio of the smoothed share of the topic among the user's liked items to its share among
    all liked items, centred over the topics.

    Args:
        log: interactions.
        topics: int64 ``[N]``.
        num_topics: T.
        smoothing: interactions of the average user added to each user's counts.

    Returns:
        Float32 ``[U, T]``.
    """
    liked = log.liked if bool(log.liked.any()) else torch.ones_like(log.liked)
    cell = log.user[liked] * num_topics + topics[log.item[liked]]
    counts = torch.bincount(cell, minlength=log.num_users * num_topics).to(torch.float32)
    counts = counts.view(log.num_users, num_topics)
    # One count a topic keeps a topic that nobody liked finite.
    overall = (counts.sum(0) + 1.0) / (counts.sum() + num_topics)
    share = (counts + smoothing * overall) / (counts.sum(1, keepdim=True) + smoothing)
    ratio = torch.log(share / overall)
    return ratio - ratio.mean(1, keepdim=True)


def _centred(factors: Tensor, known: Tensor) -> Tensor:
    """Subtract the mean of the known rows; unknown rows become zero: no direction of their own."""
    return torch.where(known[:, None], factors - factors[known].mean(0), 0.0)


def histories(log: InteractionLog, length: int) -> Histories:
    """Return the last ``length`` interactions of each user; the items are the log's own tensor."""
    count = torch.bincount(log.user, minlength=log.num_users)
    end = torch.cumsum(count, 0)
    return Histories(end - count.clamp(max=length), end, log.item, log.liked, length)


def build_population(
    config: PopulationConfig,
    log: InteractionLog,
    topics: Tensor,
    num_topics: int,
    providers: Tensor | None = None,
    age: Tensor | None = None,
) -> Population:
    """Estimate the true users and items, as the log tells them or as they have drifted since.

    Args:
        config: see the fields.
        log: the whole log, whatever share of it the recommender learns from.
        topics: int64 ``[N]``, the topics by which users get bored.
        num_topics: T.
        providers: int64 ``[N]``, who offers the item; those of the log if ``None``.
        age: float32 ``[N]``, days since the item appeared; needed for a drift of fashion only.

    Raises:
        DataError: the topics do not fit the log.
    """
    if topics.shape != (log.num_items,) or int(topics.min()) < 0 or int(topics.max()) >= num_topics:
        raise DataError(
            f"topics: need one of 0 ... {num_topics - 1} for each of {log.num_items} items, got "
            f"shape {tuple(topics.shape)}, {int(topics.min())} ... {int(topics.max())}"
        )
    taste = fit_factors(
        log,
        config.dim,
        model="implicit",
        sweeps=config.sweeps,
        ridge=config.ridge,
        seed=config.seed,
    )
    consumed = torch.bincount(log.item, minlength=log.num_items) > 0
    everyone = torch.ones(log.num_users, dtype=torch.bool)
    identity = torch.eye(num_topics)[topics]
    user_factors = _mix(
        _centred(taste.user, everyone),
        topic_affinity(log, topics, num_topics, config.topic_smoothing),
        config.topic_share,
    )
    item_factors = _mix(
        _centred(taste.item, consumed), identity - identity.mean(0), config.topic_share
    )
    quality = config.quality_weight * _standardised(
        fit_factors(log, 1, sweeps=config.sweeps, ridge=config.quality_ridge).item_bias
    )
    if config.taste_drift:
        user_factors = _drifted(user_factors, config.taste_drift, config.seed)
    if config.fashion:
        if age is None:
            raise DataError("population.fashion: the items' ages are not known; leave it at 0")
        newer = torch.argsort(torch.argsort(age, descending=True, stable=True))
        quality = quality + config.fashion * _standardised(newer.to(torch.float32))
    users, items = thinned(log.num_users, log.num_items, _CELLS)
    logits = config.scale * user_factors[users] @ item_factors[items].T + quality[items]
    return Population(
        user_factors=user_factors,
        item_factors=item_factors,
        quality=quality,
        scale=config.scale,
        intercept=calibrate_intercept(logits, random_click_rate(config, log)),
        topics=topics,
        num_topics=num_topics,
        history=histories(log, config.history),
        groups=log.group,
        group_names=log.group_names,
        providers=log.provider if providers is None else providers,
        friends=log.friends,
        item_attributes=without_gaps(log.item_attributes),
        user_attributes=without_gaps(log.user_attributes),
    )


def _drifted(tastes: Tensor, share: float, seed: int) -> Tensor:
    """Return tastes ``[U, d]`` turned towards other users' by a share of a right angle."""
    users = torch.arange(len(tastes))
    draw = random.uniform(random.session_keys(seed, users), 0, "population/drift", 1).squeeze(1)
    circle = torch.argsort(draw, stable=True)  # each towards the next in a random circle
    other = torch.empty_like(tastes)
    other[circle] = tastes[circle.roll(-1)]
    angle = share * math.pi / 2
    return unit(math.cos(angle) * tastes + math.sin(angle) * other)


def _mix(taste: Tensor, topic: Tensor, share: float) -> Tensor:
    """Join the two unit vectors with weights √(1-w) and √w: again of unit length."""
    return torch.cat([(1.0 - share) ** 0.5 * unit(taste), share**0.5 * unit(topic)], -1)


def _standardised(values: Tensor) -> Tensor:
    deviation = values.std(correction=0)
    return (values - values.mean()) / deviation if float(deviation) > _SMALLEST else values * 0.0


def calibrate_intercept(logits: Tensor, rate: float) -> float:
    """Return the number that, added to all logits, makes their mean probability ``rate``.

    Args:
        logits: of any shape; the mean is taken in float64.
        rate: in (0, 1).
    """
    values = logits.flatten().to(torch.float64)
    low, high = -_BOUND - float(values.max()), _BOUND - float(values.min())
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if float(torch.sigmoid(values + middle).mean()) < rate:
            low = middle
        else:
            high = middle
    return (low + high) / 2
