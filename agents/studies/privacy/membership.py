"""Membership inference: was this user, whose events the attacker has, in the log?

Models are made of random halves of the users. Each is attacked in turn by statistics of a user's
events under what is published: by their threshold alone; less what the statistic is for this user
in the other models (L. Watson et al., "On the importance of difficulty calibration in membership
inference attacks", ICLR 2022); and by its likelihood ratio under those with the user and without
(N. Carlini et al., "Membership inference attacks from first principles", IEEE S&P 2022). A
statistic's usual value differs more between users than between being in and out. Where models are
made in closed form, shadows cost little.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from agents.studies.privacy.quality import over_models
from marec_env import random
from marec_env.data.interactions import InteractionLog
from marec_env.data.recommender_log import KnowledgeConfig, directions, learn
from marec_env.evaluation.statistics import Estimate
from marec_env.pipeline.knowledge import NEIGHBOURS
from marec_env.privacy.config import PrivacyConfig
from marec_env.privacy.release import Release, release_log

ALL = "all together"
"""The log ratios of all statistics, weighted by Fisher's linear discriminant of the shadows'."""
_LEAST_SPREAD = 1e-9
_SHARED = 4.0  # models' worth of all users' spread in each user's own
_LARGEST = 10.0  # log ratio that the discriminant believes: a normal's tails are no evidence


@dataclass(frozen=True, slots=True)
class Published:
    """What an attacker sees of a recommender: its knowledge of ``N`` items."""

    vectors: Tensor
    """Float ``[N, d]``: collaborative vectors."""
    neighbours: Tensor
    """Int64 ``[N, M]``, -1 where there are fewer."""
    popularity: Tensor
    """Float32 ``[N]``."""
    release: Release | None = None
    """The noisy statistics themselves, which may be published as well."""


def knowledge_of(
    log: InteractionLog, config: KnowledgeConfig, privacy: PrivacyConfig | None
) -> Published:
    """Return what a recommender knows that learned from a log, or from a private release of it."""
    if privacy is None:
        release, learned = None, learn(log, config)
    else:
        release = release_log(log, privacy)
        learned = release.learned(config, torch.ones(log.num_users, dtype=torch.bool))
    return Published(
        directions(learned.factors.item),
        learned.neighbours[:, :NEIGHBOURS],
        learned.popularity,
        release,
    )


def rows_of(log: InteractionLog) -> Tensor:
    """Return the users' events as float32 ``[U, N]``: 1 for a liked item, ½ for another."""
    rows = torch.zeros(log.num_users, log.num_items)
    rows[log.user, log.item] = 0.5
    rows[log.user[log.liked], log.item[log.liked]] = 1.0
    return rows


def statistics_of(published: Published, rows: Tensor) -> dict[str, Tensor]:
    """Return what is higher for members, on the whole, of ``U`` users: float64 ``[U]`` each."""
    length = rows.norm(dim=1).clamp_min(1e-12)
    vectors = published.vectors.to(torch.float32)
    # An orthonormal basis of the factors' column space, empty directions left out.
    basis, value, _ = torch.linalg.svd(vectors, full_matrices=False)
    basis = basis[:, value > 1e-5 * value[0].clamp_min(1e-12)]
    share = (rows @ basis).square().sum(1) / length.square()
    together = (rows @ vectors).square().sum(1) / rows.sum(1).square().clamp_min(1e-12)
    taken = (rows > 0).to(torch.float32)
    size = rows.shape[1]
    links = torch.zeros(size, size + 1)
    near = published.neighbours
    links.scatter_(1, torch.where(near >= 0, near, size), 1.0)
    linked = ((taken @ links[:, :-1]) * taken).sum(1) / taken.sum(1).clamp_min(1.0)
    popular = (rows @ published.popularity.to(torch.float32)) / length
    found = {
        "reconstruction from vectors": share,
        "likeness of vectors": together,
        "links among neighbours": linked,
        "popularity": popular,
    }
    if published.release is not None:
        release = published.release
        mine = rows[:, release.items].to(torch.float64)
        mine = mine / mine.norm(dim=1, keepdim=True).clamp_min(1.0)
        found["released co-occurrence"] = ((mine @ release.gram) * mine).sum(1)
        found["released counts"] = taken.to(torch.float64) @ release.counts.sum(0) / length
    return {name: value.to(torch.float64) for name, value in found.items()}


