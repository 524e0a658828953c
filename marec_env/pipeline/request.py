"""The workspace of one request: what each component leaves for the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from marec_env.errors import ConfigError
from marec_env.pipeline.config import PipelineConfig
from marec_env.pipeline.knowledge import Knowledge
from marec_env.pipeline.memory import SessionMemory, look_up
from marec_env.pipeline.selection import top_k

if TYPE_CHECKING:
    from marec_env.pipeline.component import Component

__all__ = ["USER_TEXT", "Request"]

USER_TEXT = "user_text"
"""Where a request notes which text about the user is told, int64 ``[B]``."""
_AFFINITY_SMOOTHING = 0.2  # of the interest's mass: as a fifth of a history of average likes


@dataclass
class Request:
    """``B`` sessions asking for one slate each.

    Components fill its parts in pipeline order. A part that is needed (:meth:`need`) before anybody
    has made it is made by the built-in component's hand-set decision.
    """

    config: PipelineConfig
    """The section ``pipeline``."""
    knowledge: Knowledge
    """Of the items."""
    memory: SessionMemory
    """Of the sessions, as before the request."""
    keys: Tensor
    """Int64 ``[B]``, the sessions' keys."""
    step: Tensor
    """Int64 ``[B]``, the request's index in its episode."""
    makers: Mapping[str, Component] = field(default_factory=dict)
    """The built-in component that makes each part of :meth:`need`."""
    turn: int = 0
    """The place in the pipeline of the next component to act."""

    # profile
    profile_shift: Tensor | None = None
    """Float32 ``[B, dc]``: what earlier components add to the CF profile, itself of unit length."""
    profile_text: Tensor | None = None
    """Float32 ``[B, dt]``, unit length."""
    profile_cf: Tensor | None = None
    """Float32 ``[B, dc]``, unit length."""
    profile_version: str = ""
    """The spaces the profile lives in; must equal ``knowledge.version``."""

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
    """Float32 ``[B]``: what the blocks computed cost."""

    # ranking
    bonus: Tensor | None = None
    """Float32 ``[B, C]``: what components add to the scores, in score units (a block's spread)."""
    veto: Tensor | None = None
    """Float32 ``[B, C]``, levels >= 0 at least 1 apart: 0 where allowed; an item of a higher level
    is shown only if fewer than K are left at lower ones, whatever its score and bonus."""
    scores: Tensor | None = None
    """Float32 ``[B, C]``: weighted block scores before bonus, veto and diversity."""
    slate: Tensor | None = None
    """Int64 ``[B, K]``, in order of display."""
    slate_slot: Tensor | None = None
    """Int64 ``[B, K]``: the slate's places among the candidates."""
    slate_logits: Tensor | None = None
    """Float32 ``[B, C]``: what the slate was drawn by."""

    # anybody
    extra_cost: Tensor | None = None
    """Float32 ``[B]``: what further components spent (messages, refits)."""
    notes: dict[str, Tensor] = field(default_factory=dict)
    """Whatever a component wants to hand to another, or to its own ``learn``."""

    @property
    def num_sessions(self) -> int:
        """The number of sessions, B."""
        return self.keys.shape[0]

    def need(self, part: Literal["profile_cf", "candidates", "blocks", "slate"]) -> Tensor:
        """Return a part, made by hand-set decision if nobody has made it."""
        if getattr(self, part) is None:
            maker = self.makers[part]
            maker.act(self, maker.default(self.num_sessions, self.keys.device))
        found: Tensor = getattr(self, part)
        return found

    def of_slate(self, values: Tensor | None) -> Tensor | None:
        """Return of values of the candidates, ``[B, C, ...]``, those of the slate's items, ``[B, K,
        ...]``; ``None`` where nobody says, or where the slate is not of candidates.
        """
        if values is None or self.slate_slot is None:
            return None
        place = self.slate_slot.view(*self.slate_slot.shape, *[1] * (values.dim() - 2))
        return values.gather(1, place.expand(*self.slate_slot.shape, *values.shape[2:]))

    def shift_profile(self, vector: Tensor) -> None:
        """Add float32 ``[B, dc]`` to the CF profile, which has unit length before."""
        self.profile_shift = _sum(self.profile_shift, vector)

    def add_bonus(self, bonus: Tensor) -> None:
        """Add float32 ``[B, C]`` score units to the candidates; 1 is the spread of a block."""
        self.bonus = _sum(self.bonus, bonus)

    def add_veto(self, level: Tensor) -> None:
        """Add float32 ``[B, C]`` levels of veto, each 0 or at least 1."""
        self.veto = _sum(self.veto, level)

    def spend(self, cost: Tensor) -> None:
        """Add float32 ``[B]`` to what further components spent."""
        self.extra_cost = _sum(self.extra_cost, cost)

    @cached_property
    def cf_scores(self) -> Tensor:
        """Float32 ``[B, N]``: profile times item in CF space, of seen items too."""
        return self.need("profile_cf") @ self.knowledge.cf.T

    @cached_property
    def text_scores(self) -> Tensor:
        """Float32 ``[B, N]``: the same in text space."""
        assert self.profile_text is not None
        return self.profile_text @ self.knowledge.text.T

    @property
    def user_kind(self) -> Tensor:
        """Int64 ``[B]``: which text about users the profile tells, else the one that holds now."""
        told = self.notes.get(USER_TEXT)
        return self.memory.user_kind() if told is None else told

    @property
    def both_profiles(self) -> Tensor:
        """Float32 ``[B, dc + dt]``: the profiles of both spaces, the collaborative one first."""
        cf = self.need("profile_cf")
        assert self.profile_text is not None
        return torch.cat([cf, self.profile_text], dim=1)

    @property
    def indexed(self) -> bool:
        """Whether the catalog is searched through an approximate index, or in shards."""
        knowledge = self.knowledge
        return knowledge.shards is not None or self.config.recall.approximate(knowledge.num_items)

    def scores_of(self, space: Literal["cf", "text"], items: Tensor) -> Tensor:
        """Return profile times item in a space, float32 ``[B, M]``.

        Where an index spares scores of the whole catalog, only these items' are computed.

        Args:
            space: ``cf`` or ``text``.
            items: int64 ``[B, M]``.
        """
        dense = f"{space}_scores"
        if dense in vars(self) or not self.indexed:
            scores: Tensor = getattr(self, dense)
            return scores.gather(1, items)
        vectors = self.knowledge.rows(space, items)  # [B, M, d]
        profile: Tensor = getattr(self, f"profile_{space}")
        return (vectors @ profile.unsqueeze(2)).squeeze(2)

    @cached_property
    def _liked_topics(self) -> Tensor:
        return self.memory.interest + _AFFINITY_SMOOTHING * self.knowledge.topic_share

    @property
    def topic_mix(self) -> Tensor:
        """Float32 ``[B, T]``, rows sum to 1: the topics' shares in what the user liked, smoothed by
        what the average user likes, which stands for a user without a history.
        """
        return self._liked_topics / self._liked_topics.sum(1, keepdim=True)

    @cached_property
    def affinity(self) -> Tensor:
        """Float32 ``[B, T]``: log ratio of a topic's share in what the user liked to everyone's.

        Smoothed by what the average user likes, so that it is 0 for a user without a history.
        """
        total = self.memory.interest.sum(1, keepdim=True) + _AFFINITY_SMOOTHING
        return torch.log(self._liked_topics / (total * self.knowledge.topic_share))

    @cached_property
    def log_propensity(self) -> Tensor:
        """Float32 ``[B]``: log-probability of this ordered slate given the candidates, exact.

        The slate is drawn by Plackett-Luce: a sum over positions of the logit chosen less the
        log-sum-exp of what was still there.

        Raises:
            ConfigError: the slate was not drawn by the ranking.
        """
        if self.slate_logits is None or self.slate_slot is None:
            raise ConfigError("the slate was not drawn by the component 'ranking': no propensity")
        picked = self.slate_logits.gather(1, self.slate_slot)
        rest = self.slate_logits.scatter(1, self.slate_slot, -torch.inf)
        # Going backwards, each position adds its own logit to the log-sum-exp of the rest.
        tail = torch.cat([picked, rest.logsumexp(1, keepdim=True)], dim=1).flip(1)
        remaining = tail.logcumsumexp(1)[:, 1:].flip(1)
        return (picked - remaining).sum(1)

    def best_unseen(self, scores: Tensor, length: int) -> Tensor:
        """Return each session's unseen items of largest score, best first.

        Args:
            scores: float32 ``[B, N]``, small beside ``selection.EXCLUDED``.
            length: how many.

        Returns:
            Int64 ``[B, length]``.
        """
        return top_k(scores, length, excluded=self.memory.seen)

    def of_items(self, name: Literal["topics", "popularity", "freshness"], items: Tensor) -> Tensor:
        """Return what is known of items, same shape; of the candidates, looked up once."""
        table: Tensor = getattr(self.knowledge, name)
        if items is not self.candidates:
            return look_up(table, items)
        known: dict[str, Tensor] = vars(self).setdefault("_known", {})
        if known.get("candidates") is not items:
            known.clear()
            known["candidates"] = items
        if name not in known:
            known[name] = look_up(table, items)
        return known[name]

    def topics_of(self, items: Tensor) -> Tensor:
        """Return the topics of items, same shape."""
        return self.of_items("topics", items)

    @property
    def candidate_popularity(self) -> Tensor:
        """Float32 ``[B, C]``, in [0, 1]."""
        return self.of_items("popularity", self.need("candidates"))

    @property
    def candidate_freshness(self) -> Tensor:
        """Float32 ``[B, C]``, in [0, 1]."""
        return self.of_items("freshness", self.need("candidates"))


def _sum(so_far: Tensor | None, more: Tensor) -> Tensor:
    return more if so_far is None else so_far + more
