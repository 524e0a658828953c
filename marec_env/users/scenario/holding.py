"""Holding: how long a purchase is kept and what it earns.

The log price of a product of risk class c is a Gaussian walk of daily volatility s_c whose price is
a martingale, ``x <- x + s z - s^2 / 2``: nothing can be earned by skill. On each trading day a
position is sold with probability

    selling_days * (realised_gain if x > 0 else realised_loss),

the disposition effect (Odean 1998, table I: 14.8 % of gains and 9.8 % of losses realised); what is
not sold by ``max_days`` is valued then. Yearly volatilities are within the bands of the summary
risk indicator (PRIIPs regulation (EU) 2017/653, annex II).
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env import random
from marec_env.users.scenario.config import HoldingConfig

__all__ = ["VOLATILITY", "hold"]

VOLATILITY = (0.005, 0.03, 0.08, 0.13, 0.2, 0.3, 0.45)
"""Yearly standard deviation of log returns by risk class, 1 first."""
_TRADING_DAYS = 252  # a year


def hold(
    config: HoldingConfig, purchase: Tensor, risk: Tensor, keys: Tensor, step: Tensor
) -> tuple[Tensor, Tensor]:
    """Hold what was bought.

    Args:
        config: the section ``users.holding``.
        purchase: float32 ``[B, K]``, 1 where an item was bought.
        risk: float32 ``[B, K]``, the items' risk classes, 1 to 7.
        keys: int64 ``[B]``, the sessions' keys.
        step: int64 ``[B]``, the request's number.

    Returns:
        Trading days held and the return in percent of the price paid, float32 ``[B, K]`` each, 0
        where nothing was bought.
    """
    days, earned = torch.zeros_like(purchase), torch.zeros_like(purchase)
    row, place = purchase.nonzero(as_tuple=True)
    if row.numel() == 0:
        return days, earned
    # One stream of keys a position, so that two purchases of one request differ.
    own = random.session_keys(0, keys[row] + place)
    horizon = config.max_days
    yearly = torch.tensor(VOLATILITY, device=purchase.device)
    which = (risk[row, place].to(torch.int64) - 1).clamp(0, len(VOLATILITY) - 1)
    daily = (yearly[which] / _TRADING_DAYS**0.5).unsqueeze(1)
    walk = daily * random.normal(own, step[row], "users/holding_price", horizon)
    walk = (walk - daily.square() / 2).cumsum(1)
    rate = torch.where(walk > 0, config.realised_gain, config.realised_loss) * config.selling_days
    sold = random.uniform(own, step[row], "users/holding_sale", horizon) < rate
    sold[:, -1] = True
    last = sold.to(torch.int8).argmax(1, keepdim=True)
    days[row, place] = (last.squeeze(1) + 1).to(torch.float32)
    earned[row, place] = 100.0 * torch.expm1(walk.gather(1, last).squeeze(1))
    return days, earned
