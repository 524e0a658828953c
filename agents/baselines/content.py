"""Recommenders that read text: similarity, a hybrid, and the article's scheme."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from agents.baselines.scoring import LikesPolicy, ScoringPolicy, sum_of_rows
from marec_env.evaluation.policies import RecommenderView

Encode = Callable[[Sequence[str]], Tensor]


class ContentSimilarity(LikesPolicy):
    """Cosine of an item's text to the mean text of what the user likes."""

    name = "content"
    latest = 50

    def __init__(self, text: Tensor, popularity: Tensor) -> None:
        """``text``: float32 ``[N, dt]``, unit length; ``popularity``: float32 ``[N]`` in [0, 1],
        decides for users without a profile.
        """
        self.text, self.popularity = text, popularity

    def scores_of(self, liked: Tensor) -> Tensor:
        """Return cosines; 0 for users without likes."""
        text = self.text.to(liked.device)
        profile = sum_of_rows(text, liked, (liked >= 0).to(torch.float32))
        return functional.normalize(profile, dim=1) @ text.T + _tie_break(self.popularity, liked)


class ArticleScheme(ScoringPolicy):
    """The scheme of the introductory articles, as it is described there.

    The user's profile is a text (everything consumed before the session, liked or not, newest
    first), the items' features are texts; BERT embeds both, and the items nearest to the profile
    are shown. The profile is embedded once: clicks of the session change nothing but what counts as
    seen. The encoder cuts a text at its longest input, which leaves out what is oldest. The
    articles show the top five; positions beyond the fifth carry on down the same list.
    """

    name = "article"

    def __init__(self, texts: Sequence[str], encode: Encode, popularity: Tensor) -> None:
        """``texts``: of each item; ``encode``: texts to unit vectors, float32 ``[n, d]``;
        ``popularity``: as in :class:`ContentSimilarity`.
        """
        self.texts, self.encode, self.popularity = texts, encode, popularity
        self.features = encode(texts)
        self._profiles: dict[tuple[int, ...], Tensor] = {}

    def scores(self, view: RecommenderView) -> Tensor:
        """Return cosines, ``[B, N]``; 0 for users without a profile."""
        device = view.history.device
        rows = [tuple(item for item in row if item >= 0) for row in view.history.tolist()]
        absent = sorted({row for row in rows if row and row not in self._profiles})
        if absent:
            vectors = self.encode([self.profile_text(row) for row in absent])
            self._profiles |= dict(zip(absent, vectors, strict=True))
        nobody = torch.zeros(self.features.shape[1])
        profiles = torch.stack([self._profiles[row] if row else nobody for row in rows])
        cosines = profiles.to(device) @ self.features.to(device).T
        return cosines + _tie_break(self.popularity, view.history)

    def profile_text(self, items: Sequence[int]) -> str:
        """Return the profile of a user who consumed these items, oldest first."""
        return "; ".join(self.texts[item] for item in reversed(items))


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


def _tie_break(popularity: Tensor, like: Tensor) -> Tensor:
    """Return popularity on a scale below that of any real difference in scores, beside ``like``."""
    return 1e-6 * popularity.to(like.device)
