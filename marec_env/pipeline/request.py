"""The workspace of one request: what each stage of the pipeline leaves for the next."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from marec_env.pipeline import index
from marec_env.pipeline.compose import slate_log_propensity
from marec_env.pipeline.config import PipelineConfig
from marec_env.pipeline.knowledge import Knowledge
from marec_env.pipeline.lookup import look_up
from marec_env.pipeline.memory import SessionMemory
from marec_env.pipeline.topk import top_k

__all__ = ["Request"]

_AFFINITY_SMOOTHING = 0.2  # of the interest's mass: as a fifth of a history of average likes


@dataclass
class Request:
    """``B`` sessions asking for one slate each.

    Stages fill their fields in order; a stage that no component has run by the time a later one
    needs it runs with its default decision (:mod:`marec_env.pipeline.stages`).
    """

    config: PipelineConfig
    knowledge: Knowledge
    memory: SessionMemory
    keys: Tensor
    """Int64 ``[B]``, the sessions' keys."""
    step: Tensor
    """Int64 ``[B]``, the request's index in its episode."""

    # profile
    profile_text: Tensor | None = None
    """Float32 ``[B, dt]``, unit length."""
    profile_cf: Tensor | None = None
    """Float32 ``[B, dc]``, unit length."""
    profile_version: str = ""
    """The spaces the profile lives in; must equal ``knowledge.version``."""

    fitted_cf: Tensor | None = None
    """Float32 ``[B, dc]``: the refitted vectors to use from this request on, where not the ones
    remembered."""
    refitted: Tensor | None = None
    """Bool ``[B]``: whose vector was refitted in this request."""

    # recall
    quotas: Tensor | None = None
    """Int64 ``[B, channels]``, summing to C."""
    candidates: Tensor | None = None
    """Int64 ``[B, C]``, no item twice, none seen before."""
    candidate_channel: Tensor | None = None
    """Int64 ``[B, C]``: the channel that brought the candidate."""

    # feature
    enabled: Tensor | None = None
    """Float32 ``[B, blocks]``: 1 where a block was computed."""
    blocks: Tensor | None = None
    """Float32 ``[B, C, blocks]``: unit spread within the candidates, 0 where not computed."""
    compute_cost: Tensor | None = None
    """Float32 ``[B]``."""

    # ranking
    veto: Tensor | None = None
    """Float32 ``[B, C]``, levels at least 1 apart: 0 where allowed; an item of a higher level is
    shown only if fewer than K are left at lower ones."""
    scores: Tensor | None = None
    """Float32 ``[B, C]``: weighted block scores before diversity."""
    slate: Tensor | None = None
    """Int64 ``[B, K]``, in order of display."""
    slate_slot: Tensor | None = None
    """Int64 ``[B, K]``: the slate's places among the candidates."""
    slate_logits: Tensor | None = None
    """Float32 ``[B, C]``: what the slate was drawn by."""

    extra_cost: Tensor | None = None
    """Float32 ``[B]``: what further components spent (messages, refits)."""
    notes: dict[str, Tensor] = field(default_factory=dict)
    """Whatever a user's component wants to hand to another."""

    @property
    def num_sessions(self) -> int:
        """The number of sessions, B."""
        return self.keys.shape[0]

    def spend(self, cost: Tensor) -> None:
        """Add float32 ``[B]`` to what further components spent."""
        self.extra_cost = cost if self.extra_cost is None else self.extra_cost + cost

    @cached_property
    def cf_scores(self) -> Tensor:
        """Float32 ``[B, N]``: profile times item in CF space, of seen items too."""
        assert self.profile_cf is not None
        return self.profile_cf @ self.knowledge.cf.T

    @cached_property
    def text_scores(self) -> Tensor:
        """Float32 ``[B, N]``: the same in text space."""
        assert self.profile_text is not None
        return self.profile_text @ self.knowledge.text.T

    def scores_of(self, space: str, items: Tensor) -> Tensor:
        """Return profile times item in a space, float32 ``[B, M]``.

        Where an index spares scores of the whole catalog, only these items' are computed.

        Args:
            space: ``cf`` or ``text``.
            items: int64 ``[B, M]``.
        """
        dense = f"{space}_scores"
        if dense in vars(self) or not index.is_used(self.config.recall, self.knowledge.num_items):
            scores: Tensor = getattr(self, dense)
            return scores.gather(1, items)
        vectors = look_up(getattr(self.knowledge, space), items)  # [B, M, d]
        profile: Tensor = getattr(self, f"profile_{space}")
        return (vectors @ profile.unsqueeze(2)).squeeze(2)

    @cached_property
    def affinity(self) -> Tensor:
        """Float32 ``[B, T]``: log ratio of a topic's share in what the user liked to everyone's.

        Smoothed by what the average user likes, so that it is 0 for a user without a history.
        """
        interest, usual = self.memory.interest, self.knowledge.topic_share
        share = interest + _AFFINITY_SMOOTHING * usual
        total = interest.sum(1, keepdim=True) + _AFFINITY_SMOOTHING
        return torch.log(share / (total * usual))

    @cached_property
    def log_propensity(self) -> Tensor:
        """Float32 ``[B]``: log-probability of this ordered slate given the candidates, exact."""
        assert self.slate_logits is not None
        assert self.slate_slot is not None
        return slate_log_propensity(self.slate_logits, self.slate_slot)

    def best_unseen(self, scores: Tensor, length: int) -> Tensor:
        """Return each session's unseen items of largest score, best first.

        Args:
            scores: float32 ``[B, N]``, small beside ``topk.EXCLUDED``.
            length: how many.

        Returns:
            Int64 ``[B, length]``.
        """
        return top_k(scores, length, excluded=self.memory.seen)

    def topics_of(self, items: Tensor) -> Tensor:
        """Return the topics of items, same shape."""
        if items is self.candidates:
            return self._candidate_topics
        return look_up(self.knowledge.topics, items)

    @cached_property
    def _candidate_topics(self) -> Tensor:
        assert self.candidates is not None
        return look_up(self.knowledge.topics, self.candidates)

    @cached_property
    def candidate_popularity(self) -> Tensor:
        """Float32 ``[B, C]``."""
        assert self.candidates is not None
        return look_up(self.knowledge.popularity, self.candidates)

    @cached_property
    def candidate_freshness(self) -> Tensor:
        """Float32 ``[B, C]``."""
        assert self.candidates is not None
        return look_up(self.knowledge.freshness, self.candidates)
