"""Which ε an attack proves: a release cannot be more private than this, whatever it states."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from agents.studies.privacy.quality import CONFIDENCE, proportion
from marec_env.data.interactions import InteractionLog, make_log
from marec_env.privacy.config import ContributionConfig, PrivacyConfig
from marec_env.privacy.release import release_log

_USERS, _ITEMS, _OF_EACH = 6, 6, 4


def audit(privacy: PrivacyConfig, trials: int) -> float:
    """Return a lower bound of the ε of a release with these ε, δ and accountant, which a mechanism
    that does what it states does not exceed, but for :data:`CONFIDENCE`.

    The release is of a toy on which an attack is as strong as the mechanism allows: six users, each
    with all the items that count; the attacker knows the other five and both noises' scales, so
    that the best score, of a Gaussian mechanism, is linear in what is released.

    Args:
        privacy: its contribution is set to the toy's.
        trials: releases with the sixth user, and as many without him.
    """
    bounds = ContributionConfig(events=_OF_EACH, items=_ITEMS)
    privacy = privacy.model_copy(update={"contribution": bounds})
    toy = _toy()
    inside = _scores(toy, privacy, trials, "in")
    outside = _scores(toy.select(toy.user != _USERS - 1), privacy, trials, "out")
    return epsilon_proved(inside, outside, privacy.delta)


def _toy() -> InteractionLog:
    names = tuple(str(place) for place in range(_USERS))
    rows = _USERS * _OF_EACH
    return make_log(
        user=torch.arange(_USERS).repeat_interleave(_OF_EACH),
        item=torch.arange(_OF_EACH).repeat(_USERS),
        rating=torch.full((rows,), 5.0), time=torch.zeros(rows, dtype=torch.int64),
        user_ids=names, item_ids=names, titles=names, texts=names, genres=((),) * _ITEMS,
        year=torch.full((_ITEMS,), -1), like_threshold=4.0, fingerprint="toy", sources={},
        group=torch.zeros(_USERS, dtype=torch.int64), group_names=("all",),
    )  # fmt: skip


def _scores(
    log: InteractionLog, privacy: PrivacyConfig, trials: int, told: str
) -> NDArray[np.float64]:
    found = []
    for trial in range(trials):  # the fingerprint keys the noise
        release = release_log(replace(log, fingerprint=f"audit {told} {trial}"), privacy)
        mine = (release.items < _OF_EACH).to(torch.float64) / math.sqrt(_OF_EACH)
        gram = float(mine @ release.gram @ mine)
        counts = float(release.counts[1, :_OF_EACH].sum()) / _OF_EACH
        sizes = (release.counts_noise / math.sqrt(_OF_EACH), release.gram_noise)
        weigh = [1 / max(size, 1e-6) ** 2 for size in sizes]
        found.append(weigh[0] * counts + weigh[1] * gram)
    return np.array(found)


def largest_proof(trials: int) -> float:
    """Return the ε that so many trials prove at most, of an attack that is never wrong."""
    judged = trials - trials // 2
    return math.log(proportion(judged, judged).low / proportion(0, judged).high)


def epsilon_proved(
    inside: ArrayLike, outside: ArrayLike, delta: float, confidence: float = CONFIDENCE
) -> float:
    """Return a lower bound of ε from an attack's scores in many trials with a user and without.

    The threshold is chosen on the first half of the trials and judged on the second, where the
    rates of true and false positives have Clopper and Pearson's bounds (M. Jagielski, J. Ullman and
    A. Oprea, "Auditing differentially private machine learning", NeurIPS 2020).

    Args:
        inside: ``[n]``, scores of trials with the user.
        outside: ``[m]``, without.
        delta: δ of the mechanism.
        confidence: with which the bound holds.
    """
    first, second = np.asarray(inside, dtype=np.float64), np.asarray(outside, dtype=np.float64)
    train = first[: first.size // 2], second[: second.size // 2]
    test = first[first.size // 2 :], second[second.size // 2 :]

    def bound(threshold: float, pair: tuple[NDArray[np.float64], NDArray[np.float64]]) -> float:
        # Each bound at half the error: both hold together.
        hits = proportion(int((pair[0] > threshold).sum()), pair[0].size, confidence)
        alarms = proportion(int((pair[1] > threshold).sum()), pair[1].size, confidence)
        found = 0.0
        if hits.low > delta:
            found = math.log((hits.low - delta) / alarms.high)
        if 1.0 - alarms.high > delta:
            found = max(found, math.log((1.0 - alarms.high - delta) / max(1.0 - hits.low, 1e-300)))
        return max(found, 0.0)

    places = np.quantile(np.concatenate(train), np.linspace(0.0, 1.0, 101))
    return bound(float(max(places, key=lambda place: bound(float(place), train))), test)
