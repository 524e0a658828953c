"""Users played by a language model: a reference for the parametric users, behind a gate.

A persona is a user of the log, told by what was liked and not liked in the first part of the log.
The gate asks whether the model, given the persona, finds what the user went on to like among items
that the log's platform might have shown; a model that does it no better than popularity says
nothing about users and is asked no more. One that does it picks from slates as that platform shows
them, and the parametric users of the same people are compared with its picks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log as ln

import numpy as np
import torch
from scipy.optimize import brentq, minimize_scalar
from scipy.special import expit, logsumexp
from torch import Tensor

from agents.studies.calibration.click_model import TRAIN, Floats, split
from marec_env import random
from marec_env.catalog.catalog import Catalog
from marec_env.catalog.population import Population
from marec_env.data.log import InteractionLog
from marec_env.data.population import PopulationConfig, build_population
from marec_env.errors import ConfigError, DataError
from marec_env.evaluation.statistics import Estimate, mean_estimate, paired_difference
from marec_env.text import Author, Prompt
from marec_env.text.prompts import Language, item_prompts, persona_words

MOST_OPTIONS = 19
"""Items in a slate at most: a server's likeliest tokens tell 20 options apart, one being none."""
_LIKED, _NOT_LIKED = 8, 3  # latest items told of a persona
_LEAST_LIKED = 3  # by whom less was liked is no persona
_SLATES = 3  # shown to each persona
_SMOOTHING = 1.0  # interactions added to every item's popularity
_STEEPEST = 20.0  # factor on the parametric logit at most
_FURTHEST = 30.0  # shift of the parametric logit at most
_TINY = 1e-9  # spread below which scores are alike


@dataclass(frozen=True, slots=True)
class Picks:
    """What the model's users pick from slates, and what the parametric users of the same people
    do.
    """

    slates: int
    agreement: Estimate
    """Correlation within a slate of the model's log-probabilities with the parametric logits."""
    no_click: dict[str, Estimate]
    """Probability that nothing of a slate is clicked: of the ``model`` and of ``parametric``."""
    slope: float
    """Factor on the parametric logits that makes them most like the model's picks; below 1, the
    parametric users are more decided than the model's."""
    suggestions: dict[str, float]
    """Settings under which the parametric users would be as decided, and click as often."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The gate, and what a model that passed it says."""

    model: str
    personas: int
    slate: int
    hits: dict[str, Estimate]
    """Share of personas whose held-out like was picked from its slate, by who picks."""
    gain: Estimate
    """Of the model over popularity, paired."""
    unanswered: int
    """Questions that the model did not answer; they count as if it knew nothing."""
    picks: Picks | None
    """``None``: the model may judge nothing."""

    @property
    def passed(self) -> bool:
        """Whether the model's picks are better than popularity's, with 95 % confidence."""
        return self.gain.low > 0


def judge_by_model(
    log: InteractionLog,
    catalog: Catalog,
    config: PopulationConfig,
    author: Author,
    *,
    language: Language = "en",
    personas: int = 200,
    slate_size: int = 10,
    seed: int = 0,
) -> Reference:
    """Ask a model who its users are, and if it knows, what they pick.

    Args:
        log: the users; what is after the first part is held out from personas and factors.
        catalog: of the log's items.
        config: how the parametric users are estimated.
        author: asks the model.
        language: of the prompts.
        personas: users of the log, drawn; fewer where fewer have likes in both parts.
        slate_size: items in a slate, at most :data:`MOST_OPTIONS`.
        seed: of users, slates and order.

    Raises:
        ConfigError: the slates are too large; or as :meth:`Author.score`.
        DataError: fewer than two users have likes in both parts.
    """
    if not 2 <= slate_size <= MOST_OPTIONS:
        raise ConfigError(
            f"pipeline.slate_size: a model is shown slates of 2 to {MOST_OPTIONS} items, not "
            f"{slate_size}; use --set environment.pipeline.slate_size=10"
        )
    train = split(log).interactions == TRAIN
    known, later = log.liked & train, log.liked & ~train
    enough = torch.bincount(log.user[known], minlength=log.num_users) >= _LEAST_LIKED
    enough &= torch.bincount(log.user[later], minlength=log.num_users) > 0
    users = enough.nonzero().squeeze(1)
    if len(users) < 2:
        raise DataError(
            f"calibration: {len(users)} users with {_LEAST_LIKED} likes in the first part of the "
            "log and one after it; a reference by a model needs two or more"
        )
    keys = random.session_keys(seed, users)
    drawn = random.uniform(keys, 0, "calibration/personas", 1).squeeze(1).argsort()[:personas]
    users, keys = users[drawn], keys[drawn]
    words = persona_words(language)
    facts = [prompt.template for prompt in item_prompts(log, catalog, language)]
    told = [_told(log, known, train, int(user), facts, words) for user in users]

    weight = torch.bincount(log.item[train], minlength=log.num_items) + _SMOOTHING
    met = torch.zeros(len(users), log.num_items, dtype=torch.bool)
    place = torch.full((log.num_users,), -1)
    place[users] = torch.arange(len(users))
    theirs = place[log.user] >= 0
    met[place[log.user[theirs]], log.item[theirs]] = True

    target = torch.stack(
        [
            _one_of(log.item[later & (log.user == user)], key)
            for user, key in zip(users, keys, strict=True)
        ]
    )
    others = _shown(weight, met, keys, 0, slate_size - 1)
    slates = torch.cat([target.unsqueeze(1), others], dim=1)
    order = random.uniform(keys, 0, "calibration/order", slate_size).argsort(1)
    slates, right = slates.gather(1, order), (order == 0).float().argmax(1)
    prompts = [
        _question(one, slate, facts, words)
        for one, slate in zip(told, slates.tolist(), strict=True)
    ]
    scores = author.score(prompts)
    population = build_population(config, log.select(train), catalog.topics, catalog.num_topics)
    liked = torch.stack(
        [catalog.text[log.item[known & (log.user == user)]].mean(0) for user in users]
    )
    by = {
        "model": scores,
        "popularity": weight[slates],
        "nearest text to what was liked": (catalog.text[slates] @ liked.unsqueeze(2)).squeeze(2),
        "parametric users": _logits(population, users, slates),
    }
    hits = {name: (one.argmax(1) == right).double().numpy() for name, one in by.items()}
    reference = Reference(
        model=author.report.model,
        personas=len(users),
        slate=slate_size,
        hits={name: mean_estimate(one) for name, one in hits.items()},
        gain=paired_difference(hits["model"], hits["popularity"]),
        unanswered=author.report.templates,
        picks=None,
    )
    if not reference.passed:
        return reference
    keys, users = keys.repeat_interleave(_SLATES), users.repeat_interleave(_SLATES)
    met, told = met.repeat_interleave(_SLATES, 0), [one for one in told for _ in range(_SLATES)]
    shown = torch.arange(len(users)) % _SLATES + 1
    slates = _shown(weight, met, keys, shown, slate_size)
    none = words["none"]
    prompts = [
        _question(one, slate, facts, words, none)
        for one, slate in zip(told, slates.tolist(), strict=True)
    ]
    found = author.score(prompts).double().numpy()
    logits = _logits(population, users, slates).double().numpy()
    picks = _compared(found, logits, users.numpy(), config)
    return replace(reference, unanswered=author.report.templates, picks=picks)


