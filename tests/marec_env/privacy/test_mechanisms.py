"""Noise: its scale by the formula, what several releases cost, and that it is the key's alone."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import norm

from marec_env.errors import ConfigError
from marec_env.privacy.accountant import Releases, epsilon_spent, largest_mu
from marec_env.privacy.mechanisms import (
    gaussian_delta,
    gaussian_epsilon,
    gaussian_mu,
    keyed_normal,
    noise_key,
)


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(0.1, 1e-6), (1.0, 1e-5), (8.0, 1e-5), (32.0, 1e-9)]
)
def test_the_noise_is_that_of_the_analytic_formula(epsilon: float, delta: float) -> None:
    """Against Balle and Wang's theorem 8, written out with scipy and solved for the noise."""

    def excess(sigma: float) -> float:
        first = norm.cdf(0.5 / sigma - epsilon * sigma)
        return float(first - math.exp(epsilon) * norm.cdf(-0.5 / sigma - epsilon * sigma) - delta)

    expected = brentq(excess, 1e-3, 1e3, xtol=1e-14)
    assert 1.0 / gaussian_mu(epsilon, delta) == pytest.approx(expected, rel=1e-8)
    assert gaussian_epsilon(gaussian_mu(epsilon, delta), delta) == pytest.approx(epsilon, rel=1e-8)


def test_the_noise_is_less_than_that_of_the_classical_bound() -> None:
    classical = math.sqrt(2 * math.log(1.25 / 1e-5))
    noise = 1.0 / gaussian_mu(1.0, 1e-5)
    assert noise == pytest.approx(3.730632, abs=1e-6)
    assert noise < classical
    assert gaussian_delta(1.0, 0.0) == pytest.approx(2 * norm.cdf(0.5) - 1)  # total variation


def test_composition_costs_what_opacus_says() -> None:
    schedule = [Releases(3.0), Releases(5.0, steps=2)]
    exact = epsilon_spent("analytic", schedule, 1e-5)
    assert exact == pytest.approx(gaussian_epsilon(math.sqrt(1 / 9 + 2 / 25), 1e-5))
    # The numerical accountant bounds the exact loss with its error (.01) on top; moments more.
    assert exact <= epsilon_spent("prv", schedule, 1e-5) <= exact + 0.03
    assert exact < epsilon_spent("rdp", schedule, 1e-5) < 1.2 * exact
    assert epsilon_spent("rdp", [Releases(3.0, 0.1, 5)], 1e-5) < 0.5 * exact
    assert epsilon_spent("analytic", [Releases(3.0), Releases(0.0)], 1e-5) == math.inf


@pytest.mark.parametrize("accountant", ["analytic", "rdp", "prv"])
def test_the_largest_loss_is_spent_and_no_more(accountant: str) -> None:
    mu = largest_mu(accountant, 2.0, 1e-5)  # type: ignore[arg-type]
    spent = epsilon_spent(accountant, [Releases(1 / mu)], 1e-5)  # type: ignore[arg-type]
    assert 0.99 * 2.0 <= spent <= 2.0 * (1 + 1e-9)


def test_sampling_is_refused_where_it_is_not_counted() -> None:
    with pytest.raises(ConfigError, match="take 'rdp' or 'prv'"):
        epsilon_spent("analytic", [Releases(1.0, 0.5)], 1e-5)


def test_noise_is_normal_and_depends_on_key_and_purpose() -> None:
    drawn = keyed_normal(b"one", "counts", 40_001)
    assert torch.equal(drawn, keyed_normal(b"one", "counts", 40_001))
    assert abs(float(drawn.mean())) < 4 / 200
    assert float(drawn.std()) == pytest.approx(1.0, abs=4 / math.sqrt(2 * 40_001))
    assert float((drawn.abs() > 2.0).double().mean()) == pytest.approx(0.0455, abs=0.005)
    for other in (keyed_normal(b"two", "counts", 40_001), keyed_normal(b"one", "gram", 40_001)):
        assert abs(float(torch.corrcoef(torch.stack([drawn, other]))[0, 1])) < 0.02


def test_a_secret_is_used_and_must_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAREC_PRIVACY_KEY", raising=False)
    assert noise_key(3) != noise_key(4) and not noise_key(3)[1]
    monkeypatch.setenv("MAREC_PRIVACY_KEY", "0123456789abcdef")
    assert noise_key(3) == noise_key(4) == (b"key 0123456789abcdef", True)
    monkeypatch.setenv("MAREC_PRIVACY_KEY", "short")
    with pytest.raises(ConfigError, match="has 5 characters"):
        noise_key(3)
