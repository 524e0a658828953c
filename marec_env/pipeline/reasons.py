"""Why a request ended as it did: what was decided, and what each feature block added."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marec_env.pipeline.config import PipelineConfig
from marec_env.pipeline.memory import SessionMemory
from marec_env.pipeline.request import Request

if TYPE_CHECKING:
    from marec_env.pipeline.pipeline import Pipeline

FILLED = "filled up by popularity"
"""Where candidates come from that no channel brought; counted behind the channels."""
_RECOVERED = 1e-3  # share of the scores' spread that recovered block weights may leave
_RIDGE = 1e-12  # of the blocks' mean square, so that blocks left out make no equation singular
_SPACE = {  # that a channel goes by: share of collaborative space, the rest is text
    "cf": 1.0, "affinity": 1.0, "item_to_item": 1.0, "diverse": 1.0,
    "text": 0.0, "user_text": 0.0, "notes": 0.0, "rerank": 0.0,
}  # fmt: skip
_SPACES: tuple[Literal["cf", "text"], ...] = ("cf", "text")
_BOTH = 0.5  # of other channels


def channel_names(config: PipelineConfig) -> tuple[str, ...]:
    """Return what the numbers of :attr:`Request.candidate_channel` mean."""
    return (*config.recall.channels, FILLED)


def block_parts(request: Request) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
    """Return what each block added to each candidate's score, ``[B, C, blocks]``, and of which
    sessions that can be told, ``[B]``; ``None`` where there are no blocks or scores.

    The weights are recovered from the scores, whichever component set them; where scores are no
    weighted sum of the blocks there is nothing to tell.
    """
    if request.blocks is None or request.scores is None:
        return None
    blocks, scores = (x.double().cpu().numpy() for x in (request.blocks, request.scores))
    across = blocks.transpose(0, 2, 1)
    gram = across @ blocks
    mean_square = gram.diagonal(axis1=1, axis2=2).mean(1).clip(min=1.0)[:, None, None]
    gram += _RIDGE * mean_square * np.eye(gram.shape[1])
    weights = np.linalg.solve(gram, across @ scores[:, :, None])  # [B, blocks, 1]
    missed = np.abs((blocks @ weights)[:, :, 0] - scores).max(1)
    told = missed <= _RECOVERED * scores.std(1, ddof=1)
    return blocks * weights.transpose(0, 2, 1), told


def liked_past(memory: SessionMemory) -> Tensor:
    """Return what each session's user is known to like, int64 ``[B, R + L]``, -1 where nothing:
    the latest clicked or liked items, then all of the history; newest first, some twice.
    """
    liked = torch.where(memory.history_liked, memory.history, -1)
    return torch.cat([memory.recent, liked.flip(1)], dim=1)


def nearest_liked(
    request: Request, items: Tensor, channel: Tensor | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return which liked item of a session's past each item is most like, and how much.

    Alike: the cosine in the space that the item's channel goes by, or the mean of both.

    Args:
        request: of ``B`` sessions; its memory holds their past.
        items: int64 ``[B, K]``.
        channel: int64 ``[B, K]``, that brought them, if known.

    Returns:
        ``[B, K]``, -1 in sessions that like nothing; ``[B, K]``, -inf there.
    """
    liked, known = liked_past(request.memory), request.knowledge
    size, both = items.shape[1], torch.cat([items, liked.clamp(min=0)], dim=1)
    cf, text = (known.rows(space, both).cpu().numpy() for space in _SPACES)
    share = np.full((*items.shape, 1), _BOTH, np.float32)
    if channel is not None:
        shares = [_SPACE.get(name, _BOTH) for name in channel_names(request.config)]
        share[:, :, 0] = np.array(shares, np.float32)[channel.cpu().numpy()]
    mine = np.concatenate([share * cf[:, :size], (1 - share) * text[:, :size]], axis=2)
    theirs = np.concatenate([cf[:, size:], text[:, size:]], axis=2)
    alike, past = mine @ theirs.transpose(0, 2, 1), liked.cpu().numpy()
    np.copyto(alike, -np.inf, where=(past < 0)[:, None])
    place = alike.argmax(2)  # of equals the newer
    similarity = np.take_along_axis(alike, place[:, :, None], 2)[:, :, 0]
    found = np.take_along_axis(past, place, 1)
    return np.where(similarity == -np.inf, -1, found), similarity


class ItemFacts(NamedTuple):
    """Why an item is on a slate."""

    item: int
    """Its place in the catalog."""
    channel: str | None
    """The recall channel that brought it; ``None`` where nobody says."""
    score: float | None
    """What it was ranked by, before diversity and exploration."""
    parts: dict[str, float]
    """What each feature block added to the score; empty where the score is no sum of blocks."""
    liked: int
    """The liked item of the user's past that it is most like; -1 where none is known."""
    similarity: float
    """How much: see :func:`nearest_liked`."""


def slate_facts(request: Request, sessions: int) -> list[tuple[ItemFacts, ...]]:
    """Return why each item is on the slates of an answered request's first sessions, told from a
    memory that has not learned of them yet.
    """
    slate = request.need("slate")
    channel, scores = request.of_slate(request.candidate_channel), request.of_slate(request.scores)
    found = None if request.slate_slot is None else block_parts(request)
    parts = told = None
    if found is not None and request.slate_slot is not None:
        place = request.slate_slot.cpu().numpy()[:, :, None]
        parts, told = np.take_along_axis(found[0], place, 1).tolist(), found[1].tolist()
    nearest, similarity = nearest_liked(request, slate, channel)
    blocks, names = tuple(request.config.blocks), channel_names(request.config)
    size = slate.shape[1]
    nothing = [[None] * size] * sessions
    came = nothing if channel is None else [[names[k] for k in row] for row in channel.tolist()]
    ranked = nothing if scores is None else scores.tolist()
    added: list[list[dict[str, float]]] = [
        [dict(zip(blocks, one, strict=True)) for one in parts[row]]
        if parts is not None and told is not None and told[row]
        else [{} for _ in range(size)]
        for row in range(sessions)
    ]
    columns = slate.tolist(), came, ranked, added, nearest.tolist(), similarity.tolist()
    return [tuple(map(ItemFacts, *(column[row] for column in columns))) for row in range(sessions)]


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
