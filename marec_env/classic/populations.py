"""Synthetic populations of the presets, each a pure function of its seed.

Populations fitted to a log come from :mod:`marec_env.data`; these need no data.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from marec_env import random
from marec_env.catalog.histories import Histories
from marec_env.catalog.population import Population
from marec_env.data.config import SyntheticConfig
from marec_env.data.population import (
    PopulationConfig,
    calibrate_intercept,
    histories,
    random_click_rate,
)
from marec_env.data.scenarios import SCENARIOS
from marec_env.data.synthetic import generate
from marec_env.registry import Registry
from marec_env.scenarios import LIKED_FROM

POPULATIONS: Registry[Callable[..., Population]] = Registry("population")
"""By name; each a function of a seed and of what a preset says beside."""

_USERS = 4096  # of the published tasks, which draw a user afresh an episode
_HISTORY = 30  # items a synthetic user has consumed before
_LOGGED = 50  # latest items kept of each user of a generated log


def _keys(seed: int, kind: int, count: int) -> Tensor:
    """Return one key for each of ``count`` rows of one kind (users, items) of a population."""
    return random.session_keys(seed, torch.arange(count) + (kind << 32))


def _some_topics(keys: Tensor, topics: int, count: Tensor) -> Tensor:
    """Return float ``[n, topics]``, 1 on ``count`` (int64 ``[n, 1]``) topics drawn at random."""
    order = random.uniform(keys, 0, "population/topics", topics).argsort(1).argsort(1)
    return (order < count).to(torch.float32)


def _population(
    users: Tensor,
    items: Tensor,
    topics: Tensor,
    num_topics: int,
    **given: Any,
) -> Population:
    """Return a population of one group, plain but for what is ``given``."""
    empty = torch.zeros(len(users), 0, dtype=torch.int64)
    nothing = Histories.of_rows(empty, empty.bool())
    whole: dict[str, Any] = {
        "quality": torch.zeros(len(items)),
        "scale": 1.0,
        "intercept": 0.0,
        "history": nothing,
        "groups": torch.zeros(len(users), dtype=torch.int64),
        "group_names": ("all",),
    }
    return Population(users, items, topics=topics, num_topics=num_topics, **whole | given)


@POPULATIONS.register("synthetic")
def synthetic_population(
    seed: int = 0,
    users: int = 1000,
    items: int = 1000,
    scale: float = 12.0,
    click_rate: float = 0.12,
) -> Population:
    """Return users who like two to four topics and some directions across topics.

    Item factors are ``[sqrt(1 - w) x, sqrt(w) c]`` with ``x`` a random direction of unit length (16
    numbers) and ``c`` the item's topic, one of 16, one-hot, centred and of unit length, so that
    diversity costs relevance (``w`` = 0.7); the intercept is set so that a random item is clicked
    at ``click_rate`` by a random user. Items are dealt to 50 providers at random.
    ``scale`` are the logits at ``u . x = 1``.
    """
    topics, factors, topic_share, providers = 16, 16, 0.7, 50
    item_keys, user_keys = _keys(seed, 0, items), _keys(seed, 1, users)
    topic = random.integers(item_keys, 0, "population/topic", 1, topics).squeeze(1)
    centred = normalize(one_hot(topic, topics).to(torch.float32) - 1.0 / topics, dim=1)
    inner = normalize(random.normal(item_keys, 0, "population/factors", factors), dim=1)
    x = torch.cat([(1 - topic_share) ** 0.5 * inner, topic_share**0.5 * centred], dim=1)

    count = 2 + random.integers(user_keys, 0, "population/count", 1, 3)
    liked_topics = _some_topics(user_keys, topics, count)
    likes = normalize(liked_topics - liked_topics.mean(1, keepdim=True), dim=1)
    tastes = normalize(random.normal(user_keys, 0, "population/factors", factors), dim=1)
    u = torch.cat([(1 - topic_share) ** 0.5 * tastes, topic_share**0.5 * likes], dim=1)

    quality = 0.5 * random.normal(item_keys, 0, "population/quality", 1).squeeze(1)
    logits = scale * (u @ x.T) + quality
    noisy = logits + random.gumbel(user_keys, 0, "population/history", items)
    history = noisy.topk(min(_HISTORY, items), dim=1).indices.flip(1)
    intercept = calibrate_intercept(logits, click_rate)
    liked = logits.gather(1, history) + intercept > 0
    return _population(
        u,
        x,
        topic,
        topics,
        quality=quality,
        scale=scale,
        intercept=intercept,
        history=Histories.of_rows(history, liked),
        providers=random.integers(item_keys, 0, "population/provider", 1, providers).squeeze(1),
    )


@POPULATIONS.register("sardine")
def _sardine(seed: int, slope: float, offset: float, items: int = 1000) -> Population:
    """Return SARDINE's users and items over ten topics (Deffayet et al. 2024).

    Items: uniform(0, 1) on 2 or 3 random topics, unit length, main topic the largest. Users:
    uniform(0, 1) on a binomial(10, 0.4) number of random topics conditioned on 3 to 5, unit length.
    The logit is ``slope (u . x - offset)``; all items have the same norm, so the published division
    by the largest norm changes nothing.
    """
    topics = 10
    item_keys, user_keys = _keys(seed, 0, items), _keys(seed, 1, _USERS)
    count = 2 + random.integers(item_keys, 0, "population/count", 1, 2)
    x = random.uniform(item_keys, 0, "population/factors", topics)
    x = normalize(x * _some_topics(item_keys, topics, count), dim=1)
    # Binomial(10, 0.4) probabilities of 3, 4 and 5, as given by choose(10, k) .4^k .6^(10 - k).
    weights = torch.tensor([0.214990848, 0.250822656, 0.2006581248]).cumsum(0)
    draw = random.uniform(user_keys, 0, "population/count", 1) * weights[-1]
    count = 3 + (draw >= weights[:-1]).sum(1, keepdim=True)
    u = random.uniform(user_keys, 0, "population/factors", topics)
    u = normalize(u * _some_topics(user_keys, topics, count), dim=1)
    return _population(u, x, x.argmax(1), topics, scale=slope, intercept=-slope * offset)


@POPULATIONS.register("interest_evolution")
def _interest_evolution(seed: int) -> Population:
    """Return the users and documents of RecSim's interest evolution.

    Twenty topics with as many documents each; quality ``N(mu_topic, 0.1)`` with ``mu`` linear from
    -3 to 0 over fourteen topics, then from 0 to 3 over six; interests uniform in (-1, 1).
    """
    topics, items = 20, 2000
    topic = torch.arange(items) % topics
    means = torch.cat([torch.linspace(-3, 0, 14), torch.linspace(0, 3, 6)])
    noise = random.normal(_keys(seed, 0, items), 0, "population/quality", 1).squeeze(1)
    interests = 2.0 * random.uniform(_keys(seed, 1, _USERS), 0, "population/factors", topics) - 1.0
    x = one_hot(topic, topics).to(torch.float32)
    return _population(interests, x, topic, topics, quality=means[topic] + 0.1 * noise)


@POPULATIONS.register("long_term_satisfaction")
def _long_term_satisfaction(seed: int) -> Population:
    """Return RecSim's long-term satisfaction: all users alike, clickbait evenly spread in (0, 1).

    Documents are the midpoints of equal intervals rather than draws: the catalog then has the
    published distribution exactly. Topic 0 is the half with less clickbait.
    """
    users, items = 1024, 1000
    clickbait = (torch.arange(items, dtype=torch.float32) + 0.5) / items
    order = random.uniform(_keys(seed, 0, items), 0, "population/order", 1).squeeze(1).argsort()
    clickbait = clickbait[order]
    topic = (clickbait >= 0.5).to(torch.int64)
    return _population(torch.ones(users, 1), clickbait.unsqueeze(1), topic, 2)


@POPULATIONS.register("interest_exploration")
def _interest_exploration(seed: int) -> Population:
    """Return RecSim's interest exploration.

    Two user types (shares 0.3, 0.7) with affinities lognormal(((.1, .7), (.7, .1)), 0.1) to two
    topics (shares 0.2, 0.8), whose documents have quality lognormal((.8, .2), 0.1).
    """
    item_keys, user_keys = _keys(seed, 0, 1000), _keys(seed, 1, _USERS)
    topic = (random.uniform(item_keys, 0, "population/topic", 1).squeeze(1) >= 0.2).long()
    quality_mean = torch.tensor([0.8, 0.2])[topic]
    noise = random.normal(item_keys, 0, "population/quality", 1).squeeze(1)
    quality = torch.exp(quality_mean + 0.1 * noise)
    kind = (random.uniform(user_keys, 0, "population/type", 1).squeeze(1) >= 0.3).long()
    affinity_mean = torch.tensor([[0.1, 0.7], [0.7, 0.1]])[kind]
    affinity = torch.exp(affinity_mean + 0.1 * random.normal(user_keys, 0, "population/factors", 2))
    x = one_hot(topic, 2).to(torch.float32)
    return _population(affinity, x, topic, 2, quality=quality)


@POPULATIONS.register("scenario")
@lru_cache(maxsize=8)
def _scenario(seed: int, name: str) -> Population:
    """Return the true users and items of a scenario: 300 users, 500 items, ten days of history.

    Topics are the generator's categories; the intercept makes evenly drawn items clicked as the
    log's impressions say.
    """
    sizes = SyntheticConfig(num_users=300, num_items=500, days=10, sessions_per_user=6.0, seed=seed)
    log, world = generate(name, sizes, LIKED_FROM[name])
    scale = SCENARIOS.get(name).relevance
    logits = scale * world.user_taste @ world.item_taste.T + world.quality
    return Population(
        user_factors=world.user_taste,
        item_factors=world.item_taste,
        quality=world.quality,
        scale=scale,
        intercept=calibrate_intercept(logits, random_click_rate(PopulationConfig(), log)),
        topics=world.category,
        num_topics=len(SCENARIOS.get(name).vocabulary.categories),
        history=histories(log, _LOGGED),
        groups=log.group,
        group_names=log.group_names,
        providers=world.provider,
        item_attributes=log.item_attributes,
        user_attributes=log.user_attributes,
    )