def halves(users: int, models: int, seed: int) -> Tensor:
    """Return who is in which model's log, bool ``[models, U]``: every other one has a random half,
    and the next the other half, so that each user is in as many as not; ``models`` is even.
    """
    keys = random.session_keys(seed, torch.arange(models // 2))
    order = random.uniform(keys, 0, "privacy/halves", users).argsort(dim=1, stable=True)
    first = torch.zeros(len(keys), users, dtype=torch.bool)
    first.scatter_(1, order[:, : users // 2], True)
    return torch.stack([first, ~first], dim=1).flatten(0, 1)


def membership(
    log: InteractionLog,
    make: Callable[[InteractionLog], Published],
    models: int = 16,
    seed: int = 0,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, dict[str, Estimate]]:
    """Return each attack's ``auc`` and ``tpr`` (at 1 % false positives), over the models.

    Args:
        log: of all users.
        make: what is published of a log.
        models: an even number, at least 4; each is attacked once, with the others as shadows.
        seed: of the halves.
        tell: is told how far it is.
    """
    member, rows = halves(log.num_users, models, seed), rows_of(log)
    found: list[dict[str, Tensor]] = []
    for number, inside in enumerate(member):
        part = log.select(inside[log.user])
        # The fingerprint keys the noise of a private release: each model has its own.
        part = replace(part, fingerprint=f"{log.fingerprint}/half {seed}/{number}")
        found.append(statistics_of(make(part), rows))
        tell(f"membership: model {number + 1} of {models}")
    return attacked(found, member)


def attacked(
    found: Sequence[Mapping[str, Tensor]], member: Tensor
) -> dict[str, dict[str, Estimate]]:
    """Return each attack's ``auc`` and ``tpr``, each model attacked with the others as shadows.

    Args:
        found: of each model, statistics of ``U`` users, float64 ``[U]``, higher for members.
        member: bool ``[models, U]``, as :func:`halves` returns it.
    """
    values = {name: torch.stack([one[name] for one in found]) for name in found[0]}
    ratios = {name: _log_ratios(value, member) for name, value in values.items()}
    results = {}
    for name, value in values.items():
        results[f"{name}, threshold"] = _judged(value, member)
        results[f"{name}, calibrated"] = _judged(_calibrated(value), member)
        results[f"{name}, likelihood ratio"] = _judged(ratios[name], member)
    results[ALL] = _judged(_together(torch.stack(list(ratios.values()), dim=2), member), member)
    return results


def _shadows(models: int, target: int) -> Tensor:
    """Return which models the attacker of one has made, bool ``[models]``.

    Its other half is left out as well: as many models with a user as without remain, of whose means
    neither is surer, which alone would tell members.
    """
    return torch.arange(models) // 2 != target // 2


def _calibrated(values: Tensor) -> Tensor:
    """Return each model's statistic less its mean over the shadows, float64 ``[models, U]``: where
    there are few, surer than two densities.
    """
    models = range(len(values))
    return torch.stack([values[k] - values[_shadows(len(values), k)].mean(0) for k in models])


def _log_ratios(values: Tensor, member: Tensor) -> Tensor:
    """Return for each model the log ratio of its statistic's density under the others with the
    user and without, float64 ``[models, U]``.

    Both are normal with one spread, the user's own, for which all users' counts as :data:`_SHARED`
    models more: a few models hardly tell it.
    """
    ratios = torch.zeros_like(values)
    for target in range(len(values)):
        others = _shadows(len(values), target)
        means = []
        squares, freedom = torch.zeros_like(values[0]), torch.zeros_like(values[0])
        for inside in (member[others], ~member[others]):
            count = inside.sum(0).clamp_min(1)
            mean = (values[others] * inside).sum(0) / count
            squares += ((values[others] - mean).square() * inside).sum(0)
            freedom += count - 1
            means.append(mean)
        shared = squares.sum() / freedom.sum().clamp_min(1.0)
        spread = (squares + _SHARED * shared) / (freedom + _SHARED)
        far = [(values[target] - mean).square() for mean in means]
        ratios[target] = (far[1] - far[0]) / (2 * spread.clamp_min(_LEAST_SPREAD**2))
    return ratios


def _together(ratios: Tensor, member: Tensor) -> Tensor:
    """Return for each model the ratios ``[models, U, S]`` as one score, ``[models, U]``."""
    ratios = ratios.clamp(-_LARGEST, _LARGEST)
    scores = torch.zeros_like(ratios[..., 0])
    for target in range(len(ratios)):
        others = _shadows(len(ratios), target)
        inside, outside = ratios[others][member[others]], ratios[others][~member[others]]
        apart = inside.mean(0) - outside.mean(0)
        within = torch.cat([inside - inside.mean(0), outside - outside.mean(0)])
        spread = within.T @ within / len(within)
        floor = 1e-6 * spread.trace().clamp_min(_LEAST_SPREAD)  # of statistics that never vary
        scores[target] = ratios[target] @ torch.linalg.solve(
            spread + floor * torch.eye(len(apart), dtype=spread.dtype), apart
        )
    return scores


def _judged(scores: Tensor, member: Tensor) -> dict[str, Estimate]:
    pairs: Sequence[tuple[np.ndarray, np.ndarray]] = [
        (score[inside].numpy(), score[~inside].numpy())
        for score, inside in zip(scores, member, strict=True)
    ]
    return over_models([one for one, _ in pairs], [other for _, other in pairs])
