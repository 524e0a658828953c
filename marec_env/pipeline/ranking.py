"""The components that order the candidates: feature blocks, vetoes, weights, and the slate drawn.

A feature block is a function ``(request, candidates int64 [B, C]) -> float32 [B, C]``, larger is
better. Scores are brought to zero mean and unit spread within the candidates, so that ranking
weights are comparable, and so that a score unit means the same in each request.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from marec_env import random
from marec_env.compiled import compiled, eager
from marec_env.pipeline.component import COMPONENTS, Component, unit
from marec_env.pipeline.config import PipelineConfig
from marec_env.pipeline.memory import look_up
from marec_env.pipeline.request import Request
from marec_env.pipeline.selection import sort_rows, top_k
from marec_env.registry import Registry, callable_at, numbers

Block = Callable[[Request, Tensor], Tensor]
BLOCKS: Registry[Block] = Registry("feature block")

_SMALL = 1e-6  # spread below which a block says nothing
_MAX_WEIGHT = 2.0  # of a block, whose scores have unit spread
_MAX_DIVERSITY = 2.0  # score units taken off an item for each better one of its topic
_MIN_TEMPERATURE, _MAX_TEMPERATURE = 0.01, 1.0  # of exploration, in score units
_TEMPERATURES = math.log(_MAX_TEMPERATURE / _MIN_TEMPERATURE)
_WEIGHT, _DIVERSITY, _TEMPERATURE = 1.0, 0.3, 0.05  # hand-set: every block alike
_DRAW = 20.0  # Gumbel draws of float32 lie between -2.9 and 16.7
_OVEREXPOSED = 1.0  # levels of veto; suitability is a rule, whatever the auditor decides
_UNSUITABLE = 2.0


@BLOCKS.register("cf")
def cf(request: Request, candidates: Tensor) -> Tensor:
    """Profile times item in collaborative space."""
    return request.scores_of("cf", candidates)


@BLOCKS.register("text")
def text(request: Request, candidates: Tensor) -> Tensor:
    """Profile times item in text space."""
    return request.scores_of("text", candidates)


@BLOCKS.register("notes")
def notes(request: Request, candidates: Tensor) -> Tensor:
    """The item's note times the mean of those of the latest clicked items."""
    table = request.knowledge.written("notes")
    return _like_latest(request, table, look_up(table, candidates))


@BLOCKS.register("pictures")
def pictures(request: Request, candidates: Tensor) -> Tensor:
    """The item's picture times the mean of those of the latest clicked items; an item without one
    scores as the others do on average.
    """
    table = request.knowledge.written("pictures")
    rows = look_up(table, candidates)
    scores, shown = _like_latest(request, table, rows), rows.any(dim=2)
    mean = scores.sum(1, keepdim=True) / shown.sum(1, keepdim=True).clamp(min=1)
    return torch.where(shown, scores, mean)


def _like_latest(request: Request, table: Tensor, rows: Tensor) -> Tensor:
    """Return the product of candidates' rows of a table, ``[B, C, d]``, with the mean of the latest
    clicked items' rows.
    """
    recent = request.memory.recent
    liked = (recent >= 0).to(torch.float32).unsqueeze(1)
    profile = normalize(liked @ look_up(table, recent.clamp(min=0)), dim=-1)  # [B, 1, d]
    return (rows @ profile.transpose(1, 2)).squeeze(2)


@BLOCKS.register("rerank")
def rerank(request: Request, candidates: Tensor) -> Tensor:
    """What a text model said, before the run, of those who like the topics that the user likes."""
    said = request.knowledge.written("reranked")
    if not request.indexed:  # scores of a small catalog are quicker than rows of it
        return (request.topic_mix @ said.T).gather(1, candidates)
    return (look_up(said, candidates) @ request.topic_mix.unsqueeze(2)).squeeze(2)


@BLOCKS.register("affinity")
def affinity(request: Request, candidates: Tensor) -> Tensor:
    """How much more than others the user favours the item's topic."""
    return request.affinity.gather(1, request.topics_of(candidates))


