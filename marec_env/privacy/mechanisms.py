"""The analytic Gaussian mechanism, and noise that can be made again by who has the key.

A sum over users, of which each adds a vector of length at most Δ, is released with noise
N(0, (Δ / μ)²) in each place. That is (ε, δ)-differentially private, for adding or removing a user,
exactly where

    Φ(μ/2 - ε/μ) - exp(ε) Φ(-μ/2 - ε/μ) <= δ

(B. Balle and Y.-X. Wang, "Improving the Gaussian mechanism for differential privacy", ICML 2018,
theorem 8). Several such releases with μ_1 ... μ_k are together as one with μ² = Σ μ_i² (J. Dong,
A. Roth and W. Su, "Gaussian differential privacy", JRSS B 2022, corollary 2).
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from marec_env.errors import ConfigError

KEY_VARIABLE = "MAREC_PRIVACY_KEY"
SHORTEST_KEY = 16  # characters; what is shorter can be guessed
_HALVINGS = 200
_MOST_MU, _MOST_EPSILON = 1e4, 1e9


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Return the smallest δ at which noise of ``1 / μ`` sensitivities is (ε, δ)-private."""
    ends = torch.tensor([mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu], dtype=torch.float64)
    first, second = torch.special.log_ndtr(ends).tolist()
    return math.exp(first) - math.exp(min(epsilon + second, first))


def gaussian_mu(epsilon: float, delta: float) -> float:
    """Return the largest μ that is (ε, δ)-private; the noise is ``sensitivity / μ``.

    >>> round(1.0 / gaussian_mu(1.0, 1e-5), 4)
    3.7306
    """
    return _halved(_MOST_MU, lambda mu: gaussian_delta(mu, epsilon) <= delta)[0]


@lru_cache(maxsize=64)
def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the smallest ε at which noise of ``1 / μ`` sensitivities is (ε, δ)-private."""
    if gaussian_delta(mu, 1e-12) <= delta:
        return 0.0
    return _halved(_MOST_EPSILON, lambda epsilon: gaussian_delta(mu, epsilon) > delta)[1]


def _halved(most: float, holds: Callable[[float], bool]) -> tuple[float, float]:
    """Return the ends of what is left of 0 … ``most`` around the place up to which it holds."""
    low, high = 0.0, most
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low, high


def noise_key(seed: int) -> tuple[bytes, bool]:
    """Return what noise is drawn from, and whether it is secret: the variable
    ``MAREC_PRIVACY_KEY``, or the seed.

    Raises:
        ConfigError: the secret is too short to be one.
    """
    secret = os.environ.get(KEY_VARIABLE)
    if secret is None:
        return f"seed {seed}".encode(), False
    if len(secret) < SHORTEST_KEY:
        raise ConfigError(
            f"{KEY_VARIABLE} has {len(secret)} characters; a key that cannot be guessed has at "
            f"least {SHORTEST_KEY}, for example those of: openssl rand -hex 32"
        )
    return f"key {secret}".encode(), True


def keyed_normal(key: bytes, about: str, count: int) -> Tensor:
    """Return standard normal draws, float64 ``[count]``, from a key and what they are for.

    The bits are those of SHAKE-256, which without the key cannot be told from chance; made normal
    by Box and Muller's transform in float64.
    """
    pairs = (count + 1) // 2
    digest = hashlib.shake_256(len(key).to_bytes(8, "little") + key + about.encode())
    words = np.frombuffer(digest.digest(16 * pairs), dtype="<u8").reshape(2, pairs)
    # 53 bits, shifted off zero, of which there is no logarithm.
    uniform = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius, angle = np.sqrt(-2.0 * np.log(uniform[0])), 2.0 * np.pi * uniform[1]
    drawn = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    return torch.from_numpy(drawn[:count].copy())
