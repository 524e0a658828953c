"""Popularity-biased logs mislead naive offline learning; propensities repair it."""

from __future__ import annotations

import pytest
import torch

from marec_env.data.config import SyntheticConfig
from marec_env.data.log import Impressions
from marec_env.data.propensity import (
    even_click_rate,
    item_click_rates,
    item_clicks,
    position_curve,
)
from marec_env.data.synthetic import generate
from marec_env.errors import DataError


def impressions(item: list[int], click: list[float], propensity: list[float]) -> Impressions:
    """Return one-place slates."""
    rows = len(item)
    return Impressions(
        user=torch.zeros(rows, dtype=torch.int64),
        item=torch.tensor(item),
        time=torch.arange(rows),
        position=torch.zeros(rows, dtype=torch.int64),
        propensity=torch.tensor(propensity),
        behaviours={"click": torch.tensor(click)},
    )


def test_self_normalised_rate_by_hand() -> None:
    shown = impressions([0, 0, 0, 1], [1, 1, 0, 0], [0.75, 0.75, 0.75, 0.25])
    # weights 4/3 three times and 4: clicked weight 8/3 of 8
    assert even_click_rate(shown) == pytest.approx(1 / 3)
    assert float(position_curve(shown, weighted=False)[0]) == 0.5
    assert item_clicks(shown, 3).tolist() == [2, 0, 0]
    rates = item_click_rates(shown, 3)
    expected = [(2 / 3 * 3 + 20 / 3) / 23, (0 + 20 / 3) / 21, 1 / 3]
    torch.testing.assert_close(rates, torch.tensor(expected, dtype=torch.float64))


def test_unknown_propensities_are_refused() -> None:
    with pytest.raises(DataError, match="propensities are not known"):
        even_click_rate(impressions([0, 1], [1.0, 0.0], [0.5, float("nan")]))


def test_biased_log_misleads_and_propensities_repair() -> None:
    """Property 8: on a generated log with its truth known."""
    sizes = SyntheticConfig(num_users=400, num_items=300, days=40, sessions_per_user=20, seed=2)
    log, world = generate("ecommerce", sizes, 3.0)
    shown = log.impressions
    assert shown is not None
    # Appeal to the mean user, up to the intercept; price and first days make it approximate.
    fit = 6.0 * world.user_taste @ world.item_taste.T + world.quality
    appeal = torch.sigmoid(fit - fit.mean() - 2.0).mean(0).double()
    always = world.first_day == 0

    def value_of_picks(score: torch.Tensor) -> float:
        picks = torch.topk(score.masked_fill(~always, -1.0), 30).indices
        return float(appeal[picks].mean())

    by_clicks = value_of_picks(item_clicks(shown, log.num_items))
    by_rate = value_of_picks(item_click_rates(shown, log.num_items))
    best = value_of_picks(appeal)
    everything = float(appeal[always].mean())
    assert everything < by_clicks < by_rate <= best
    assert best - by_rate < 0.6 * (best - by_clicks)
    # The platform's own click rate passes for more than random items would get.
    naive = float(position_curve(shown, weighted=False)[0])
    assert naive > 1.2 * even_click_rate(shown)


def test_weighted_position_curve_recovers_the_examination() -> None:
    sizes = SyntheticConfig(num_users=400, num_items=100, days=40, sessions_per_user=20, seed=4)
    shown = generate("finance", sizes, 3.0)[0].impressions
    assert shown is not None
    curve = position_curve(shown, weighted=True)
    decay = float((curve[-1] / curve[0]) ** (1 / (curve.numel() - 1)))
    assert decay == pytest.approx(0.85, abs=0.04)
