"""The house's rules (section ``pipeline.audit``) on what was shown in logged sessions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from agents.loop.exposure import ExposureLog
from agents.loop.rounds import Rules
from agents.service.bundle import Bundle
from marec_env.pipeline.config import PipelineConfig
from marec_env.pipeline.knowledge import Knowledge
from marec_env.pipeline.memory import SessionMemory
from marec_env.pipeline.request import Request
from marec_env.rewards.terms import broken_rules
from marec_env.vector import Rows

_ROWS = 256  # sessions looked through at once: a row knows which of all items it has seen


def rules_of(bundle: Bundle) -> Rules:
    """Return how a bundle's rules are looked for in a log."""
    return lambda log: broken_shares(log, bundle.pipeline, bundle.knowledge, bundle.ids)


def broken_shares(
    log: ExposureLog, config: PipelineConfig, knowledge: Knowledge, ids: Sequence[str]
) -> dict[str, Tensor]:
    """Return, by rule, the share of each slate that breaks it, float32 ``[S, T]``: for all rules
    together that is 1 less the term ``within_limits``.

    Args:
        log: of any team.
        config: the rules, in its section ``audit``.
        knowledge: of ``N`` items.
        ids: the items' identifiers, ``N``.

    Raises:
        DataError: the log shows items of which nothing is known.
    """
    slates = log.places(ids)
    config = config.model_copy(update={"slate_size": log.slate.shape[2]})
    limits = [
        log.attributes.get(name, torch.full(log.key.shape, torch.inf))
        for name in config.audit.suitability.values()
    ]
    parts = [
        _broken(
            log.key[rows], slates[rows], log.clicks[rows],
            torch.stack([limit[rows] for limit in limits], dim=1) if limits else None,
            config, knowledge,
        )
        for rows in torch.split(torch.arange(len(log.key)), _ROWS)
    ]  # fmt: skip
    return {rule: torch.cat([part[rule] for part in parts]) for rule in parts[0]}


def _broken(
    keys: Tensor, slates: Tensor, clicks: Tensor, limits: Tensor | None,
    config: PipelineConfig, knowledge: Knowledge,
) -> dict[str, Tensor]:  # fmt: skip
    sessions, longest = slates.shape[:2]
    memory = SessionMemory(config, knowledge, sessions, history_length=1, max_requests=longest)
    nothing = torch.full((sessions, 1), -1)
    memory.reset(Rows(), nothing, nothing >= 0, torch.zeros_like(keys), limits)
    found: dict[str, list[Tensor]] = {}
    for step in range(longest):
        request = Request(config, knowledge, memory, keys, memory.requests)
        for rule, broken in broken_rules(request, slates[:, step]).items():
            found.setdefault(rule, []).append(broken.to(torch.float32).mean(1))
        memory.update(slates[:, step], clicks[:, step], None, None)
    return {rule: torch.stack(shares, dim=1) for rule, shares in found.items()}
