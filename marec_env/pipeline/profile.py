"""The components that say who the user is: profile vectors, and when the recommender refits one.

What is refitted is each user's own vector in the recommender's collaborative space, by ridge
regression of what was clicked on the items' fixed factors: the user half of alternating least
squares ("fold-in"; Hu, Koren and Volinsky, ICDM 2008), from the history and this session's log.
The item factors stay as they are: they belong to all sessions, and each session of a batch is a
world of its own, so one session's log cannot move them. Until the next refit the vector ages while
the log grows.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn.functional import normalize

from marec_env.pipeline.component import COMPONENTS, Component, unit
from marec_env.pipeline.knowledge import Knowledge
from marec_env.pipeline.memory import SessionMemory
from marec_env.pipeline.request import Request
from marec_env.vector import Rows

_NEGATIVE = 0.2  # hand-set: dislikes count a fifth of likes
_PRIOR = 0.1  # hand-set: a weak population prior


@COMPONENTS.register("profile")
class Profile(Component):
    """Weights history time scales, negative feedback and the population prior, each in [0, 1]."""

    name = "profile"
    fields: ClassVar[tuple[str, ...]] = (
        "session", "taste_change", "taste_text", "taste_cf", "interest",
    )  # fmt: skip
    before = ("recall", "feature", "auditor", "ranking")
    objective = MappingProxyType({"probe_quality": 1.0})

    @property
    def action_space(self) -> spaces.Box:
        """One number per time scale, one for negative feedback, one for the prior."""
        return spaces.Box(-1.0, 1.0, (len(self.config.half_lives) + 2,), np.float32)

    def decisions(self) -> tuple[str, ...]:
        """Return the names of the weights."""
        lives = (f"half-life {life:g}" for life in self.config.half_lives)
        return (*lives, "negative feedback", "population prior")

    def act(self, request: Request, action: Tensor) -> None:
        """Build the profile vectors."""
        memory, knowledge = request.memory, request.knowledge
        weights = unit(action)
        by_scale = weights[:, :-2].unsqueeze(-1)
        negative, prior = weights[:, -2:-1], weights[:, -1:]
        made = []
        for taste, dislike, centre in (
            (memory.taste_text, memory.dislike_text, knowledge.centre_text),
            (memory.taste_cf, memory.dislike_cf, knowledge.centre_cf),
        ):
            vector = (
                (by_scale * normalize(taste, dim=-1)).sum(1)
                - negative * normalize(dislike, dim=-1)
                + prior * centre
            )
            made.append(vector)
        text, cf = made
        if request.profile_shift is not None:
            cf = normalize(cf, dim=-1) + request.profile_shift
        request.profile_text, request.profile_cf = normalize(text, dim=-1), normalize(cf, dim=-1)
        request.profile_version = knowledge.version

    def default_action(self) -> Tensor:
        """Return all time scales alike, some negative feedback, a weak prior."""
        weights = [1.0] * len(self.config.half_lives) + [_NEGATIVE, _PRIOR]
        return 2.0 * torch.tensor(weights) - 1.0


class Query(Profile):
    """Moves the vectors of ``profile`` freely in both spaces, by as much as their own length."""

    fields = (*Profile.fields, "profile", "feedback_text", "feedback_cf")

    @property
    def action_space(self) -> spaces.Box:
        """Those of ``profile``, then what is added to each number of the text and CF vectors."""
        knowledge = self.knowledge
        size = knowledge.text.shape[1] + knowledge.cf.shape[1]
        return spaces.Box(-1.0, 1.0, (len(self.config.half_lives) + 2 + size,), np.float32)

    def decisions(self) -> tuple[str, ...]:
        """Return the names of the weights, then those of what is added."""
        spaces_of = ("text", self.knowledge.text), ("cf", self.knowledge.cf)
        moves = (f"{name} {k}" for name, space in spaces_of for k in range(space.shape[1]))
        return (*super().decisions(), *moves)

    def act(self, request: Request, action: Tensor) -> None:
        """Build the profile vectors, and move them."""
        first = len(self.config.half_lives) + 2
        super().act(request, action[:, :first])
        assert request.profile_text is not None and request.profile_cf is not None
        sizes = request.profile_text.shape[1], request.profile_cf.shape[1]
        by_text, by_cf = (
            # All numbers at their bounds make a step of length 1.
            move.clamp(-1.0, 1.0) / math.sqrt(size)
            for move, size in zip(action[:, first:].split_with_sizes(sizes, 1), sizes, strict=True)
        )
        request.profile_text = normalize(request.profile_text + by_text, dim=-1)
        request.profile_cf = normalize(request.profile_cf + by_cf, dim=-1)

    def default_action(self) -> Tensor:
        """Return that of ``profile``, not moved."""
        size = self.knowledge.text.shape[1] + self.knowledge.cf.shape[1]
        return torch.cat([super().default_action(), torch.zeros(size)])


_RIDGE = 1.0  # penalty on the vector's squared length
_UNCLICKED = 0.2  # weight of an item shown and not clicked, of a clicked one's


def fold_in(memory: SessionMemory, rows: Rows) -> Tensor:
    """Fit the vectors of sessions ``rows`` to what they liked and clicked.

    Args:
        memory: the sessions' logs.
        rows: ``n`` of them.

    Returns:
        Float32 ``[n, d]``, unit length (0 where nothing was logged).
    """
    shown, clicks = rows.of(memory.session_items), rows.of(memory.session_clicks)
    items = torch.cat([rows.of(memory.history), shown.flatten(1)], dim=1)
    positive = torch.cat([rows.of(memory.history_liked), clicks.flatten(1) > 0], dim=1)
    count = len(items)
    if count == 1:  # a product alone rounds otherwise than among others
        items, positive = items.expand(2, -1), positive.expand(2, -1)
    weight = torch.where(positive, 1.0, _UNCLICKED) * (items >= 0)  # [n, M]
    factors = memory.knowledge.rows("cf", items.clamp(min=0))  # [n, M, d]
    weighted = (weight.unsqueeze(-1) * factors).transpose(1, 2)
    target = torch.where(positive, 1.0, -1.0)
    size = factors.shape[-1]
    gram = weighted @ factors + _RIDGE * torch.eye(size, device=factors.device)
    # Positive definite, so that nothing need be checked, for which CUDA would wait.
    solved = torch.linalg.solve_ex(gram, weighted @ target.unsqueeze(-1)).result
    return normalize(solved.squeeze(-1), dim=-1)[:count]


@COMPONENTS.register("trainer")
class Refitting(Component):
    """Refits (1) or keeps (0) the user's collaborative vector, every few requests.

    Between decisions its action counts for nothing; :meth:`active` says when it counts. It
    remembers the vector of the last refit (unit length; 0 before it), the requests since then, and
    these as a share of the longest episode.
    """

    name = "trainer"
    fields = ("session", "since_refit", "taste_change")
    before = ("profile", "recall", "feature", "auditor", "ranking")
    objective = MappingProxyType({"probe_quality": 1.0, "extra_cost": -1.0})

    @property
    def action_space(self) -> spaces.Space[Any]:
        """0: keep, 1: refit."""
        return spaces.Discrete(2)

    def initial_state(self, knowledge: Knowledge) -> dict[str, Tensor]:
        """Return that nothing was refitted."""
        return {
            "fitted_cf": torch.zeros(knowledge.cf.shape[1]),
            "waited": torch.tensor(0),
            "since_refit": torch.zeros(1),
        }

    def active(self, memory: SessionMemory) -> Tensor:
        """Return in which sessions a decision is due, bool ``[B]``."""
        return memory.requests % self.config.trainer.every == 0

    def act(self, request: Request, action: Tensor) -> None:
        """Refit where it was decided and a decision is due."""
        refit = self.active(request.memory) & (action == 1)
        rows, fitted = Rows(refit), self.state["fitted_cf"]
        fitted = rows.put_in(fitted, fold_in(request.memory, rows)) if rows else fitted.clone()
        request.notes |= {"fitted_cf": fitted, "refitted": refit}
        request.shift_profile(fitted)
        request.spend(self.config.trainer.cost * refit.to(torch.float32))

    def learn(self, request: Request, clicks: Tensor) -> None:
        """Remember the refit."""
        waited = torch.where(request.notes["refitted"], 1, self.state["waited"] + 1)
        passed = waited.to(torch.float32) / request.memory.max_requests
        self.state |= {
            "fitted_cf": request.notes["fitted_cf"],
            "waited": waited,
            "since_refit": passed.unsqueeze(1),
        }

    def default_action(self) -> Tensor:
        """Return a refit whenever one is due."""
        return torch.tensor(1)
