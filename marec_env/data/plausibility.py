"""Whether a log as a whole can be what it is taken for; single cells are the readers' business."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from marec_env.data.interactions import Impressions, InteractionLog, lexicographic
from marec_env.data.propensity import has_propensities, known_propensities
from marec_env.errors import DataError, visible

_FEW_LIKED, _MANY_LIKED = 0.01, 0.95  # shares outside of which a threshold is probably another's
_LOW_THRESHOLD = 0.8  # share liked, from which a threshold in the scale's lower half is doubted
_TIED = 0.2  # share of interactions in one second with another of the user
_ONCE = 0.5  # share of users with a single interaction
_LARGEST_USER = 0.5  # share of all interactions
_FEWEST_USERS = 20  # from which one user should not have most of the log
_FAR_APART = 3 * 365 * 86_400  # seconds
_DIFFERS = 2.0  # ratio of click rates, and
_CERTAIN = 4.0  # standard errors, from which propensities are not missing by chance


def check_liked(log: InteractionLog) -> None:
    """Refuse a log in which nothing counts as liked: nothing could be learned from it.

    Raises:
        DataError: no rating reaches the threshold.
    """
    if bool(log.liked.any()):
        return
    low, high = float(log.rating.min()), float(log.rating.max())
    raise DataError(
        f"none of {log.num_interactions:,} ratings ({low:g} ... {high:g}) reaches "
        f"data.like_threshold ({log.like_threshold:g}), so nothing counts as liked; set it to at "
        f"most {high:g}"
    )


def doubts(log: InteractionLog) -> Iterator[str]:
    """Yield what is unlikely about a log, one line each.

    Asks for the share liked, equal times, unknown numbers, propensities and users' activity.
    """
    yield from _of_ratings(log)
    yield from _of_times(log)
    yield from _of_repeats(log)
    yield from _of_gaps("items", log.item_attributes)
    yield from _of_gaps("users", log.user_attributes)
    yield from _of_gaps("interactions", log.behaviours)
    if log.impressions is not None:
        yield from _of_impressions(log.impressions, log)
    count = torch.bincount(log.user, minlength=log.num_users)
    once = float((count[count > 0] == 1).double().mean())
    if once > _ONCE:
        yield f"{_percent(once)} of the users have a single interaction: little tells their tastes"
    most = float(count.max()) / log.num_interactions
    if most > _LARGEST_USER and log.num_users >= _FEWEST_USERS:
        name = log.user_ids[int(count.argmax())]
        yield f"user '{visible(name)}' has {_percent(most)} of all interactions: one person?"


def _of_ratings(log: InteractionLog) -> Iterator[str]:
    share = float(log.liked.double().mean())
    threshold = f"data.like_threshold ({log.like_threshold:g})"
    low, high = float(log.rating.min()), float(log.rating.max())
    scale = f"all ratings are {low:g}" if low == high else f"ratings are {low:g} ... {high:g}"
    if share == 1.0:
        yield f"all interactions count as liked: {scale}, {threshold}; nothing tells dislikes"
    elif not _FEW_LIKED <= share <= _MANY_LIKED or (
        share > _LOW_THRESHOLD and log.like_threshold < (low + high) / 2
    ):
        yield f"{_percent(share)} of the interactions count as liked: {scale}, {threshold}"


def _of_times(log: InteractionLog) -> Iterator[str]:
    if log.num_interactions > 1 and int(log.time.min()) == int(log.time.max()):
        yield (
            "all times are equal, so the log has no order: each user's interactions are put in an "
            "order drawn by user and item; ages of items and sessions mean nothing"
        )
        return
    same = _as_before(log.user, log.time)  # sorted by them
    tied = float((same | torch.cat([same[1:], same[:1]])).double().mean())
    if tied > _TIED:
        yield (
            f"{_percent(tied)} of the interactions share their time with another of the same user: "
            "the order among these is drawn by user and item"
        )


def _of_repeats(log: InteractionLog) -> Iterator[str]:
    order = lexicographic(log.item, log.time, log.user)
    repeats = int(_as_before(log.user[order], log.time[order], log.item[order]).sum())
    if repeats:
        yield (
            f"{repeats:,} of {log.num_interactions:,} interactions repeat user, item and time of "
            "another: was a file joined or appended twice? Each counts"
        )


def _as_before(*keys: Tensor) -> Tensor:
    """Return where all keys ``[R]`` are those of the row before, bool ``[R]``."""
    same = torch.zeros(len(keys[0]), dtype=torch.bool)
    same[1:] = torch.stack([key[1:] == key[:-1] for key in keys]).all(0)
    return same


def _of_gaps(what: str, columns: Mapping[str, Tensor]) -> Iterator[str]:
    for name, values in columns.items():
        missing = int(values.isnan().sum())
        if missing == values.numel():
            yield f"'{name}' of all {what} is unknown"
        elif missing:
            filled = "" if what == "interactions" else "; simulations take the others' median"
            yield f"'{name}' of {missing:,} of {values.numel():,} {what} is unknown{filled}"


def _of_impressions(shown: Impressions, log: InteractionLog) -> Iterator[str]:
    click = shown.behaviours["click"]
    if not bool(click.any()):
        yield "no impression was clicked"
    ends = [(int(time.min()), int(time.max())) for time in (shown.time, log.time)]
    if max(low for low, _ in ends) - min(high for _, high in ends) > _FAR_APART:
        yield "impressions and interactions lie years apart: are both in the same unit of time?"
    known = known_propensities(shown)
    missing = int((~known).sum())
    if not missing:
        return
    if missing == known.numel():
        yield (
            "no propensity is known: click rates are those under the platform's choice, which are "
            "too high for even choice if it chooses well"
        )
        return
    use = "rates of random items rest on the others"
    if not has_propensities(shown):
        use = "too few to be used"
    yield f"{missing:,} of {known.numel():,} propensities are not known; {use}"
    rates = [float(click[part].double().mean()) for part in (known, ~known)]
    pooled = float(click.double().mean())
    error = (pooled * (1 - pooled) * (1 / int(known.sum()) + 1 / missing)) ** 0.5
    apart = max(rates) > _DIFFERS * min(rates) and max(rates) - min(rates) > _CERTAIN * error
    if apart:
        yield (
            f"impressions with a propensity are clicked at {rates[0]:.3f}, those without at "
            f"{rates[1]:.3f}: propensities are not missing by chance, and rates that rest on them "
            "may be wrong"
        )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
