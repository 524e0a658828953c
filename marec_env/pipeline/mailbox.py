"""Messages between components: who hears whom, when, how clearly, and at what cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from marec_env import random
from marec_env.errors import ConfigError
from marec_env.pipeline.component import Component
from marec_env.pipeline.config import FixedMessages, LearnedMessages, TextMessages
from marec_env.pipeline.request import Request
from marec_env.pipeline.sentences import sentence_of, sentences
from marec_env.vector import Action, Rows


class Mailbox:
    """The latest message of each sender as it stands at the receivers, and those on their way.

    A message sent at request t is readable from request t + delay on: with delay 0 within the
    request by agents whose turn comes later (sequential mode) and by all at the next request.
    """

    def __init__(
        self,
        config: FixedMessages | TextMessages | LearnedMessages,
        components: Sequence[Component],
        num_sessions: int,
        device: torch.device,
        said: Tensor | None = None,
    ) -> None:
        """Args:
        config: the section ``pipeline.messages``.
        components: in pipeline order.
        num_sessions: B.
        device: of the messages.
        said: float32 ``[S, dim]``, what may be said in words; needed where ``kind`` is ``text``.
        """
        self._sentences: tuple[Tensor, ...] = ()
        if said is not None:
            self._sentences = torch.split(said, [len(sentences(one)) for one in components])
        self.config = config
        self._learned = isinstance(config, LearnedMessages)
        self._components = components
        self._senders = range(len(components))
        shape = (config.delay + 1, num_sessions, len(components), config.dim)
        self._queue = torch.zeros(shape, device=device)
        self._spent = torch.zeros(num_sessions, len(components), device=device)

    def space(self, space: spaces.Space[Any]) -> spaces.Space[Any]:
        """Add a learned message to an action space: more numbers of a Box, else a second part."""
        if not self._learned:
            return space
        if isinstance(space, spaces.Box):
            word = np.ones(self.config.dim, space.low.dtype)
            return spaces.Box(np.append(space.low, -word), np.append(space.high, word))
        return spaces.Tuple((space, spaces.Box(-1.0, 1.0, (self.config.dim,))))

    def silent(self, decision: Tensor, space: spaces.Space[Any]) -> Action:
        """Return a decision ``[B, ...]`` as an action of a space of :meth:`space` that says 0."""
        if not self._learned:
            return decision
        silence = torch.zeros(len(decision), self.config.dim, device=decision.device)
        if isinstance(space, spaces.Tuple):
            return decision, silence
        return torch.cat([decision, silence], dim=1)

    def decision(self, action: Action) -> Tensor:
        """Return an action without its message."""
        if isinstance(action, tuple):
            return action[0]
        return action[:, : -self.config.dim] if self._learned else action

    def _message(self, place: int, request: Request, action: Action) -> Tensor:
        """Return what a component says, float32 ``[B, dim]`` in [-1, 1]: its learned message, or a
        summary of its decision, cut or padded with 0, or the embedding of a sentence on it.
        """
        dim = self.config.dim
        if isinstance(action, tuple):
            said = action[1]
        elif self._learned:
            said = action[:, -dim:]
        else:
            said = self._components[place].summary(request, action)
            if self._sentences:
                told = sentence_of(self._components[place], said)
                said = self._sentences[place].index_select(0, told)
        cut = said[:, :dim].clamp(-1.0, 1.0)
        return torch.nn.functional.pad(cut, (0, dim - cut.shape[1]))

    def _due(self, place: int, request: Request) -> Tensor:
        """Return where a component sends, bool ``[B]``: in the period's requests where its action
        counts.
        """
        due = request.step % self.config.every == 0
        active = self._components[place].active(request.memory)
        return due if active is None else due & active

    def _price(self, place: int, message: Tensor, due: Tensor) -> Tensor:
        """Return what a message costs before noise, float32 ``[B]``; 0 if nobody hears it."""
        heard = any(place in self.heard_by(receiver) for receiver in self._senders)
        return self.config.bandwidth_cost * heard * torch.where(due, message.abs().mean(1), 0.0)

    def heard_by(self, place: int) -> list[int]:
        """Return the senders that the component at ``place`` of the pipeline hears."""
        if self.config.topology == "downstream":
            return list(range(place))
        return [sender for sender in self._senders if sender != place]

    def read(self, place: int) -> Tensor:
        """Return what a component hears, float32 ``[B, heard * dim]``."""
        return torch.cat([self._queue[0][:, sender] for sender in self.heard_by(place)], dim=1)

    def arrived(self) -> Tensor:
        """Return the messages that stand at the receivers, float32 ``[B, senders * dim]``."""
        return self._queue[0].flatten(1)

    def sent(self) -> Tensor:
        """Return what was sent last, float32 ``[B, senders, dim]``."""
        return self._queue[-1]

    def send(self, place: int, request: Request, action: Action) -> None:
        """Send a component's message where it is due, after its action has entered the request."""
        config = self.config
        message, due = self._message(place, request, action), self._due(place, request)
        self._spent[:, place] = self._price(place, message, due)
        if config.noise > 0:
            stream = f"pipeline/message/{place}"
            drawn = random.normal(request.keys, request.step, stream, config.dim)
            message = message + config.noise * drawn
        if config.privacy is not None:
            message = self._private(place, request, message, config.privacy.epsilon)
        slot = self._queue[config.delay]
        slot[:, place] = torch.where(due.unsqueeze(1), message, slot[:, place])

    def _private(self, place: int, request: Request, message: Tensor, epsilon: float) -> Tensor:
        """Return a message with Laplace noise (C. Dwork, F. McSherry, K. Nissim and A. Smith, TCC
        2006): any two messages in [-1, 1] differ by 2 ``dim`` in sum at most.
        """
        stream, dim = f"pipeline/private/{place}", self.config.dim
        centred = random.uniform(request.keys, request.step, stream, dim) - 0.5
        drawn = -centred.sign() * torch.log1p(-2.0 * centred.abs())
        return (message + 2.0 * dim / epsilon * drawn).clamp(-1.0, 1.0)

    def charge(self, request: Request) -> None:
        """Let the request pay for what was said in it."""
        request.spend(self._spent.sum(1))

    def charge_had(self, place: int, decision: Tensor, request: Request) -> None:
        """Let a request pay for what would have been said in it, had a component decided otherwise.

        Args:
            place: the component.
            decision: its other decision; what it would have learned to say is nothing.
            request: as it would have gone.
        """
        others = [self._spent[:, :place], self._spent[:, place + 1 :]]
        request.spend(torch.cat(others, dim=1).sum(1))
        if not self._learned:
            message = self._message(place, request, decision)
            request.spend(self._price(place, message, self._due(place, request)))

    def next_request(self) -> None:
        """Let messages travel one request further; the last one sent stays in force."""
        self._spent = torch.zeros_like(self._spent)
        if self.config.delay:
            self._queue = torch.cat([self._queue[1:], self._queue[-1:]])

    def reset(self, rows: Rows) -> None:
        """Empty the mail of new episodes."""
        for mail in (*self._queue, self._spent):
            rows.put(mail, 0.0)

    def state_dict(self) -> dict[str, Tensor]:
        """Return what is on its way and what has arrived, sessions first."""
        return {"queue": self._queue.transpose(0, 1)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        queue = state["queue"].transpose(0, 1).to(self._queue.device)
        if queue.shape != self._queue.shape:
            raise ConfigError(
                f"the saved messages have shape {list(queue.shape)} [delay + 1, sessions, senders, "
                f"dim], this environment's {list(self._queue.shape)}; use the configuration and "
                "the number of sessions that they were saved with"
            )
        self._queue = queue.clone()
        self._spent = torch.zeros_like(self._spent)
