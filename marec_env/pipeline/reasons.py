"""Why a request ended as it did: what was decided, and what each feature block added."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from marec_env.pipeline.config import PipelineConfig
from marec_env.pipeline.memory import SessionMemory, look_up
from marec_env.pipeline.request import Request

if TYPE_CHECKING:
    from marec_env.pipeline.pipeline import Pipeline

__all__ = ["FILLED", "block_parts", "channel_names", "decision_names", "nearest_liked"]

FILLED = "filled up by popularity"
"""Where candidates come from that no channel brought; counted behind the channels."""
_RECOVERED = 1e-3  # share of the scores' spread that recovered block weights may leave
_RIDGE = 1e-12  # of the blocks' mean square, so that blocks left out make no equation singular


def channel_names(config: PipelineConfig) -> tuple[str, ...]:
    """Return what the numbers of :attr:`Request.candidate_channel` mean."""
    return (*config.recall.channels, FILLED)


def block_parts(request: Request) -> tuple[Tensor, Tensor] | None:
    """Return what each block added to each candidate's score, float64 ``[B, C, blocks]``, and of
    which sessions that can be told, bool ``[B]``; ``None`` where there are no blocks or scores.

    The weights are recovered from the scores, whichever component set them; where scores are no
    weighted sum of the blocks there is nothing to tell.
    """
    if request.blocks is None or request.scores is None:
        return None
    blocks, scores = request.blocks.double(), request.scores.double().unsqueeze(2)
    across = blocks.transpose(1, 2)
    gram = across @ blocks
    mean_square = gram.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1.0).view(-1, 1, 1)
    ridge = _RIDGE * mean_square * torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    weights = torch.linalg.solve_ex(gram + ridge, across @ scores).result  # [B, blocks, 1]
    missed = (blocks @ weights - scores).abs().amax((1, 2))
    told = missed <= _RECOVERED * scores.squeeze(2).std(1)
    return blocks * weights.transpose(1, 2), told


def nearest_liked(memory: SessionMemory, items: Tensor) -> tuple[Tensor, Tensor]:
    """Return which liked item of a session's past each item is most like, and how much.

    The past: the history's liked items and the latest clicked ones. Alike: the mean of the cosines
    in text and collaborative space.

    Args:
        memory: of ``B`` sessions.
        items: int64 ``[B, K]``.

    Returns:
        Int64 ``[B, K]``, -1 in sessions without any; float32 ``[B, K]``, -inf there.
    """
    liked = torch.where(memory.history_liked, memory.history, -1)
    past = torch.cat([memory.recent, liked.flip(1)], dim=1)  # newest first: of equals the newer
    known = past.clamp(min=0)
    space = torch.cat([memory.knowledge.text, memory.knowledge.cf], dim=1)
    alike = look_up(space, items) @ look_up(space, known).transpose(1, 2) * 0.5  # [B, K, past]
    similarity, place = alike.masked_fill((past < 0).unsqueeze(1), -torch.inf).max(2)
    return torch.where(similarity.isinf(), -1, past.gather(1, place)), similarity


def decision_names(pipeline: Pipeline, agent: str, count: int) -> tuple[str, ...]:
    """Return a name for each number of an agent's action.

    Those that the component does not name (:meth:`Component.decisions`), and what goes beyond its
    own (learned messages), are numbered.
    """
    component = pipeline.components[pipeline.agents.index(agent)]
    names = component.decisions()
    if len(names) != sum(component.action_space.shape or ()):
        names = ()
    return (*names[:count], *(f"decision {k}" for k in range(len(names), count)))