def _compared(scores: Floats, logits: Floats, user: Floats, config: PopulationConfig) -> Picks:
    """Compare the model's log-probabilities ``[M, K + 1]``, none of the items last, with parametric
    logits of a click ``[M, K]``; slates of one ``user`` depend on each other.
    """
    chance = np.exp(scores)
    none, share = chance[:, -1], chance[:, :-1] / chance[:, :-1].sum(1, keepdims=True)
    mine, theirs = (
        (one - one.mean(1, keepdims=True)) / one.std(1, keepdims=True).clip(min=_TINY)
        for one in (scores[:, :-1], logits)
    )

    def surprise(slope: float) -> float:
        return float((logsumexp(slope * logits, axis=1) - slope * (share * logits).sum(1)).mean())

    def without_click(shift: float) -> Floats:
        chance: Floats = expit(-(slope * logits + shift)).prod(1)
        return chance

    slope = float(minimize_scalar(surprise, bounds=(-_STEEPEST, _STEEPEST), method="bounded").x)
    suggestions = {}
    if slope > 0:
        suggestions = {
            "population.scale": config.scale * slope,
            "population.quality_weight": config.quality_weight * slope,
        }
    wanted = float(none.mean())
    if without_click(_FURTHEST).mean() < wanted < without_click(-_FURTHEST).mean():
        shift = brentq(lambda by: without_click(by).mean() - wanted, -_FURTHEST, _FURTHEST)
        suggestions["click rate of these slates"] = float(expit(slope * logits + shift).mean())
    return Picks(
        slates=len(scores),
        agreement=mean_estimate((mine * theirs).mean(1), user),
        no_click={
            "model": mean_estimate(none, user),
            "parametric": mean_estimate(expit(-logits).prod(1), user),
        },
        slope=slope,
        suggestions=suggestions,
    )


def _told(
    log: InteractionLog,
    known: Tensor,
    train: Tensor,
    user: int,
    facts: Sequence[str],
    words: Mapping[str, str],
) -> str:
    """Return a persona: facts of what a user liked last in the first part, and did not like."""
    own = log.user == user
    liked, other = log.item[own & known][-_LIKED:], log.item[own & train & ~log.liked][-_NOT_LIKED:]
    said = [words["liked"].format(words["and"].join(facts[item] for item in liked.tolist()))]
    if len(other):
        said.append(words["other"].format(words["and"].join(facts[i] for i in other.tolist())))
    return "\n".join(said)


def _question(
    persona: str, slate: Sequence[int], facts: Sequence[str], words: Mapping[str, str], *more: str
) -> Prompt:
    """Return what the persona would pick; where the model fails, every option is as likely."""
    options = (*(facts[item] for item in slate), *more)
    even = json.dumps([-ln(len(options))] * len(options))
    return Prompt(words["task"], f"{persona}\n{words['asked']}", even, options=options)


def _one_of(items: Tensor, key: Tensor) -> Tensor:
    place = random.integers(key.view(1), 0, "calibration/target", 1, len(items))
    return items[place.view(())]


def _shown(weight: Tensor, met: Tensor, keys: Tensor, request: Tensor | int, size: int) -> Tensor:
    """Return slates drawn as a platform by popularity would, int64 ``[M, size]``, without what the
    user ever met, bool ``[M, N]``.
    """
    noise = random.gumbel(keys, request, "calibration/reference", met.shape[1])
    return (weight.log() + noise).masked_fill(met, -torch.inf).topk(size, dim=1).indices


def _logits(population: Population, users: Tensor, items: Tensor) -> Tensor:
    """Return logits of a click on an examined item, float32 ``[M, K]``."""
    taste = population.user_factors[users].unsqueeze(1)
    fit = (population.item_factors[items] * taste).sum(2)
    return population.scale * fit + population.quality[items] + population.intercept
