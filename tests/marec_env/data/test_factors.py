"""Matrix factorisation against its own definition, and against planted structure."""

from __future__ import annotations

import pytest
import torch

from marec_env.data.factors import fit_factors
from marec_env.data.log import InteractionLog
from marec_env.errors import DataError


def test_planted_blocks_are_found(blocks: InteractionLog) -> None:
    factors = fit_factors(blocks, 4, model="implicit", ridge=1.0)
    scores = factors.user @ factors.item.T
    near = torch.arange(80)[:, None] % 4 == torch.arange(60) % 4
    assert float(scores[near].mean()) > 0.8
    assert float(scores[~near].mean()) < 0.15


@pytest.mark.parametrize("model", ["explicit", "implicit"])
def test_last_half_sweep_solves_the_stated_equations(blocks: InteractionLog, model: str) -> None:
    """The item side is solved last: its gradient must vanish. Checked on dense matrices."""
    ridge, confidence = 2.0, 4.0
    factors = fit_factors(
        blocks,
        3,
        model=model,
        ridge=ridge,
        confidence=confidence,
        sweeps=3,  # type: ignore[arg-type]
    )
    there = torch.zeros(80, 60, dtype=torch.float64)
    there[blocks.user, blocks.item] = 1.0
    user, item = factors.user.double(), factors.item.double()
    if model == "implicit":
        weight = torch.ones(80, 60, dtype=torch.float64)
        weight[blocks.user, blocks.item] += (
            confidence * torch.where(blocks.liked, 1.0, 0.5).double()
        )
        error = weight * (user @ item.T - there)
        gradient = error.T @ user + ridge * item
    else:
        rating = torch.zeros(80, 60, dtype=torch.float64)
        rating[blocks.user, blocks.item] = blocks.rating.double()
        fit = factors.mean + factors.user_bias.double()[:, None] + factors.item_bias.double()
        error = there * (fit + user @ item.T - rating)
        gradient = error.T @ user + ridge * item
        bias = error.sum(0) + ridge * factors.item_bias.double()
        assert float(bias.abs().max()) < 1e-3
    assert float(gradient.abs().max()) < 1e-3


def test_same_seed_same_bits_and_other_seed_other_bits(blocks: InteractionLog) -> None:
    first = fit_factors(blocks, 4, model="implicit", seed=1)
    assert torch.equal(first.item, fit_factors(blocks, 4, model="implicit", seed=1).item)
    assert not torch.equal(first.item, fit_factors(blocks, 4, model="implicit", seed=2).item)


@pytest.mark.parametrize("model", ["explicit", "implicit"])
def test_absent_users_and_items_have_no_direction(blocks: InteractionLog, model: str) -> None:
    part = blocks.select((blocks.user != 5) & (blocks.item != 7))
    factors = fit_factors(part, 4, model=model)  # type: ignore[arg-type]
    assert not factors.user[5].any()
    assert not factors.item[7].any()
    assert bool(torch.isfinite(factors.score(part.user, part.item)).all())


def test_empty_log_is_refused(blocks: InteractionLog) -> None:
    with pytest.raises(DataError, match="no interactions"):
        fit_factors(blocks.select(blocks.user < 0), 4)


@pytest.mark.parametrize("model", ["explicit", "implicit"])
def test_short_rows_of_a_large_log_are_solved_in_their_own_size(
    blocks: InteractionLog, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of 2 to 20 interactions, 8 dimensions: the same factors both ways."""
    rows = torch.arange(blocks.num_interactions)
    log = blocks.select((blocks.user < 20) | (rows % 4 == 0))
    counts = torch.bincount(log.user)
    assert int(counts.min()) < 6 < 8 < int(counts.max())
    plain = fit_factors(log, 8, model=model)  # type: ignore[arg-type]
    sizes, cholesky = set(), torch.linalg.cholesky
    monkeypatch.setattr(torch.linalg, "cholesky", lambda m: (sizes.add(m.shape[1]), cholesky(m))[1])
    monkeypatch.setattr("marec_env.data.factors._LARGE", 0)
    short = fit_factors(log, 8, model=model)  # type: ignore[arg-type]
    for side in ("user", "item", "user_bias", "item_bias"):
        torch.testing.assert_close(getattr(short, side), getattr(plain, side))
    assert min(sizes) < 8 <= max(sizes) <= 9
