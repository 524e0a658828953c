"""What several releases cost together."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from marec_env.errors import ConfigError
from marec_env.privacy.config import Accountant
from marec_env.privacy.mechanisms import gaussian_epsilon, gaussian_mu

_CLOSE = 1e-3  # relative, of noise that is found by trial
_LEAST_NOISE, _MOST_NOISE = 1e-2, 1e6


@dataclass(frozen=True, slots=True)
class Releases:
    """``steps`` noisy sums alike, each over users of whom everyone is in it by chance."""

    noise: float
    """Standard deviation of the noise over the sensitivity."""
    sample_rate: float = 1.0
    """Probability that a user is in a sum."""
    steps: int = 1


def epsilon_spent(accountant: Accountant, schedule: Sequence[Releases], delta: float) -> float:
    """Return the ε of a whole schedule at ``delta``; infinite where a release has no noise.

    Args:
        accountant: ``analytic`` is exact, and for schedules without sampling alone; ``rdp`` (Rényi
            moments; Mironov 2017) and ``prv`` (numerical; Gopi, Lee and Wutschitz 2021) are those
            of opacus and count sampling in.
        schedule: what is released.
        delta: δ.

    Raises:
        ConfigError: opacus is not installed, or ``analytic`` is asked for a sampled schedule.
    """
    if any(part.noise == 0.0 for part in schedule):
        return math.inf
    if accountant == "analytic":
        if any(part.sample_rate != 1.0 for part in schedule):
            raise ConfigError("accountant 'analytic' knows no sampling; take 'rdp' or 'prv'")
        return gaussian_epsilon(
            math.sqrt(sum(part.steps / part.noise**2 for part in schedule)), delta
        )
    counted = _opacus(accountant)
    counted.history = [(part.noise, part.sample_rate, part.steps) for part in schedule]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of logarithms at the border, and of orders tried
        return float(counted.get_epsilon(delta))


def _opacus(accountant: Accountant) -> Any:
    try:
        from opacus import accountants  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConfigError(
            f"accountant '{accountant}' is opacus': pip install 'marec[privacy]', or take "
            "'analytic'"
        ) from error
    return accountants.create_accountant(accountant)


@lru_cache(maxsize=64)
def largest_mu(accountant: Accountant, epsilon: float, delta: float) -> float:
    """Return the largest μ (one over the noise, in sensitivities) whose ε is at most ``epsilon``,
    as the accountant counts.

    Raises:
        ConfigError: opacus is not installed.
    """
    if accountant == "analytic":
        return gaussian_mu(epsilon, delta)
    return 1.0 / least_noise(accountant, lambda noise: [Releases(noise)], epsilon, delta)


def least_noise(
    accountant: Accountant,
    schedule: Callable[[float], Sequence[Releases]],
    epsilon: float,
    delta: float,
) -> float:
    """Return the least noise, in sensitivities, with which a schedule spends ``epsilon`` at most.

    Args:
        accountant: as of :func:`epsilon_spent`.
        schedule: from the noise to what is released.
        epsilon, delta: of all of it.

    Raises:
        ConfigError: no noise is enough, since other parts spend more; or opacus is not installed.
    """

    def enough(noise: float) -> bool:
        return epsilon_spent(accountant, schedule(noise), delta) <= epsilon

    high = 1.0 / gaussian_mu(epsilon, delta)
    while not enough(high):
        high *= 2.0
        if high > _MOST_NOISE:
            raise ConfigError(
                f"no noise brings the loss to ε = {epsilon:g} as accountant '{accountant}' counts "
                "it; raise ε, or take 'prv', which counts less"
            )
    low = high / 2.0
    while low > _LEAST_NOISE and enough(low):
        high, low = low, low / 2.0
    while high / low > 1 + _CLOSE:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