@BLOCKS.register("popularity")
def popularity(request: Request, candidates: Tensor) -> Tensor:
    """Share of users who consumed the item, a proxy of quality."""
    return request.of_items("popularity", candidates)


@BLOCKS.register("freshness")
def freshness(request: Request, candidates: Tensor) -> Tensor:
    """How new the item is, by rank."""
    return request.of_items("freshness", candidates)


@BLOCKS.register("exposure")
def exposure(request: Request, candidates: Tensor) -> Tensor:
    """How little of the item's topic was shown of late."""
    return -request.memory.exposure.gather(1, request.topics_of(candidates))


def standardised(scores: Tensor) -> Tensor:
    """Return ``[..., C]`` scores with zero mean and unit spread per row; 0 where all are equal."""
    centred = scores - scores.mean(-1, keepdim=True)
    spread = centred.square().mean(-1, keepdim=True).sqrt_()
    factor = torch.where(spread > _SMALL, 1.0 / spread.clamp_(min=_SMALL), 0.0)
    return centred.mul_(factor)


@COMPONENTS.register("feature")
class Feature(Component):
    """Chooses which feature blocks to compute."""

    name = "feature"
    fields = ("session", "block_use", "quotas", "candidates", "exposure")
    before = ("ranking",)
    objective = MappingProxyType({"ranking_quality": 1.0, "compute_cost": -1.0})

    def __init__(self, config: PipelineConfig) -> None:
        """Raises:
        ConfigError: a block cannot be found or called.
        """
        super().__init__(config)
        self._blocks = [
            callable_at("pipeline.blocks", BLOCKS, name, _fits_candidates) for name in config.blocks
        ]
        self._costs = torch.tensor(list(config.blocks.values()))

    @property
    def action_space(self) -> spaces.MultiDiscrete:
        """0 or 1 per block."""
        return spaces.MultiDiscrete([2] * len(self.config.blocks))

    def decisions(self) -> tuple[str, ...]:
        """Return the names of the blocks."""
        return tuple(f"block {block}" for block in self.config.blocks)

    def act(self, request: Request, action: Tensor) -> None:
        """Compute the blocks."""
        candidates = request.need("candidates")
        scores = torch.stack([block(request, candidates) for block in self._blocks], dim=1)
        request.enabled = action.to(torch.float32)
        blocks = standardised(scores).mul_(request.enabled.unsqueeze(2))  # [B, blocks, C]
        request.blocks = blocks.transpose(1, 2)
        if self._costs.device != action.device:
            self._costs = self._costs.to(action.device)
        request.compute_cost = request.enabled @ self._costs

    def default_action(self) -> Tensor:
        """Return all blocks on."""
        return torch.ones(len(self.config.blocks), dtype=torch.int64)


def _fits_candidates(what: str, found: object, request: Request, candidates: Tensor) -> Tensor:
    return numbers(what, found, *candidates.shape)


def unsuitable(request: Request, items: Tensor) -> Tensor:
    """Return which items exceed a limit of the session's user, bool ``[B, M]`` like ``items``."""
    found = torch.zeros_like(items, dtype=torch.bool)
    for place, attribute in enumerate(request.config.audit.suitability):
        value = request.knowledge.attributes.get(attribute)
        if value is not None:
            found |= value[items] > request.memory.limits[:, place : place + 1]
    return found


def provider_share(request: Request, items: Tensor) -> Tensor:
    """Return the share of the session's earlier slates that each item's provider had, float32
    ``[B, M]``; 0 before the first slate.
    """
    providers = request.knowledge.providers
    earlier = request.memory.session_items.flatten(1)
    shown = (earlier >= 0).to(torch.float32)
    count = torch.zeros(items.shape[0], request.knowledge.num_providers, device=items.device)
    count.scatter_add_(1, providers[earlier.clamp(min=0)], shown)
    return count.gather(1, providers[items]) / shown.sum(1, keepdim=True).clamp(min=1.0)


