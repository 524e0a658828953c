"""The profile that is told, in a text, who the user is.

Every text that may hold was written and embedded before the first step (:mod:`marec_env.text`), so
that choosing one is a look-up. A user is told apart by three facts: the two topics liked most, of
history and session, and the topic of the latest like.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env.pipeline.knowledge import Knowledge
from marec_env.pipeline.profile import Profile
from marec_env.pipeline.request import USER_TEXT, Request


class ToldProfile(Profile):
    """The profile, which every few requests chooses a text about the user and reads it.

    Its state: ``user_text``, float32 ``[B, dt]``, the text's embedding; ``kind``, which text it is;
    and ``waited``, requests answered. The text is chosen from what was known when a request began,
    and holds from the next one on, as one that is written while the request is answered would.
    """

    fields = (*Profile.fields, USER_TEXT)

    def initial_state(self, knowledge: Knowledge) -> dict[str, Tensor]:
        """Return the text about a user of whom nothing is known.

        Raises:
            ConfigError: no texts were written.
        """
        return {
            USER_TEXT: knowledge.written("user_texts")[0].clone(),
            "kind": torch.tensor(0),
            "waited": torch.tensor(0),
        }

    def act(self, request: Request, action: Tensor) -> None:
        """Build the profile vectors, and tell the text."""
        super().act(request, action)
        request.notes[USER_TEXT] = self.state["kind"]

    def learn(self, request: Request, clicks: Tensor) -> None:
        """Choose the text anew where it is due."""
        waited = self.state["waited"]
        due = waited % request.knowledge.user_every == 0
        kind = torch.where(due, request.memory.user_kind(), self.state["kind"])
        self.state |= {
            USER_TEXT: request.knowledge.written("user_texts").index_select(0, kind),
            "kind": kind,
            "waited": waited + 1,
        }
