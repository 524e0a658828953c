"""The team of components at work on ``B`` sessions at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from marec_env.errors import ConfigError, unknown_name
from marec_env.pipeline import index, stages
from marec_env.pipeline.auditor import Auditor  # noqa: F401  (registers)
from marec_env.pipeline.component import COMPONENTS, Component
from marec_env.pipeline.components import Feature, Profile, Ranking, Recall  # noqa: F401  (registers)
from marec_env.pipeline.config import PipelineConfig
from marec_env.pipeline.fields import FIELDS, FieldTable, FieldView
from marec_env.pipeline.knowledge import Knowledge
from marec_env.pipeline.memory import SessionMemory
from marec_env.pipeline.messages import Mailbox, fitted
from marec_env.pipeline.request import Request
from marec_env.pipeline.trainer import Trainer
from marec_env.vector import Action

__all__ = ["Pipeline"]

_NEAREST = 10  # candidates whose mean score tells how well recall found the profile


class Pipeline:
    """Components in order, what they remember, see, say and decide.

    Attributes:
        components: in pipeline order.
        agents: their agent names.
        memory: the sessions' memory.
        summaries: what the latest request's stages left for the observations.
    """

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
        self.config = config
        self.knowledge = knowledge
        self.num_sessions = num_sessions
        self.components: tuple[Component, ...] = tuple(
            _component_class(name)(config) for name in config.components
        )
        self.agents = tuple(component.agent for component in self.components)
        _check_names(config, self.components)
        stages.check_plug_ins(config)
        self._refits = any(isinstance(component, Trainer) for component in self.components)
        if index.is_used(config.recall, knowledge.num_items):
            index.require_faiss()
        self._place = {agent: place for place, agent in enumerate(self.agents)}
        self.memory = SessionMemory(
            knowledge,
            num_sessions,
            half_lives=config.half_lives,
            history_length=history_length,
            recent=config.recall.recent_clicks,
            channels=len(config.recall.channels),
            blocks=len(config.blocks),
            max_requests=max_requests,
            slate_size=config.slate_size,
            groups=groups,
            limits=len(config.audit.suitability),
        )
        device = knowledge.text.device
        self._mailbox = Mailbox(config.messages, len(self.components), num_sessions, device)
        widths = {
            "profile": knowledge.text.shape[1] + knowledge.cf.shape[1],
            "quotas": len(config.recall.channels),
            "candidates": knowledge.num_topics + 4,
            "enabled": len(config.blocks),
        }
        self.summaries = {
            name: torch.zeros(num_sessions, width, device=device) for name, width in widths.items()
        }
        self.action_spaces = {
            component.agent: self._with_message(component.action_space)
            for component in self.components
        }

    def _with_message(self, space: spaces.Space[Any]) -> spaces.Space[Any]:
        """Add a learned message to an action space: more numbers of a Box, else a second part."""
        messages = self.config.messages
        if messages.kind != "learned":
            return space
        if isinstance(space, spaces.Box) and len(space.shape) == 1:
            word = np.ones(messages.dim, space.low.dtype)
            return spaces.Box(np.append(space.low, -word), np.append(space.high, word))
        return spaces.Tuple((space, spaces.Box(-1.0, 1.0, (messages.dim,))))

    def begin(self, keys: Tensor) -> Request:
        """Open the next request of every session."""
        return Request(
            config=self.config,
            knowledge=self.knowledge,
            memory=self.memory,
            keys=keys,
            step=self.memory.requests,
            fitted_cf=self.memory.fitted_cf if self._refits else None,
        )

    def fields(self, rows: Tensor | None = None) -> FieldTable:
        """Return the observation fields as they stand, of all sessions or of ``rows``."""
        if rows is None:
            return FieldTable(self.memory, self.summaries)
        summaries = {name: value[rows] for name, value in self.summaries.items()}
        return FieldTable(self.memory.of_rows(rows), summaries)

    def observe(self, agent: str) -> Tensor:
        """Return an agent's observation, float32 ``[B, d]``."""
        return self._observe(agent, self.fields(), None)

    def observe_all(
        self, fields: FieldTable | None = None, rows: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return all agents' observations.

        Args:
            fields: of this moment and these sessions (:meth:`fields`).
            rows: int64 ``[n]``, the sessions asked about; all if ``None``.

        Returns:
            Float32 ``[n, d_i]`` per agent.
        """
        fields = fields or self.fields(rows)
        return {agent: self._observe(agent, fields, rows) for agent in self.agents}

    def _observe(self, agent: str, fields: FieldTable, rows: Tensor | None) -> Tensor:
        place = self._place[agent]
        component = self.components[place]
        seen = component.observe(FieldView(component.name, component.granted, fields))
        if self.config.messages.kind == "none" or not self._mailbox.heard_by(place):
            return seen
        heard = self._mailbox.read(place)
        return torch.cat([seen, heard if rows is None else heard[rows]], dim=1)

    def act(self, request: Request, agent: str, action: Action) -> None:
        """Let an agent's action (and its message) enter the request."""
        place = self._place[agent]
        component = self.components[place]
        messages = self.config.messages
        decision, message = self._split(action)
        component.act(request, decision)
        if messages.kind == "fixed":
            message = component.summary(request, decision)
        if message is not None:
            message = fitted(message, messages.dim)
            due = self._mailbox.due(request.step, component.active(request.memory))
            self._mailbox.publish(place, message, due, request.keys, request.step)
        if self.config.sequential:
            self._summarise(request)

    def _split(self, action: Action) -> tuple[Tensor, Tensor | None]:
        """Return an action's decision and its learned message, if it carries one."""
        messages = self.config.messages
        if isinstance(action, tuple):
            return action[0], action[1]
        if messages.kind == "learned":
            return action[:, : -messages.dim], action[:, -messages.dim :]
        return action, None

    def replay(self, request: Request, actions: Mapping[str, Action], without: str) -> Request:
        """Return the request as it would have gone had one agent played its hand-set default.

        Nothing is remembered and no message is sent, but that of the default is paid for.

        Args:
            request: the present request, before its answer.
            actions: what the agents that acted did in it.
            without: the agent to replace.
        """
        again = self.begin(request.keys)
        default = self._split(self.default_actions()[without])[0]
        for component in self.components:
            if component.agent in actions:
                played = self._split(actions[component.agent])[0]
                component.act(again, default if component.agent == without else played)
        stages.finish(again)
        messages = self.config.messages
        if messages.kind != "none":
            place = self._place[without]
            again.spend(self._mailbox.cost(without=place))
            if messages.kind == "fixed":  # a learned one is silent by default
                component = self.components[place]
                message = fitted(component.summary(again, default), messages.dim)
                due = self._mailbox.due(again.step, component.active(again.memory))
                again.spend(self._mailbox.price(place, message, due))
        return again

    def finish(self, request: Request) -> Tensor:
        """Run the stages nobody decided and return the slate, int64 ``[B, K]``."""
        slate = stages.finish(request)
        self._summarise(request)
        if self.config.messages.kind != "none":
            request.spend(self._mailbox.cost())
        return slate

    def _summarise(self, request: Request) -> None:
        """Refresh the summaries that observations are made of from the stages run so far."""
        if request.profile_text is not None and request.profile_cf is not None:
            self.summaries["profile"] = torch.cat([request.profile_text, request.profile_cf], 1)
        if request.quotas is not None:
            share = request.quotas.to(torch.float32) / self.config.candidates
            self.summaries["quotas"] = share
        if request.candidates is not None and "candidates" not in request.notes:
            request.notes["candidates"] = self._describe(request, request.candidates)
            self.summaries["candidates"] = request.notes["candidates"]
        if request.enabled is not None:
            self.summaries["enabled"] = request.enabled

    def _describe(self, request: Request, candidates: Tensor) -> Tensor:
        knowledge = self.knowledge
        count = candidates.shape[1]
        shares = torch.zeros(self.num_sessions, knowledge.num_topics, device=candidates.device)
        weight = torch.full(candidates.shape, 1.0 / count, device=candidates.device)
        shares.scatter_add_(1, request.topics_of(candidates), weight)
        best = candidates[:, : min(_NEAREST, count)]
        return torch.cat(
            [
                shares,
                request.candidate_popularity.mean(1, keepdim=True),
                request.candidate_freshness.mean(1, keepdim=True),
                request.scores_of("cf", best).mean(1, keepdim=True),
                request.scores_of("text", best).mean(1, keepdim=True),
            ],
            dim=1,
        )

    def active(self) -> dict[str, Tensor]:
        """Return, for agents that do not act at every request, whose next action counts."""
        found = {c.agent: c.active(self.memory) for c in self.components}
        return {agent: where for agent, where in found.items() if where is not None}

    def learn(self, request: Request, clicks: Tensor) -> None:
        """Update the memory from the users' answer (``clicks`` float32 ``[B, K]``)."""
        assert request.slate is not None
        channel = blocks = None
        if request.slate_slot is not None and request.candidate_channel is not None:
            channel = request.candidate_channel.gather(1, request.slate_slot)
            if request.blocks is not None:
                index = request.slate_slot.unsqueeze(-1).expand(-1, -1, request.blocks.shape[2])
                blocks = request.blocks.gather(1, index)
        if request.fitted_cf is not None and request.refitted is not None:
            self.memory.fitted_cf = request.fitted_cf
            self.memory.refit_at = torch.where(
                request.refitted, self.memory.requests, self.memory.refit_at
            )
        self.memory.update(request.slate, clicks, channel, blocks)
        self._mailbox.next_request()

    def reset(
        self,
        rows: Tensor,
        history: Tensor,
        liked: Tensor,
        group: Tensor,
        limits: Tensor | None = None,
    ) -> None:
        """Begin new episodes in ``rows`` (int64 ``[n]``); arguments as in
        :meth:`marec_env.pipeline.memory.SessionMemory.reset`.
        """
        self.memory.reset(rows, history, liked, group, limits)
        self._mailbox.reset(rows)
        for name, summary in self.summaries.items():
            # Not in place: the tensor may be the finished request's own.
            self.summaries[name] = summary.index_fill(0, rows, 0.0)

    def default_actions(self) -> dict[str, Action]:
        """Return every agent's hand-set action for all sessions (silent where it may speak)."""
        device = self.knowledge.text.device
        actions: dict[str, Action] = {}
        for component in self.components:
            decision = component.default_action().to(device)
            batch = decision.expand(self.num_sessions, *decision.shape)
            space = self.action_spaces[component.agent]
            silence = torch.zeros(self.num_sessions, self.config.messages.dim, device=device)
            if isinstance(space, spaces.Tuple):
                actions[component.agent] = (batch, silence)
            elif space != component.action_space:
                actions[component.agent] = torch.cat([batch, silence], dim=1)
            else:
                actions[component.agent] = batch
        return actions

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to continue exactly."""
        return {
            "memory": self.memory.state_dict(),
            "mailbox": self._mailbox.state_dict(),
            "summaries": {name: value.clone() for name, value in self.summaries.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        self.memory.load_state_dict(state["memory"])
        self._mailbox.load_state_dict(state["mailbox"])
        self.summaries = {
            name: value.to(self.memory.device).clone() for name, value in state["summaries"].items()
        }


def _component_class(name: str) -> type[Component]:
    """Return the class of a component.

    Raises:
        ConfigError: there is none of that name, or it is no component.
    """
    found = COMPONENTS.get(name)
    if not (isinstance(found, type) and issubclass(found, Component)):
        raise ConfigError(
            f"pipeline.components: '{name}' is no component; name a subclass of "
            "marec_env.pipeline.Component"
        )
    return found


def _check_names(config: PipelineConfig, components: Sequence[Component]) -> None:
    """Refuse doubled names, an impossible order, and data limits for nobody."""
    names = [component.name for component in components]
    doubled = [name for name in names if names.count(name) > 1]
    if doubled:
        raise ConfigError(
            f"pipeline.components: two are called '{doubled[0]}'; give each class its own name"
        )
    for place, component in enumerate(components):
        late = [name for name in component.before if name in names[:place]]
        if late:
            raise ConfigError(
                f"pipeline.components: '{component.name}' must come before '{late[0]}'; swap them"
            )
    for name, granted in config.data_access.items():
        if name in names:
            continue  # the component itself has looked at its grants
        if name not in COMPONENTS:
            raise ConfigError(f"pipeline.data_access: {unknown_name('component', name, names)}")
        for field in granted:
            FIELDS.get(field)
