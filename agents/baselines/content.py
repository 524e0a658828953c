"""Recommenders that read text: similarity, a hybrid, and the article's scheme."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from agents.baselines.scoring import ScoringPolicy, liked_items
from marec_env.evaluation.view import RecommenderView

__all__ = ["ArticleScheme", "ContentSimilarity", "Hybrid"]

HISTORY = 50  # latest likes that make up a text profile


class ContentSimilarity(ScoringPolicy):
    """Cosine of an item's text to the mean text of what the user likes; clicks count at once."""

    name = "content"

    def __init__(self, text: Tensor, popularity: Tensor) -> None:
        """Args:
        text: float32 ``[N, dt]``, unit length.
        popularity: float32 ``[N]`` in [0, 1], decides for users without a profile.
        """
        self.text, self.popularity = text, popularity

    def scores(self, view: RecommenderView) -> Tensor:
        """Return cosines, ``[B, N]``."""
        return _cosine(self.text, liked_items(view, HISTORY)) + _tie_break(self.popularity, view)


class ArticleScheme(ScoringPolicy):
    """The scheme of the introductory articles, as it is described there.

    A BERT embedding of the user's profile (everything consumed before, liked or not) is compared
    with BERT embeddings of the items, and the nearest are shown. The profile is made once: clicks
    of the session change nothing but what counts as seen. The articles show the top five; positions
    beyond the fifth carry on down the same list.
    """

    name = "article"

    def __init__(self, text: Tensor, popularity: Tensor) -> None:
        """Args: as of :class:`ContentSimilarity`."""
        self.text, self.popularity = text, popularity

    def scores(self, view: RecommenderView) -> Tensor:
        """Return cosines, ``[B, N]``."""
        return _cosine(self.text, view.history) + _tie_break(self.popularity, view)


class Hybrid(ScoringPolicy):
    """Equal weights on the standardised scores of several recommenders."""

    name = "hybrid"

    def __init__(self, parts: tuple[ScoringPolicy, ...]) -> None:
        self.parts = parts

    def scores(self, view: RecommenderView) -> Tensor:
        """Return the mean of the parts' scores, each with mean 0 and deviation 1 in a session."""
        total = torch.zeros(view.seen.shape, device=view.seen.device)
        for part in self.parts:
            scores = part.scores(view)
            centred = scores - scores.mean(dim=1, keepdim=True)
            deviation = centred.square().mean(dim=1, keepdim=True).sqrt()
            total += centred / deviation.clamp(min=torch.finfo(torch.float32).tiny)
        return total / len(self.parts)


def _cosine(text: Tensor, items: Tensor) -> Tensor:
    """Return each item's cosine to the mean text of ``[B, L]`` items, ``[B, N]``; 0 without any."""
    text = text.to(items.device)
    present = (items >= 0).to(torch.float32)
    profile = functional.embedding_bag(
        items.clamp(min=0), text, per_sample_weights=present, mode="sum"
    )
    return functional.normalize(profile, dim=1) @ text.T


def _tie_break(popularity: Tensor, view: RecommenderView) -> Tensor:
    """Return popularity on a scale below that of any real difference in scores."""
    return 1e-6 * popularity.to(view.seen.device)
