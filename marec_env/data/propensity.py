"""What a log would have said had its items been shown evenly: inverse propensity weighting.

Clicks in a log tell what was shown as much as what is liked. Weighting each impression by the
inverse of the probability with which the platform chose it undoes the platform's taste (Horvitz and
Thompson, JASA 47, 1952; for recommenders Schnabel et al., ICML 2016). The weights here are
self-normalised within each position, which keeps estimates inside [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env.data.interactions import Impressions
from marec_env.errors import DataError

_PRIOR = 20.0  # impressions at the mean rate that every item is given
_SMALLEST = 1e-300  # keeps quotients of items without impressions finite
_ENOUGH = 100  # known propensities at the first place, from which the unknown can be left out


def known_propensities(shown: Impressions) -> Tensor:
    """Return where the probability of the platform's choice is known, bool ``[M]``."""
    return torch.isfinite(shown.propensity)


def has_propensities(shown: Impressions) -> bool:
    """Return whether enough of the platform's choice probabilities are known to weight by them.

    That is: all, or at the first place a hundred, of clicked and of other impressions. Those that
    are not known are left out.
    """
    known = known_propensities(shown)
    if bool(known.all()):
        return True
    click = shown.behaviours["click"][known & (shown.position == 0)]
    return click.numel() >= _ENOUGH and 0 < int(click.sum()) < click.numel()


def _weights(shown: Impressions) -> Tensor:
    """Return inverse propensities, float64 ``[M]``; 0 where they are not known."""
    if not has_propensities(shown):
        raise DataError(
            "impressions: the propensities are not known; give a column 'propensity' in (0, 1]"
        )
    return (1.0 / shown.propensity.to(torch.float64)).nan_to_num(0.0)


def position_curve(shown: Impressions, weighted: bool) -> Tensor:
    """Return the click rate at each position, float64 ``[K]``.

    Args:
        shown: impressions.
        weighted: whether each impression counts by its inverse propensity: then position k shows
            what its place does, not that better items stand above.

    Raises:
        DataError: weights are asked for but the propensities are unknown.
    """
    weight = _weights(shown) if weighted else torch.ones(shown.user.shape, dtype=torch.float64)
    size = int(shown.position.max()) + 1
    total = torch.zeros(size, dtype=torch.float64).index_add_(0, shown.position, weight)
    clicks = torch.zeros(size, dtype=torch.float64).index_add_(
        0, shown.position, weight * shown.behaviours["click"].to(torch.float64)
    )
    return clicks / total.clamp_min(_SMALLEST)


def even_click_rate(shown: Impressions) -> float:
    """Return the click rate that the first position would have under even choice of items: the
    evidence for ``population.random_click_rate`` if the first position is always looked at.
    """
    return float(position_curve(shown, weighted=True)[0])


def item_clicks(shown: Impressions, num_items: int) -> Tensor:
    """Return how often each item was clicked, float64 ``[N]``: all that naive learning from
    positive feedback sees.
    """
    clicks = shown.behaviours["click"].to(torch.float64)
    return torch.zeros(num_items, dtype=torch.float64).index_add_(0, shown.item, clicks)


def item_click_rates(shown: Impressions, num_items: int) -> Tensor:
    """Return each item's click rate had all users seen it at all places equally often.

    The rate is self-normalised over the item's impressions and, because rare items have few, drawn
    towards the mean of all by ``_PRIOR`` impressions; what counts as a number of impressions is
    Kish's effective size ``(Σw)² / Σw²``.

    Args:
        shown: impressions with propensities.
        num_items: N.

    Returns:
        Float64 ``[N]``.
    """
    weight = _weights(shown)
    clicks = shown.behaviours["click"].to(torch.float64)

    def per_item(values: Tensor) -> Tensor:
        return torch.zeros(num_items, dtype=torch.float64).index_add_(0, shown.item, values)

    total, square = per_item(weight), per_item(weight.square())
    weighted = per_item(weight * clicks)
    size = total.square() / square.clamp_min(_SMALLEST)
    rate = weighted / total.clamp_min(_SMALLEST)
    overall = weighted.sum() / total.sum()
    return (rate * size + overall * _PRIOR) / (size + _PRIOR)
