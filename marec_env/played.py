"""What users clicked and passed in hand-set play, for an encoder to be fitted to before a run
(``embeddings.finetune: {objective: from_reward}``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env import random
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import DataError
from marec_env.simulator import Simulator
from marec_env.world import build_world

_BATCH = 256  # sessions at once; what is found does not depend on it


def played_clicks(config: EnvironmentConfig, sessions: int, seed: int) -> Tensor:
    """Play sessions by hand-set actions, and return what their logs say: int64 ``[P, 3]``, for each
    click an item that the user had liked or clicked before (one of the latest that the recommender
    remembers), the clicked item, and one of the same slate that was not clicked.

    Sessions are numbered from -1 downwards, which neither training nor evaluation ever plays,
    whatever their seeds.

    Args:
        config: the environment; no encoder is fitted in it.
        sessions: how many are played, each to its end.
        seed: of the sessions and draws.

    Raises:
        DataError: nobody clicked after a like.
    """
    simulator = Simulator(build_world(config), min(sessions, _BATCH), autoreset=False)
    found = []
    for first in range(0, sessions, simulator.num_envs):
        numbers = -1 - torch.arange(first, first + simulator.num_envs)
        simulator.begin(numbers, seed)
        found += _played(simulator, numbers >= -sessions)
    clicks = torch.cat(found)
    if not len(clicks):
        raise DataError(
            f"environment.embeddings.finetune: in {sessions} sessions of hand-set play no user who "
            "had liked something clicked; raise finetune.sessions, or set objective: co_click"
        )
    return clicks


def _played(simulator: Simulator, running: Tensor) -> list[Tensor]:
    """Play to the end the sessions that are ``running``, bool ``[B]``."""
    memory, keys, found = simulator.pipeline.memory, simulator.session_keys, []
    for request in range(simulator.config.max_requests):
        liked = memory.recent
        step = simulator.step(simulator.default_actions())
        slate = memory.session_items[:, request]
        clicked = memory.session_clicks[:, request] > 0
        known, passed = (liked >= 0).any(1), ~clicked.all(1)
        session, place = (clicked & (running & known & passed).unsqueeze(1)).nonzero().unbind(1)

        size = slate.shape[1]
        liking = random.uniform(keys, request, "embeddings.played.liked", size * liked.shape[1])
        passing = random.uniform(keys, request, "embeddings.played.passed", size * size)
        anchor, other = _drawn(liked, liked >= 0, liking), _drawn(slate, ~clicked, passing)
        found.append(torch.stack([t[session, place] for t in (anchor, slate, other)], dim=1))
        running = running & ~(step.terminated | step.truncated)
        if not bool(running.any()):
            break
    return found


def _drawn(items: Tensor, allowed: Tensor, chance: Tensor) -> Tensor:
    """Return allowed ones of ``items``, int64 ``[B, M]``, by draws of ``[B, n M]``: ``[B, n]``."""
    chance = chance.view(len(items), -1, items.shape[1]) * allowed.unsqueeze(1)
    return items.gather(1, chance.argmax(dim=2))
