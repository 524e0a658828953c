"""What the recommender remembers of running sessions: a struct of arrays over ``B`` sessions."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any

import torch
from torch import Tensor

from marec_env.errors import ConfigError
from marec_env.pipeline.knowledge import Knowledge
from marec_env.pipeline.lookup import look_up

__all__ = ["EXPOSURE_KEEP", "SessionMemory"]

_FAST = 0.5  # keeps of the fast click rate: a half-life of one request
_SLOW = 0.9  # keeps of the slow click rate: a half-life of 6.6 requests
EXPOSURE_KEEP = 0.75  # keeps of the topic exposure, a half-life of 2.4 requests
_USEFULNESS = 0.9  # keeps of channel hit rates and block usefulness
_DISLIKE_HALF_LIFE = 8.0  # requests
_PRIOR_RATE = 0.15  # click rate assumed before the first request


class SessionMemory:
    """Histories, exposure and running statistics, all from what was shown and clicked.

    Attributes (``B`` sessions, ``N`` items, ``T`` topics, ``H`` time scales, ``K`` slate):
        history: int64 ``[B, L]``, items consumed before the session, oldest first, -1 padded.
        history_liked: bool ``[B, L]``.
        seen: bool ``[B, N]``, items that may not be shown again.
        recent: int64 ``[B, R]``, latest clicked or liked items, newest first, -1 where none.
        taste_text, taste_cf: float32 ``[B, H, d]``, decayed sums of clicked items' vectors.
        dislike_text, dislike_cf: float32 ``[B, d]``, the same of items shown and not clicked.
        exposure, interest: float32 ``[B, T]``, decayed topic shares of what was shown / clicked.
        channel_hits: float32 ``[B, channels]``, decayed click rate by recall channel.
        block_use: float32 ``[B, blocks]``, decayed correlation of block score and click.
        session_items, session_clicks: ``[B, Tmax, K]``, this episode's log (-1 / 0 padded).
        group: float32 ``[B, G]``, the user's group, one-hot.
        limits: float32 ``[B, S]``, the user's limit for each entry of ``audit.suitability``,
            infinite where there is none.
        fitted_cf: float32 ``[B, d]``, the vector of the last refit, unit length; 0 before it.
        refit_at: int64 ``[B]``, the request at which it was made; 0 before it.
    """

    _STORED = (
        "history",
        "history_liked",
        "history_length",
        "seen",
        "recent",
        "taste_text",
        "taste_cf",
        "dislike_text",
        "dislike_cf",
        "exposure",
        "interest",
        "fast_rate",
        "slow_rate",
        "last_rate",
        "since_click",
        "channel_hits",
        "block_use",
        "session_items",
        "session_clicks",
        "requests",
        "group",
        "limits",
        "fitted_cf",
        "refit_at",
    )

    def __init__(
        self,
        knowledge: Knowledge,
        num_sessions: int,
        *,
        half_lives: tuple[float, ...],
        history_length: int,
        recent: int,
        channels: int,
        blocks: int,
        max_requests: int,
        slate_size: int,
        groups: int = 1,
        limits: int = 0,
    ) -> None:
        self.knowledge = knowledge
        device = knowledge.text.device
        self.device = device
        B, T = num_sessions, knowledge.num_topics
        self.num_sessions = B
        lives = torch.tensor(half_lives, device=device)
        self._keep = torch.pow(0.5, 1.0 / lives).view(1, -1, 1)
        self._dislike_keep = 0.5 ** (1.0 / _DISLIKE_HALF_LIFE)

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(B, *shape, dtype=dtype, device=device)

        self.history = zeros(history_length, dtype=torch.int64) - 1
        self.history_liked = zeros(history_length, dtype=torch.bool)
        self.history_length = zeros()
        self.seen = zeros(knowledge.num_items, dtype=torch.bool)
        self.recent = zeros(recent, dtype=torch.int64) - 1
        self.taste_text = zeros(len(half_lives), knowledge.text.shape[1])
        self.taste_cf = zeros(len(half_lives), knowledge.cf.shape[1])
        self.dislike_text = zeros(knowledge.text.shape[1])
        self.dislike_cf = zeros(knowledge.cf.shape[1])
        self.exposure = zeros(T)
        self.interest = zeros(T)
        self.fast_rate = zeros()
        self.slow_rate = zeros()
        self.last_rate = zeros()
        self.since_click = zeros()
        self.channel_hits = zeros(channels)
        self.block_use = zeros(blocks)
        self.session_items = zeros(max_requests, slate_size, dtype=torch.int64) - 1
        self.session_clicks = zeros(max_requests, slate_size)
        self.requests = zeros(dtype=torch.int64)
        self.group = zeros(groups)
        self.limits = zeros(limits) + torch.inf
        self.fitted_cf = zeros(knowledge.cf.shape[1])
        self.refit_at = zeros(dtype=torch.int64)
        # Weight of the i-th latest history item: as if one had been consumed per request.
        ages = torch.arange(history_length - 1, -1, -1, device=device, dtype=torch.float32)
        self._history_weight = torch.pow(0.5, ages.view(1, -1) / lives.view(-1, 1))  # [H, L]

    def reset(
        self,
        where: Tensor,
        history: Tensor,
        liked: Tensor,
        group: Tensor,
        limits: Tensor | None = None,
    ) -> None:
        """Begin new episodes.

        Args:
            where: int64 ``[n]``, the rows.
            history, liked: int64 and bool ``[n, L]``, what the recommender knows of the past.
            group: int64 ``[n]``, the user's group.
            limits: float32 ``[n, S]``, the user's suitability limits; none if ``None``.
        """
        known = history >= 0
        items = history.clamp(min=0)
        positive = (known & liked).to(torch.float32)
        weight = self._history_weight.unsqueeze(0) * positive.unsqueeze(1)  # [n, H, L]
        negative = (known & ~liked).to(torch.float32)
        text, cf = self.knowledge.text[items], self.knowledge.cf[items]  # [n, L, d]
        n = history.shape[0]

        self.history[where] = history
        self.history_liked[where] = liked
        self.history_length[where] = known.sum(1).to(torch.float32)
        size = self.knowledge.num_items
        seen = torch.zeros(n, size + 1, dtype=torch.bool, device=self.device)
        self.seen[where] = seen.scatter_(1, torch.where(known, history, size), True)[:, :-1]
        self.recent[where] = self._latest(history, known & liked)
        self.taste_text[where] = weight @ text
        self.taste_cf[where] = weight @ cf
        self.dislike_text[where] = (negative.unsqueeze(1) @ text).squeeze(1)
        self.dislike_cf[where] = (negative.unsqueeze(1) @ cf).squeeze(1)
        interest = positive.unsqueeze(1) @ self.knowledge.topic_indicator[items]
        self.interest[where] = interest.squeeze(1) / positive.sum(1, keepdim=True).clamp(min=1.0)
        for name in ("exposure", "since_click", "channel_hits", "block_use", "session_clicks"):
            getattr(self, name)[where] = 0.0
        for name in ("fast_rate", "slow_rate", "last_rate"):
            getattr(self, name)[where] = _PRIOR_RATE
        self.session_items[where] = -1
        self.requests[where] = 0
        self.limits[where] = torch.inf if limits is None else limits
        self.fitted_cf[where] = 0.0
        self.refit_at[where] = 0
        self.group[where] = torch.nn.functional.one_hot(group, self.group.shape[1]).float()

    def of_rows(self, rows: Tensor) -> SessionMemory:
        """Return a copy of the sessions ``rows`` (int64 ``[n]``) only."""
        part = copy(self)
        part.num_sessions = rows.shape[0]
        for name in self._STORED:
            setattr(part, name, getattr(self, name)[rows])
        return part

    def _latest(self, items: Tensor, kept: Tensor) -> Tensor:
        """Return the last ``R`` kept items of each row, newest first, -1 padded: ``[n, R]``."""
        size = self.recent.shape[1]
        rank = kept.flip(1).cumsum(1) - 1  # 0 for the newest kept item
        slot = torch.where(kept.flip(1) & (rank < size), rank, size)
        latest = torch.full((items.shape[0], size + 1), -1, dtype=torch.int64, device=self.device)
        latest.scatter_(1, slot, items.flip(1))
        return latest[:, :size]

    def update(
        self, slate: Tensor, clicks: Tensor, channel: Tensor | None, blocks: Tensor | None
    ) -> None:
        """Learn from one answered request.

        Args:
            slate: int64 ``[B, K]``.
            clicks: float32 ``[B, K]``.
            channel: int64 ``[B, K]``, the recall channel of each item, -1 where none.
            blocks: float32 ``[B, K, blocks]``, the block scores of the slate.
        """
        knowledge = self.knowledge
        text, cf = look_up(knowledge.text, slate), look_up(knowledge.cf, slate)
        both = torch.stack([clicks, 1.0 - clicks], dim=1)  # [B, 2, K]
        text_sums, cf_sums = both @ text, both @ cf  # [B, 2, d]
        self.taste_text.mul_(self._keep).add_(text_sums[:, :1])
        self.taste_cf.mul_(self._keep).add_(cf_sums[:, :1])
        self.dislike_text.mul_(self._dislike_keep).add_(text_sums[:, 1])
        self.dislike_cf.mul_(self._dislike_keep).add_(cf_sums[:, 1])
        self.seen.scatter_(1, slate, True)

        size = slate.shape[1]
        topics = look_up(knowledge.topics, slate)
        share = 1.0 / size
        self.exposure.mul_(EXPOSURE_KEEP).scatter_add_(
            1, topics, torch.full_like(clicks, (1.0 - EXPOSURE_KEEP) * share)
        )
        clicked = clicks.sum(1)
        self.interest.mul_(_SLOW).scatter_add_(
            1, topics, clicks * ((1.0 - _SLOW) / clicked.clamp(min=1.0)).unsqueeze(1)
        )
        rate = clicked * share
        self.last_rate = rate
        self.fast_rate = _FAST * self.fast_rate + (1.0 - _FAST) * rate
        self.slow_rate = _SLOW * self.slow_rate + (1.0 - _SLOW) * rate
        self.since_click = torch.where(clicked > 0, 0.0, self.since_click + 1.0)

        positive = clicks > 0
        joined = torch.cat([torch.where(positive, slate, -1).flip(1), self.recent], dim=1)
        # Newest first: the slate's last position is the latest click.
        self.recent = self._latest(joined.flip(1), joined.flip(1) >= 0)

        if channel is not None:
            self._learn_channels(channel, clicks)
        if blocks is not None:
            centred = blocks - blocks.mean(1, keepdim=True)
            spread = centred.square().sum(1).sqrt()
            lean = clicks - rate.unsqueeze(1)
            length = lean.square().sum(1, keepdim=True).sqrt()
            product = (centred * lean.unsqueeze(-1)).sum(1)
            correlation = product / (spread * length).clamp(min=1e-6)
            self.block_use.mul_(_USEFULNESS).add_(correlation, alpha=1.0 - _USEFULNESS)

        rows = torch.arange(self.num_sessions, device=self.device)
        step = self.requests.clamp(max=self.session_items.shape[1] - 1)
        self.session_items[rows, step] = slate
        self.session_clicks[rows, step] = clicks
        self.requests = self.requests + 1

    def _learn_channels(self, channel: Tensor, clicks: Tensor) -> None:
        count = self.channel_hits.shape[1]
        slot = torch.where(channel < 0, count, channel)
        shown = torch.zeros(self.num_sessions, count + 1, device=self.device)
        hits = torch.zeros_like(shown)
        shown.scatter_add_(1, slot, torch.ones_like(clicks))
        hits.scatter_add_(1, slot, clicks)
        shown, hits = shown[:, :count], hits[:, :count]
        fresh = hits / shown.clamp(min=1.0)
        moved = _USEFULNESS * self.channel_hits + (1.0 - _USEFULNESS) * fresh
        self.channel_hits = torch.where(shown > 0, moved, self.channel_hits)

    def state_dict(self) -> dict[str, Tensor]:
        """Return all stored tensors by name (copies)."""
        return {name: getattr(self, name).clone() for name in self._STORED}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over tensors as :meth:`state_dict` returned them.

        Raises:
            ConfigError: something is missing, for the state was saved by another version.
        """
        missing = [name for name in self._STORED if name not in state]
        if missing:
            raise ConfigError(
                f"saved session memory lacks '{missing[0]}': another version of marec saved it; "
                "start the run anew"
            )
        for name in self._STORED:
            setattr(self, name, state[name].to(self.device).clone())
