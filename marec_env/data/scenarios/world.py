"""Generated users and items: tastes, words and numbers that all scenarios share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import yaml
from torch import Tensor

from marec_env import random
from marec_env.data.config import SyntheticConfig

_STYLE_DIM = 6  # dimensions of taste within a category
_CATEGORY_SHARE = 0.6  # of taste that is liking of categories; the rest is style
_SHARPNESS = 1.5  # standard deviation of the log liking of categories: about three favourites
_QUALITY = 0.5  # logits, standard deviation of item quality
_POPULARITY_NOISE = 1.0  # logits of luck beside quality in an item's popularity
_ZIPF = 0.8  # popularity by rank falls as rank^-_ZIPF, typical of catalogs (Clauset et al. 2009)
_OLD_ITEMS = 0.8  # share of the items that were there before the log begins

_ARTICLE = re.compile(r"\b([Aa]) (?=[aeio])")


@dataclass(frozen=True, slots=True)
class Category:
    """Words of a category; every item draws one of each kind."""

    name: str
    nouns: Sequence[str]
    qualities: Sequence[str]
    features: Sequence[str]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Words of a scenario. Templates know ``{provider} {quality} {noun} {feature} {other}``."""

    categories: Sequence[Category]
    providers: Sequence[str]
    title: str
    description: str


class PackagedWords:
    """The attribute ``vocabulary`` of a scenario of this package, read from the file beside this
    one when it is first asked for: importing the package need not pay for it.
    """

    def __init__(self, scenario: str) -> None:
        self._scenario = scenario

    def __get__(self, instance: object, owner: type) -> Vocabulary:
        return _read_vocabulary(self._scenario)


@cache
def _read_vocabulary(scenario: str) -> Vocabulary:
    read = yaml.safe_load((Path(__file__).parent / f"{scenario}.yaml").read_text("utf-8"))
    categories = [Category(**category) for category in read.pop("categories")]
    return Vocabulary(categories, **read)


@dataclass(frozen=True)
class GeneratedWorld:
    """The hidden truth of a generated log."""

    user_taste: Tensor
    """Float32 ``[U, d]``, unit length."""
    item_taste: Tensor
    """Float32 ``[N, d]``, unit length."""
    category: Tensor
    """Int64 ``[N]``."""
    quality: Tensor
    """Float32 ``[N]``, logits."""
    log_popularity: Tensor
    """Float32 ``[N]``, log weight in the logging platform's choice; 0 for the most popular."""
    first_day: Tensor
    """Int64 ``[N]``, the day of the log on which the item appears (0: it was there before)."""
    provider: Tensor
    """Int64 ``[N]``."""
    user_keys: Tensor
    """Int64 ``[U]``, keys for further draws about users; likewise ``item_keys``."""
    item_keys: Tensor
    titles: tuple[str, ...]
    descriptions: tuple[str, ...]

    @property
    def num_users(self) -> int:
        """The number of users, U."""
        return self.user_taste.shape[0]

    @property
    def num_items(self) -> int:
        """The number of items, N."""
        return self.item_taste.shape[0]

    def user_draws(self, stream: str, lanes: int = 1) -> Tensor:
        """Return standard normal draws, one row a user."""
        return random.normal(self.user_keys, 0, stream, lanes)

    def item_draws(self, stream: str, lanes: int = 1) -> Tensor:
        """Return standard normal draws, one row an item."""
        return random.normal(self.item_keys, 0, stream, lanes)


def _join(category: Tensor, style: Tensor) -> Tensor:
    unit = torch.nn.functional.normalize
    return torch.cat(
        [
            _CATEGORY_SHARE**0.5 * unit(category, dim=1),
            (1.0 - _CATEGORY_SHARE) ** 0.5 * unit(style, dim=1),
        ],
        dim=1,
    )


def _words(
    vocabulary: Vocabulary, category: Sequence[int], provider: Sequence[int], picks: Tensor
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Fill the templates; ``picks`` holds four draws in (0, 1) an item."""
    titles: list[str] = []
    descriptions: list[str] = []
    seen: dict[str, int] = {}
    for place, owner, row in zip(category, provider, picks.tolist(), strict=True):
        words = vocabulary.categories[place]
        features = len(words.features)
        first = int(row[2] * features)
        other = (first + 1 + int(row[3] * (features - 1))) % features  # never the same twice
        parts = {
            "provider": vocabulary.providers[owner],
            "quality": words.qualities[int(row[0] * len(words.qualities))],
            "noun": words.nouns[int(row[1] * len(words.nouns))],
            "feature": words.features[first],
            "other": words.features[other],
        }
        title = vocabulary.title.format(**parts)
        title = title[0].upper() + title[1:]
        seen[title] = seen.get(title, 0) + 1
        titles.append(title if seen[title] == 1 else f"{title} {seen[title]}")
        descriptions.append(_with_article(vocabulary.description.format(**parts)))
    return tuple(titles), tuple(descriptions)


def _with_article(text: str) -> str:
    """Write ``A`` before a vowel as ``An``, the way readers and encoders expect it."""
    return _ARTICLE.sub(r"\1n ", text)


def make_world(vocabulary: Vocabulary, config: SyntheticConfig) -> GeneratedWorld:
    """Draw users and items.

    An item's taste is its category and a style; a user's taste is a few favourite categories and a
    style. Categories differ in size as 1 / (rank + 1).
    """
    count = len(vocabulary.categories)
    item_keys = random.session_keys(config.seed, torch.arange(config.num_items))
    user_keys = random.session_keys(config.seed, -1 - torch.arange(config.num_users))
    sizes = torch.cumsum(1.0 / (torch.arange(count) + 2.0), 0)
    chance = random.uniform(item_keys, 0, "synthetic/item", 3)
    category = torch.searchsorted(sizes / sizes[-1], chance[:, 0].contiguous()).clamp_max(count - 1)
    # Favourites by exponentiated normals, centred: most categories are disliked a little.
    liking = torch.softmax(
        _SHARPNESS * random.normal(user_keys, 0, "synthetic/liking", count), dim=1
    )
    quality = _QUALITY * random.normal(item_keys, 0, "synthetic/quality", 1).squeeze(1)
    luck = _POPULARITY_NOISE * random.normal(item_keys, 0, "synthetic/luck", 1).squeeze(1)
    rank = torch.argsort(torch.argsort(quality + luck, descending=True, stable=True))
    arrival = (chance[:, 1] - _OLD_ITEMS) / (1.0 - _OLD_ITEMS) * config.days
    provider = (chance[:, 2] * len(vocabulary.providers)).to(torch.int64)
    titles, descriptions = _words(
        vocabulary,
        category.tolist(),
        provider.tolist(),
        random.uniform(item_keys, 0, "synthetic/words", 4),
    )
    identity = torch.eye(count)[category] - 1.0 / count
    return GeneratedWorld(
        user_taste=_join(
            liking - liking.mean(1, keepdim=True),
            random.normal(user_keys, 0, "synthetic/user_style", _STYLE_DIM),
        ),
        item_taste=_join(identity, random.normal(item_keys, 0, "synthetic/item_style", _STYLE_DIM)),
        category=category,
        quality=quality,
        log_popularity=-_ZIPF * torch.log1p(rank.to(torch.float32)),
        first_day=arrival.floor().to(torch.int64).clamp_min(0),
        provider=provider,
        user_keys=user_keys,
        item_keys=item_keys,
        titles=titles,
        descriptions=descriptions,
    )
