"""What the recommender remembers of running sessions: a struct of arrays over ``B`` sessions."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any, Literal

import torch
from torch import Tensor

from marec_env.errors import ConfigError
from marec_env.pipeline.config import PipelineConfig
from marec_env.pipeline.knowledge import Knowledge
from marec_env.vector import Rows

_FAST = 0.5  # keeps of the fast click rate: a half-life of one request
_SLOW = 0.9  # keeps of the slow click rate: a half-life of 6.6 requests
EXPOSURE_KEEP = 0.75  # keeps of the topic exposure, a half-life of 2.4 requests
_USEFULNESS = 0.9  # keeps of channel hit rates and block usefulness
_DISLIKE_HALF_LIFE = 8.0  # requests
_RECENT = 8  # latest clicked items whose neighbours item_to_item offers
_SPACES: tuple[Literal["text", "cf"], ...] = ("text", "cf")
_PRIOR_RATE = 0.15  # click rate assumed before the first request


def look_up(table: Tensor, items: Tensor) -> Tensor:
    """Return ``table[items]`` for ``[N, ...]`` and int64 ``[B, M]``: ``[B, M, ...]``.

    Several times as fast as indexing on the CPU.
    """
    return table.index_select(0, items.flatten()).view(*items.shape, *table.shape[1:])


def copied(values: Any, device: torch.device | None = None) -> Any:
    """Return copies of nested mappings of tensors, on a device if one is given."""
    if isinstance(values, Mapping):
        return {name: copied(value, device) for name, value in values.items()}
    if not isinstance(values, Tensor):
        return values
    return values.clone() if device is None else values.to(device).clone()


class SessionMemory:
    """Histories, exposure and running statistics, all from what was shown and clicked.

    Shapes: ``B`` sessions, ``N`` items, ``T`` topics, ``H`` time scales, ``K`` slate.
    """

    history: Tensor
    """Int64 ``[B, L]``, items consumed before the session, oldest first, -1 padded."""
    history_liked: Tensor
    """Bool ``[B, L]``, which of them the user liked."""
    history_length: Tensor
    """Float32 ``[B]``, items of the history."""
    seen: Tensor
    """Bool ``[B, N]``, items that may not be shown again."""
    recent: Tensor
    """Int64 ``[B, R]``, latest clicked or liked items, newest first, -1 where none."""
    taste_text: Tensor
    """Float32 ``[B, H, dt]``, decayed sums of clicked items' vectors."""
    taste_cf: Tensor
    """Float32 ``[B, H, dc]``, the same in collaborative space."""
    dislike_text: Tensor
    """Float32 ``[B, dt]``, decayed sums of vectors of items shown and not clicked."""
    dislike_cf: Tensor
    """Float32 ``[B, dc]``, the same in collaborative space."""
    exposure: Tensor
    """Float32 ``[B, T]``, decayed topic shares of what was shown."""
    interest: Tensor
    """Float32 ``[B, T]``, decayed topic shares of what was clicked."""
    fast_rate: Tensor
    """Float32 ``[B]``, click rate decayed by a half a request."""
    slow_rate: Tensor
    """Float32 ``[B]``, click rate decayed by a tenth a request."""
    last_rate: Tensor
    """Float32 ``[B]``, click rate of the latest slate."""
    since_click: Tensor
    """Float32 ``[B]``, requests since the latest click."""
    channel_hits: Tensor
    """Float32 ``[B, channels]``, decayed click rate by recall channel."""
    block_use: Tensor
    """Float32 ``[B, blocks]``, decayed correlation of block score and click."""
    session_items: Tensor
    """Int64 ``[B, Tmax, K]``, this episode's slates, -1 padded."""
    session_clicks: Tensor
    """Float32 ``[B, Tmax, K]``, and their clicks."""
    last_channel: Tensor
    """Int64 ``[B, K]``, the recall channel of each item of the latest slate, -1 where none."""
    requests: Tensor
    """Int64 ``[B]``, requests answered in this episode."""
    group: Tensor
    """Float32 ``[B, G]``, the user's group, one-hot."""
    limits: Tensor
    """Float32 ``[B, S]``, the user's limit for each entry of ``audit.suitability``, infinite where
    there is none."""

    _STORED = tuple(__annotations__)  # every tensor above, by name

    def __init__(
        self,
        config: PipelineConfig,
        knowledge: Knowledge,
        num_sessions: int,
        *,
        history_length: int,
        max_requests: int,
        groups: int = 1,
    ) -> None:
        """Args:
        config: the pipeline's section.
        knowledge: of the items.
        num_sessions: B.
        history_length: L, items of the past a session may begin with.
        max_requests: Tmax.
        groups: G.
        """
        self.knowledge = knowledge
        self.num_sessions = num_sessions
        self.max_requests = max_requests
        device = self.device = knowledge.device
        lives = torch.tensor(config.half_lives, device=device)
        self._keep = torch.pow(0.5, 1.0 / lives).view(1, -1, 1)
        self._dislike_keep = 0.5 ** (1.0 / _DISLIKE_HALF_LIFE)
        # Weight of the i-th latest history item: as if one had been consumed per request.
        ages = torch.arange(history_length - 1, -1, -1, device=device, dtype=torch.float32)
        self._history_weight = torch.pow(0.5, ages.view(1, -1) / lives.view(-1, 1))  # [H, L]

        scales, text, cf = len(config.half_lives), knowledge.text.shape[1], knowledge.cf.shape[1]
        topics, shown = knowledge.num_topics, (max_requests, config.slate_size)
        kinds: dict[torch.dtype, dict[str, tuple[int, ...]]] = {
            torch.int64: {
                "history": (history_length,),
                "recent": (_RECENT,),
                "session_items": shown,
                "last_channel": shown[1:],
                "requests": (),
            },
            torch.bool: {"history_liked": (history_length,), "seen": (knowledge.num_items,)},
            torch.float32: {
                "taste_text": (scales, text),
                "taste_cf": (scales, cf),
                "dislike_text": (text,),
                "dislike_cf": (cf,),
                "exposure": (topics,),
                "interest": (topics,),
                "channel_hits": (len(config.recall.channels),),
                "block_use": (len(config.blocks),),
                "session_clicks": shown,
                "group": (groups,),
                "limits": (len(config.audit.suitability),),
            },
        }
        for name in self._STORED:  # what is not listed is one number a session
            setattr(self, name, torch.zeros(num_sessions, device=device))
        for kind, tables in kinds.items():
            for name, shape in tables.items():
                table = torch.zeros(num_sessions, *shape, dtype=kind, device=device)
                setattr(self, name, table)

    def reset(
        self,
        rows: Rows,
        history: Tensor,
        liked: Tensor,
        group: Tensor,
        limits: Tensor | None = None,
        beginning: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Begin new episodes.

        Args:
            rows: the ``n`` sessions.
            history, liked: int64 and bool ``[n, L]``, what the recommender knows of the past.
            group: int64 ``[n]``, the user's group.
            limits: float32 ``[n, S]``, the user's suitability limits; none if ``None``.
            beginning: what :meth:`beginning` returns, where it has been computed before.
        """
        anew: dict[str, Tensor | float] = {
            "history": history,
            "history_liked": liked,
            "seen": self.seen_before(history),
            **(beginning or self.beginning(history, liked)),
            **dict.fromkeys(("fast_rate", "slow_rate", "last_rate"), _PRIOR_RATE),
            **dict.fromkeys(("session_items", "last_channel"), -1),
            "limits": torch.inf if limits is None else limits,
            "group": torch.nn.functional.one_hot(group, self.group.shape[1]).float(),
        }
        for name in self._STORED:
            rows.put(getattr(self, name), anew.get(name, 0))

    def seen_before(self, history: Tensor) -> Tensor:
        """Return where a history ``[n, L]`` holds an item, bool ``[n, N]``."""
        size = self.knowledge.num_items
        seen = torch.zeros(len(history), size + 1, dtype=torch.bool, device=self.device)
        return seen.scatter_(1, torch.where(history >= 0, history, size), True)[:, :-1]

    def beginning(self, history: Tensor, liked: Tensor) -> dict[str, Tensor]:
        """Return, by name, what episodes begin with that follows from histories ``[n, L]``."""
        known = history >= 0
        items = history.clamp(min=0)
        positive = (known & liked).to(torch.float32)
        weight = self._history_weight.unsqueeze(0) * positive.unsqueeze(1)  # [n, H, L]
        negative = (known & ~liked).to(torch.float32)
        text, cf = (self.knowledge.rows(space, items) for space in _SPACES)  # [n, L, d]
        interest = positive.unsqueeze(1) @ self.knowledge.rows("topic_indicator", items)
        return {
            "history_length": known.sum(1).to(torch.float32),
            "recent": self._latest(history, known & liked),
            "taste_text": weight @ text,
            "taste_cf": weight @ cf,
            "dislike_text": (negative.unsqueeze(1) @ text).squeeze(1),
            "dislike_cf": (negative.unsqueeze(1) @ cf).squeeze(1),
            "interest": interest.squeeze(1) / positive.sum(1, keepdim=True).clamp(min=1.0),
        }

    def of_rows(self, rows: Rows) -> SessionMemory:
        """Return the memory of ``rows`` only."""
        if rows.index is None:
            return self
        part = copy(self)
        part.num_sessions = len(rows.index)
        for name in self._STORED:
            setattr(part, name, rows.of(getattr(self, name)))
        return part

    def _latest(self, items: Tensor, kept: Tensor) -> Tensor:
        """Return the last ``R`` kept items of each row, newest first, -1 padded: ``[n, R]``."""
        size = self.recent.shape[1]
        rank = kept.flip(1).cumsum(1) - 1  # 0 for the newest kept item
        slot = torch.where(kept.flip(1) & (rank < size), rank, size)
        latest = torch.full((items.shape[0], size + 1), -1, dtype=torch.int64, device=self.device)
        latest.scatter_(1, slot, items.flip(1))
        return latest[:, :size]

    def user_kind(self) -> Tensor:
        """Return which text about users holds of each, int64 ``[B]``: of
        :attr:`Knowledge.user_texts`; 0 where nothing is known.

        Told apart are the two topics liked most and that of the latest like.
        """
        knowledge, interest = self.knowledge, self.interest
        size = knowledge.num_topics
        best = interest.argsort(dim=1, descending=True, stable=True)[:, :2]
        first, second = best[:, 0], best[:, -1]
        second = torch.where(interest.gather(1, best[:, -1:]).squeeze(1) > 0, second, first)
        low, high = torch.minimum(first, second), torch.maximum(first, second)
        # Pairs (low, high), low <= high, in order of low: those of lower ones come before.
        pair = low * size - torch.div(low * (low - 1), 2, rounding_mode="floor") + high - low
        latest = self.recent[:, 0]
        late = torch.where(latest >= 0, knowledge.topics[latest.clamp(min=0)], first)
        return torch.where(interest.sum(1) > 0, 1 + pair * size + late, 0)

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
        text, cf = (knowledge.rows(space, slate) for space in _SPACES)
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

        self.last_channel = torch.full_like(slate, -1) if channel is None else channel
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

    def state_dict(self, *, copy: bool = True) -> dict[str, Tensor]:
        """Return all stored tensors by name; copies, unless they are put elsewhere at once."""
        found = {name: getattr(self, name) for name in self._STORED}
        return copied(found) if copy else found

    def load_state_dict(self, state: Mapping[str, Any], *, copy: bool = True) -> None:
        """Take over tensors as :meth:`state_dict` returned them.

        Args:
            state: tensors by name.
            copy: whether they are somebody else's too.

        Raises:
            ConfigError: something is missing, for the state was saved by another version.
        """
        for name in self._STORED:
            if name not in state:
                raise ConfigError(
                    f"saved session memory lacks '{name}': another version of marec saved it; "
                    "start the run anew"
                )
        for name in self._STORED:
            setattr(self, name, copied(state[name], self.device) if copy else state[name])
