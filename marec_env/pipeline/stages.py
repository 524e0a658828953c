"""The four stages of a request. Each takes a decision and fills its part of the workspace.

A stage first runs the stages before it that nobody has run, with their hand-set defaults, so a team
may have any components in any number.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import normalize

from marec_env.errors import ConfigError
from marec_env.pipeline.blocks import BLOCKS, standardised
from marec_env.pipeline.channels import CHANNELS
from marec_env.pipeline.compose import compose_slate
from marec_env.pipeline.config import PipelineConfig
from marec_env.pipeline.own import checked
from marec_env.pipeline.recall_merge import first_occurrences, merge, quotas_of
from marec_env.pipeline.request import Request
from marec_env.registry import callable_at, is_own

__all__ = [
    "DEFAULT_DIVERSITY",
    "DEFAULT_TEMPERATURE",
    "DEFAULT_WEIGHT",
    "check_plug_ins",
    "default_profile_weights",
    "finish",
    "need_candidates",
    "run_feature",
    "run_profile",
    "run_ranking",
    "run_recall",
]

_DEFAULT_NEGATIVE = 0.2  # hand-set: dislikes count a fifth of likes
_DEFAULT_PRIOR = 0.1
DEFAULT_WEIGHT = 1.0  # every block alike
DEFAULT_DIVERSITY = 0.3
DEFAULT_TEMPERATURE = 0.05
_DRAW = 20.0  # Gumbel draws of float32 lie between -2.9 and 16.7


def check_plug_ins(config: PipelineConfig) -> None:
    """Refuse channels and blocks that cannot be found or called, before the first request.

    Raises:
        ConfigError: names the key and the plug-in.
    """
    for name in config.recall.channels:
        callable_at("pipeline.recall.channels", CHANNELS, name)
    for name in config.blocks:
        callable_at("pipeline.blocks", BLOCKS, name)


def run_profile(request: Request, weights: Tensor) -> None:
    """Build profile vectors in both spaces.

    Args:
        request: the workspace.
        weights: float32 ``[B, H + 2]`` >= 0: one per history time scale, then negative feedback,
            then the population prior.
    """
    memory, knowledge = request.memory, request.knowledge
    scales = weights.shape[1] - 2
    by_scale = weights[:, :scales].unsqueeze(-1)
    negative = weights[:, scales : scales + 1]
    prior = weights[:, scales + 1 :]
    for space, taste, dislike, centre in (
        ("profile_text", memory.taste_text, memory.dislike_text, knowledge.centre_text),
        ("profile_cf", memory.taste_cf, memory.dislike_cf, knowledge.centre_cf),
    ):
        vector = (
            (by_scale * normalize(taste, dim=-1)).sum(1)
            - negative * normalize(dislike, dim=-1)
            + prior * centre
        )
        if space == "profile_cf" and request.fitted_cf is not None:
            blend = request.config.trainer.blend
            vector = normalize(vector, dim=-1) + blend * request.fitted_cf
        setattr(request, space, normalize(vector, dim=-1))
    request.profile_version = knowledge.version


def run_recall(request: Request, levels: Tensor) -> None:
    """Fill the candidates.

    Args:
        request: the workspace.
        levels: int64 ``[B, channels]``, quota levels.

    Raises:
        ConfigError: the profile was made in other spaces than the items are in.
    """
    if request.profile_cf is None:
        run_profile(request, _default_profile(request))
    if request.profile_version != request.knowledge.version:
        raise ConfigError(
            f"recall: the profile is of space version '{request.profile_version}', the items of "
            f"'{request.knowledge.version}'; rebuild the profile after a refit"
        )
    config = request.config
    request.quotas = quotas_of(levels, config.candidates)
    offers = _Offers(request)
    request.candidates, request.candidate_channel = merge(
        offers, request.quotas, request.memory.seen, request.knowledge.by_popularity
    )


def need_candidates(request: Request) -> Tensor:
    """Return the candidates, int64 ``[B, C]``, after the hand-set recall if nobody chose them."""
    if request.candidates is None:
        run_recall(request, _default_recall(request))
    assert request.candidates is not None
    return request.candidates


class _Offers(Sequence[Tensor]):
    """The channels' offers in order, each made when first asked for."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._names = request.config.recall.channels
        self._made: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, place: int) -> Tensor:  # type: ignore[override]  # no slices
        if place not in self._made:
            name = self._names[place]
            offered = CHANNELS.get(name)(self._request, self._request.config.candidates)
            self._made[place] = self._checked(name, offered) if is_own(name) else offered
        return self._made[place]

    def _checked(self, name: str, offered: Tensor) -> Tensor:
        """Return a user's own channel's offer without repeated items.

        Raises:
            ConfigError: it is not int64 ``[B, L]`` of items of the catalog and -1.
        """
        sessions, items = self._request.num_sessions, self._request.knowledge.num_items
        if offered.dtype != torch.int64 or offered.dim() != 2 or len(offered) != sessions:
            raise ConfigError(
                f"recall channel '{name}' offered {offered.dtype} {list(offered.shape)}; "
                f"return torch.int64 [{sessions}, any length]"
            )
        if bool((offered < -1).any()) or bool((offered >= items).any()):
            raise ConfigError(
                f"recall channel '{name}' offered items outside 0 ... {items - 1}; use -1 for none"
            )
        return first_occurrences(offered, items)