@COMPONENTS.register("auditor")
class Auditor(Component):
    """Sets the level, in parts of the house's limits, at which topics and providers are vetoed.

    0 is lenient (veto at twice the limit), 1 strict (veto at any exposure), the middle vetoes at
    the limit. If fewer than K candidates are left, vetoed ones fill the slate: overexposed first.
    """

    name = "auditor"
    fields = ("session", "exposure", "limits", "candidates")
    before = ("ranking",)
    objective = MappingProxyType({"within_limits": 1.0, "vetoed": -0.2})

    @property
    def action_space(self) -> spaces.Box:
        """Strictness about topics and about providers."""
        return spaces.Box(-1.0, 1.0, (2,), np.float32)

    def act(self, request: Request, action: Tensor) -> None:
        """Veto candidates."""
        candidates = request.need("candidates")
        level = 2.0 * (1.0 - unit(action))
        audit = request.config.audit
        topic = request.memory.exposure.gather(1, request.topics_of(candidates))
        over = topic > audit.max_topic_share * level[:, :1]
        if audit.max_provider_share < 1.0:
            share = provider_share(request, candidates)
            over |= share > audit.max_provider_share * level[:, 1:]
        request.add_veto(_OVEREXPOSED * over + _UNSUITABLE * unsuitable(request, candidates))

    def default_action(self) -> Tensor:
        """Return a veto at the limit."""
        return torch.zeros(2)


@COMPONENTS.register("ranking")
class Ranking(Component):
    """Weights the blocks, and sets diversity and exploration."""

    name = "ranking"
    fields: ClassVar[tuple[str, ...]] = (
        "session", "candidates", "enabled", "block_use", "exposure", "interest",
    )  # fmt: skip
    objective = MappingProxyType({"engagement": 1.0})

    @property
    def action_space(self) -> spaces.Box:
        """One number per block, then diversity, then temperature (on a logarithmic scale)."""
        return spaces.Box(-1.0, 1.0, (len(self.config.blocks) + 2,), np.float32)

    def decisions(self) -> tuple[str, ...]:
        """Return the names of the numbers."""
        weights = (f"weight of {block}" for block in self.config.blocks)
        return (*weights, "diversity", "temperature")

    def act(self, request: Request, action: Tensor) -> None:
        """Score the candidates and draw the slate."""
        share = unit(action)
        weights = _MAX_WEIGHT * share[:, :-2]
        diversity = _MAX_DIVERSITY * share[:, -2]
        temperature = _MIN_TEMPERATURE * torch.exp(_TEMPERATURES * share[:, -1])
        blocks, candidates = request.need("blocks"), request.need("candidates")
        ranked = request.scores = (blocks * weights.unsqueeze(1)).sum(2)
        if request.bonus is not None:
            ranked = ranked + request.bonus
        if request.veto is not None:
            ranked = ranked - request.veto * _outbid(ranked, diversity, temperature).unsqueeze(1)
        request.slate_slot, request.slate_logits = compose_slate(
            ranked,
            request.topics_of(candidates),
            diversity,
            temperature,
            self.config.slate_size,
            request.keys,
            request.step,
        )
        request.slate = candidates.gather(1, request.slate_slot)

    def default_action(self) -> Tensor:
        """Return every block alike, some diversity, little exploration."""
        share = torch.full((len(self.config.blocks) + 2,), _WEIGHT / _MAX_WEIGHT)
        share[-2] = _DIVERSITY / _MAX_DIVERSITY
        share[-1] = math.log(_TEMPERATURE / _MIN_TEMPERATURE) / _TEMPERATURES
        return 2.0 * share - 1.0


def _outbid(scores: Tensor, diversity: Tensor, temperature: Tensor) -> Tensor:
    """Return what no score, penalty and draw together can make up for, float32 ``[B]``."""
    spread = scores.amax(1) - scores.amin(1)
    return spread + diversity * scores.shape[1] + _DRAW * temperature


