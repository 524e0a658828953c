"""The quantities of a comparison: what they are called, in which unit, and which way is better."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = [
    "COHORT",
    "LISTS",
    "OBJECTIVE",
    "OUTCOMES",
    "QUALITY",
    "REGRET",
    "STAGES",
    "Quantity",
    "Stage",
    "objectives",
]

REGRET = "regret"
OBJECTIVE = "objective/"


@dataclass(frozen=True, slots=True)
class Quantity:
    """A column of a table or an axis of a figure."""

    key: str
    """Its name in ``evaluation.json``."""
    short: str
    """A heading."""
    title: str
    """With its unit."""
    higher_is_better: bool | None
    """``None`` where neither way is."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of the funnel, and who decides what gets past it."""

    key: str
    title: str
    decides: str
    """Components, or the user; empty where nobody does."""


OUTCOMES = (
    Quantity("clicks", "clicks", "clicks a session", True),
    Quantity("satisfaction", "satisfaction", "satisfaction (0 to 1), session mean", True),
    Quantity("length", "requests", "session length in requests", True),
    Quantity(REGRET, "regret", "regret: clicks a session below the oracle", False),
    Quantity("return", "F", "F a session", True),
    Quantity("stayed", "stayed", "share of sessions that reached the limit", True),
    Quantity("returns", "returns", "returns a user", True),
)
"""User outcomes; regret is to the best privileged policy evaluated beside the run."""
QUALITY = (
    Quantity("precision", "precision", "share of the slate that is relevant", True),
    Quantity("recall", "recall", "share of the relevant items in the slate", True),
    Quantity("f1", "F1", "harmonic mean of precision and recall", True),
    Quantity("ndcg", "NDCG", "normalised discounted cumulative gain", True),
    Quantity("mrr", "MRR", "mean reciprocal rank", True),
    Quantity("hit_rate", "hit rate", "share of slates with a relevant item", True),
)
COHORT = (
    Quantity("coverage", "coverage", "share of the catalog shown to anybody", True),
    Quantity("gini", "Gini", "Gini index of exposure over items", False),
)
LISTS = (
    Quantity("diversity", "diversity", "mean cosine distance within a slate", True),
    Quantity("novelty", "novelty", "self-information of the items, bits", None),
    Quantity("serendipity", "serendipity", "share relevant and not popular anyway", True),
    Quantity("miscalibration", "miscal.", "topics of slate and history, KL divergence", False),
    *COHORT,
)

STAGES = (
    Stage("relevant", "relevant to the user", ""),
    Stage("candidates", "among the candidates", "profile and recall"),
    Stage("scored", "best by score", "feature and ranking: score"),
    Stage("slate", "shown", "ranking: diversity, exploration"),
    Stage("clicked", "clicked", "the user"),
)
"""Stages of the funnel in order."""


def objectives(keys: Iterable[str]) -> tuple[Quantity, ...]:
    """Return the components' own objectives among the keys of an evaluation."""
    return tuple(
        Quantity(key, name, f"own objective of {name} a request (0 to 1)", True)
        for key in keys
        if key.startswith(OBJECTIVE)
        for name in [key.removeprefix(OBJECTIVE)]
    )