def run_feature(request: Request, enabled: Tensor) -> None:
    """Compute feature blocks of the candidates.

    Args:
        request: the workspace.
        enabled: ``[B, blocks]``, 1 where a block is computed.
    """
    candidates = need_candidates(request)
    names = request.config.blocks
    size = tuple(candidates.shape)
    scores = torch.stack(
        [
            checked("feature block", name, BLOCKS.get(name)(request, candidates), *size)
            for name in names
        ],
        dim=1,
    )
    request.enabled = enabled.to(torch.float32)
    blocks = standardised(scores).mul_(request.enabled.unsqueeze(2))  # [B, blocks, C]
    request.blocks = blocks.transpose(1, 2)
    cost = _costs(tuple(names.values()), str(request.keys.device))
    request.compute_cost = request.enabled @ cost


def run_ranking(request: Request, weights: Tensor, diversity: Tensor, temperature: Tensor) -> None:
    """Score the candidates and choose the slate.

    Args:
        request: the workspace.
        weights: float32 ``[B, blocks]``.
        diversity: float32 ``[B]``, >= 0.
        temperature: float32 ``[B]``, > 0.
    """
    if request.blocks is None:
        run_feature(request, _default_feature(request))
    assert request.blocks is not None
    assert request.candidates is not None
    request.scores = (request.blocks * weights.unsqueeze(1)).sum(2)
    ranked = request.scores
    if request.veto is not None:
        ranked = ranked - request.veto * _outbid(ranked, diversity, temperature).unsqueeze(1)
    request.slate_slot, request.slate_logits = compose_slate(
        ranked,
        request.topics_of(request.candidates),
        diversity,
        temperature,
        request.config.slate_size,
        request.keys,
        request.step,
    )
    request.slate = request.candidates.gather(1, request.slate_slot)


def _outbid(scores: Tensor, diversity: Tensor, temperature: Tensor) -> Tensor:
    """Return what no score, penalty and draw together can make up for, float32 ``[B]``."""
    spread = scores.amax(1) - scores.amin(1)
    return spread + diversity * scores.shape[1] + _DRAW * temperature


def finish(request: Request) -> Tensor:
    """Run what is missing by default and return the slate, int64 ``[B, K]``."""
    if request.slate is None:
        run_ranking(request, *_default_ranking(request))
    assert request.slate is not None
    return request.slate


@cache
def _costs(costs: tuple[float, ...], device: str) -> Tensor:
    return torch.tensor(costs, device=device)


def default_profile_weights(config: PipelineConfig) -> list[float]:
    """Return hand-set weights: all time scales alike, some negative feedback, a weak prior."""
    return [1.0] * len(config.half_lives) + [_DEFAULT_NEGATIVE, _DEFAULT_PRIOR]


def _filled(request: Request, width: int, value: float) -> Tensor:
    return torch.full((request.num_sessions, width), value, device=request.keys.device)


def _default_profile(request: Request) -> Tensor:
    weights = torch.tensor(default_profile_weights(request.config), device=request.keys.device)
    return weights.expand(request.num_sessions, -1)


def _default_recall(request: Request) -> Tensor:
    return _filled(request, len(request.config.recall.channels), 1).to(torch.int64)


def _default_feature(request: Request) -> Tensor:
    return _filled(request, len(request.config.blocks), 1.0)


def _default_ranking(request: Request) -> tuple[Tensor, Tensor, Tensor]:
    ranking = request.config.ranking
    weight = min(DEFAULT_WEIGHT, ranking.max_weight)
    diversity = min(DEFAULT_DIVERSITY, ranking.max_diversity)
    temperature = max(ranking.min_temperature, min(DEFAULT_TEMPERATURE, ranking.max_temperature))
    return (
        _filled(request, len(request.config.blocks), weight),
        _filled(request, 1, diversity).squeeze(1),
        _filled(request, 1, temperature).squeeze(1),
    )
