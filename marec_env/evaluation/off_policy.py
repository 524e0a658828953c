"""Off-policy evaluation: what a policy would have earned, from another policy's log.

A log holds, for each of ``n`` requests, the reward and the probability with which the logging
policy took its action. ``ratio`` is the target policy's probability over it, of whatever acted: a
whole slate, or one component while the others acted as logged. Rewards may be given per position,
``[n, K]``, with a ratio for each; they are added up within the request. Requests of one session
depend on each other: with ``session`` given, intervals take only sessions for independent.

* IPS: Horvitz and Thompson, JASA 47 (1952). Unbiased where the logging policy can do whatever the
  target policy does; its variance grows with the ratios.
* SNIPS: Swaminathan and Joachims, NIPS 2015. Ratios are divided by their mean: a small bias, and
  far less variance.
* DM: the mean of a model's predictions under the target policy; as biased as the model.
* DR: Dudik, Langford and Li, ICML 2011. The model's prediction plus the importance-weighted error
  of the model on the log: unbiased, with the variance of what the model leaves unexplained.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from marec_env.evaluation.statistics import Estimate, mean_estimate

Floats = NDArray[np.float64]


def importance_sampling(
    reward: ArrayLike, ratio: ArrayLike, session: ArrayLike | None = None
) -> Estimate:
    """Return the IPS estimate of the target policy's mean reward a request.

    Args:
        reward: ``[n]``, or ``[n, K]`` by position.
        ratio: ``[n]``, or as ``reward``: target over logging probability.
        session: int ``[n]``, whose requests these are; by default each is independent.
    """
    return doubly_robust(reward, ratio, 0.0, 0.0, session)


def self_normalised(
    reward: ArrayLike, ratio: ArrayLike, session: ArrayLike | None = None
) -> Estimate:
    """Return the SNIPS estimate; arguments as in :func:`importance_sampling`.

    Positions are normalised each by its own mean ratio. The interval is that of the ratio of means
    to first order (delta method).
    """
    gain, weight = np.broadcast_arrays(_by_position(reward), _by_position(ratio))
    scale = weight.mean(axis=0)
    if np.any(scale <= 0):
        raise ValueError("the target policy never does what the log holds: all ratios are 0")
    value = (weight * gain).mean(axis=0) / scale
    spread = mean_estimate((weight * (gain - value) / scale).sum(axis=1), session)
    total = float(value.sum())
    return Estimate(
        total, total + spread.low, total + spread.high, spread.standard_error, spread.count
    )


def doubly_robust(
    reward: ArrayLike,
    ratio: ArrayLike,
    predicted: ArrayLike,
    value: ArrayLike,
    session: ArrayLike | None = None,
) -> Estimate:
    """Return the DR estimate; without a model (both 0) it is IPS, with ratios of 0 it is DM.

    Args:
        reward: ``[n]`` or ``[n, K]``.
        ratio: ``[n]``, or as ``reward``.
        predicted: as ``reward``: the model's prediction for the logged action. The model must not
            have been fitted on the same requests (use :func:`cross_fit_folds`).
        value: as ``reward``: the model's expectation over the target policy's actions.
        session: as of :func:`importance_sampling`.
    """
    error = _by_position(reward) - _by_position(predicted)
    corrected = _by_position(value) + _by_position(ratio) * error
    return mean_estimate(corrected.sum(axis=1), session)


def effective_sample_size(ratio: ArrayLike) -> float:
    """Return ``(sum w)^2 / sum w^2``: how many requests of the target policy the log is worth."""
    weight = np.asarray(ratio, dtype=np.float64).ravel()
    square = float((weight**2).sum())
    return float(weight.sum()) ** 2 / square if square > 0 else 0.0


def prefix_ratios(log_target: ArrayLike, log_logging: ArrayLike) -> Floats:
    """Return the ratio of each position's prefix from log-probabilities by position, ``[n, K]``.

    The last is the whole slate's. With a ratio for each position importance sampling is unbiased
    where a position's reward depends on the items above it and on its own, never on those below
    (McInerney et al., "Counterfactual evaluation of slate recommendations with sequential reward
    interactions", KDD 2020); the upper positions' ratios are far smaller than the whole slate's.
    """
    difference = np.asarray(log_target, np.float64) - np.asarray(log_logging, np.float64)
    return np.asarray(np.exp(difference.cumsum(axis=1)))


def plackett_luce_log_probability(scores: ArrayLike, picks: ArrayLike) -> Floats:
    """Return the log-probability of each pick given those before it, ``[n, K]``.

    Picking without replacement in proportion to ``exp(score)`` is what sorting by score plus Gumbel
    noise does.

    Args:
        scores: ``[n, M]``, scores over temperature; ``-inf`` where an item cannot be picked.
        picks: int ``[n, K]``, columns in order.
    """
    left = np.array(scores, dtype=np.float64)
    chosen = np.asarray(picks)
    rows = np.arange(left.shape[0])
    found = np.empty(chosen.shape)
    for position in range(chosen.shape[1]):
        top = left.max(axis=1, keepdims=True)
        total = top[:, 0] + np.log(np.exp(left - top).sum(axis=1))
        found[:, position] = left[rows, chosen[:, position]] - total
        left[rows, chosen[:, position]] = -np.inf
    return found


def cross_fit_folds(count: int, folds: int = 5, seed: int = 0) -> NDArray[np.int64]:
    """Return a random fold for each of ``n`` requests, in equal shares.

    Predicting each fold by a model fitted on the others keeps the model from knowing the noise of
    the rewards that it corrects (Chernozhukov et al., Econometrics Journal 21, 2018).
    """
    order = np.random.default_rng(seed).permutation(count)
    assigned = np.empty(count, dtype=np.int64)
    assigned[order] = np.arange(count) % folds
    return assigned


def _by_position(values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    return array[:, None] if array.ndim == 1 else array