def rank_within_topic(scores: Tensor, topics: Tensor) -> Tensor:
    """Return how many better candidates of its own topic each candidate has.

    Args:
        scores: float32 ``[B, C]``.
        topics: int64 ``[B, C]``.

    Returns:
        Int64 ``[B, C]``; ties count the earlier candidate as better.
    """
    if not eager(scores):
        return _rank_by_runs(scores, topics)
    ranks, groups = torch.empty(scores.shape, dtype=torch.int64), topics.numpy()
    ordered = np.empty(groups.shape, np.int64)
    _write_descending(scores.contiguous().numpy().view(np.int32), ordered)
    ordered.sort(axis=-1)
    _count_earlier(ordered, groups, int(groups.max()) + 1, ranks.numpy())
    return ranks


def _descending(scores: Tensor) -> Tensor:
    """Return int64 keys that ascend as scores fall, with the place in the low 16 bits."""
    raw = scores.contiguous().view(torch.int32)
    ascending = (raw ^ ((raw >> 31) & 0x7FFFFFFF)).to(torch.int64)  # orders as the scores do
    places = torch.arange(scores.shape[1], device=scores.device)
    return ((0x7FFFFFFF - ascending) << 16) | places


@compiled
def _write_descending(raw: NDArray[np.int32], keys: NDArray[np.int64]) -> None:
    """Write what :func:`_descending` returns, from the bits of the scores."""
    for row in range(len(raw)):
        for place in range(raw.shape[1]):
            score = np.int64(raw[row, place])
            ascending = score ^ ((score >> 31) & 0x7FFFFFFF)
            keys[row, place] = ((0x7FFFFFFF - ascending) << 16) | place


@compiled
def _count_earlier(
    ordered: NDArray[np.int64], topics: NDArray[np.int64], count: int, ranks: NDArray[np.int64]
) -> None:
    """Walk each row in order and count per topic what has come before."""
    before = np.empty(count, np.int64)
    for row in range(len(ordered)):
        before[:] = 0
        for key in ordered[row]:
            place = key & 0xFFFF
            topic = topics[row, place]
            ranks[row, place] = before[topic]
            before[topic] += 1


def _rank_by_runs(scores: Tensor, topics: Tensor) -> Tensor:
    """Return the same ranks in tensor operations: sort by topic too, and count from its start."""
    ordered = sort_rows((topics << 48) | _descending(scores))
    topic, place = ordered >> 48, ordered & 0xFFFF
    starts = torch.ones_like(topic, dtype=torch.bool)
    starts[:, 1:] = topic[:, 1:] != topic[:, :-1]
    places = torch.arange(scores.shape[1], device=scores.device)
    first = torch.where(starts, places, 0).cummax(1).values
    return torch.empty_like(topic).scatter_(1, place, places - first)


def compose_slate(
    scores: Tensor,
    topics: Tensor,
    diversity: Tensor,
    temperature: Tensor,
    size: int,
    keys: Tensor,
    step: Tensor,
) -> tuple[Tensor, Tensor]:
    """Choose an ordered slate.

    Greedy selection with a penalty of ``diversity`` per item of the topic already chosen equals
    ranking by score less ``diversity`` times the rank within the topic: each topic's items are
    taken in score order, and the penalised scores fall along it. On these penalised scores the
    slate is drawn by Plackett-Luce at the given temperature (Gumbel top-k; Kool et al., ICML
    2019), so its probability is exact (:attr:`Request.log_propensity`).

    Args:
        scores: float32 ``[B, C]``.
        topics: int64 ``[B, C]``.
        diversity: float32 ``[B]``, >= 0, in score units.
        temperature: float32 ``[B]``, > 0, in score units.
        size: K.
        keys, step: int64 ``[B]``, for the draws.

    Returns:
        The chosen columns, int64 ``[B, K]``, and the logits they were drawn by, float32 ``[B, C]``.
    """
    penalised = scores - diversity.unsqueeze(1) * rank_within_topic(scores, topics)
    logits = penalised / temperature.unsqueeze(1)
    noise = random.gumbel(keys, step, "pipeline/slate", scores.shape[1])
    return top_k(logits + noise, size), logits
