"""The team of components at work on ``B`` sessions at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from marec_env.errors import ConfigError, unknown_name
from marec_env.pipeline import index
from marec_env.pipeline.actions import ActionCode
from marec_env.pipeline.component import ActionForm, Component
from marec_env.pipeline.config import NoMessages, PipelineConfig, TextMessages
from marec_env.pipeline.knowledge import Knowledge
from marec_env.pipeline.mailbox import Mailbox
from marec_env.pipeline.memory import SessionMemory, copied
from marec_env.pipeline.observations import FieldTable, FieldView, fields_of, summarise
from marec_env.pipeline.profile import Profile
from marec_env.pipeline.ranking import Feature, Ranking
from marec_env.pipeline.recall import Recall
from marec_env.pipeline.request import Request
from marec_env.pipeline.team import components_of, data_price
from marec_env.vector import Action, Rows

ALL = Rows()


class Pipeline:
    """Components in order, what they remember, see, say and decide.

    Attributes:
        components: in pipeline order.
        agents: their agent names.
        memory: the sessions' memory.
        summaries: what the latest request left for the observations, ``[B, k]`` each.
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
        """Args as of :class:`marec_env.pipeline.memory.SessionMemory`.

        Raises:
            ConfigError: a component or other plug-in does not exist or is unsound, names are
                doubled, or an order in which a decision would come too late.
        """
        self.config = config
        self.knowledge = knowledge
        self.num_sessions = num_sessions
        device = knowledge.device
        self.components = components_of(config)
        self.agents = tuple(component.agent for component in self.components)
        for component in self.components:
            component.knowledge = knowledge
        if config.recall.approximate(knowledge.num_items):
            index.require_faiss()
        self._place = {agent: place for place, agent in enumerate(self.agents)}
        blind = config.model_copy(update={"data_access": {}})  # hand-set decisions see nothing
        self._makers: dict[str, Component] = {
            "profile_cf": Profile(blind),
            "candidates": Recall(blind),
            "blocks": Feature(blind),
            "slate": Ranking(blind),
        }
        self.memory = SessionMemory(
            config,
            knowledge,
            num_sessions,
            history_length=history_length,
            max_requests=max_requests,
            groups=groups,
        )
        self._initial = {
            c.agent: {name: value.to(device) for name, value in c.initial_state(knowledge).items()}
            for c in self.components
        }
        for component in self.components:
            component.state = {
                name: value.expand(num_sessions, *value.shape).clone()
                for name, value in self._initial[component.agent].items()
            }
        asked = [name for c in self.components for name in c.granted if name not in c.state]
        self._fields = fields_of(asked)
        self._data_price = data_price(config, self.components)
        self._mailbox = None
        if not isinstance(config.messages, NoMessages):
            in_words = isinstance(config.messages, TextMessages)
            said = knowledge.written("sentences") if in_words else None
            self._mailbox = Mailbox(config.messages, self.components, num_sessions, device, said)
        widths = {
            "profile": knowledge.text.shape[1] + knowledge.cf.shape[1],
            "quotas": len(config.recall.channels),
            "candidates": knowledge.num_topics + 4,
            "enabled": len(config.blocks),
        }
        self.summaries = {
            name: torch.zeros(num_sessions, width, device=device) for name, width in widths.items()
        }
        self._spaces: dict[str, spaces.Space[Any]] = {
            c.agent: c.action_space for c in self.components
        }
        if self._mailbox is not None:
            for agent, space in self._spaces.items():
                self._spaces[agent] = self._mailbox.space(space)
        self._codes: dict[str, ActionCode] = {}
        if config.actions != "mixed":
            self._codes = {
                agent: ActionCode({agent: space}, config.actions, device)
                for agent, space in self._spaces.items()
            }
        self.action_spaces = self._spaces | {a: code.space for a, code in self._codes.items()}
        self._nearest: dict[str, Tensor] = {}
        self._forms = {
            agent: ActionForm(agent, space, num_sessions, device)
            for agent, space in self.action_spaces.items()
        }

    # ------------------------------------------------------------------ observations

    def fields(self, rows: Rows = ALL) -> FieldTable:
        """Return the observation fields of ``rows`` as they stand."""
        if rows.index is None:
            return FieldTable(self._fields, self.memory, self.summaries)
        summaries = {name: rows.of(value) for name, value in self.summaries.items()}
        return FieldTable(self._fields, self.memory.of_rows(rows), summaries)

    def view(self, agent: str, fields: FieldTable | None = None, rows: Rows = ALL) -> FieldView:
        """Return the fields that an agent may read, of ``rows``."""
        component = self.components[self._place[agent]]
        table = self.fields(rows) if fields is None else fields
        own = component.state
        granted = {
            name: rows.of(own[name]) if name in own else table[name] for name in component.granted
        }
        return FieldView(component.name, granted)

    def observe(self, agent: str) -> Tensor:
        """Return an agent's observation, float32 ``[B, d]``."""
        return self._observe(agent, self.fields(), ALL)

    def observe_all(
        self,
        fields: FieldTable | None = None,
        rows: Rows = ALL,
        agents: Sequence[str] | None = None,
    ) -> dict[str, Tensor]:
        """Return agents' observations, float32 ``[n, d_i]`` each; a field is computed once.

        Args:
            fields: of this moment and these sessions (:meth:`fields`).
            rows: the sessions asked about.
            agents: all by default.
        """
        table = self.fields(rows) if fields is None else fields
        return {agent: self._observe(agent, table, rows) for agent in agents or self.agents}

    def _observe(self, agent: str, fields: FieldTable, rows: Rows) -> Tensor:
        place = self._place[agent]
        seen = self.components[place].observe(self.view(agent, fields, rows))
        if self._mailbox is None or not self._mailbox.heard_by(place):
            return seen
        return torch.cat([seen, rows.of(self._mailbox.read(place))], dim=1)

    # ------------------------------------------------------------------ one request

    def begin(self, keys: Tensor) -> Request:
        """Open the next request of every session."""
        return Request(
            config=self.config,
            knowledge=self.knowledge,
            memory=self.memory,
            keys=keys,
            step=self.memory.requests,
            makers=self._makers,
        )

    def fit(self, actions: Mapping[str, Action]) -> dict[str, Action]:
        """Return actions of :attr:`action_spaces`, in pipeline order and in the form that
        components work on.

        Raises:
            ConfigError: an agent is unknown, or its action does not fit its space.
        """
        for agent in actions:
            if agent not in self._forms:
                raise ConfigError(unknown_name("agent", agent, self.agents))
        return {
            agent: self._decoded(agent, form.fit(actions[agent]))
            for agent, form in self._forms.items()
            if agent in actions
        }

    def _decoded(self, agent: str, action: Action) -> Action:
        code = self._codes.get(agent)
        return action if code is None else code.decode(action)[agent]

    def act(self, request: Request, agent: str, action: Action) -> None:
        """Let an agent's action (and its message) enter the request.

        Whoever comes before it and has not acted plays its hand-set default, and says nothing.

        Raises:
            ConfigError: an agent that comes later has acted already.
        """
        place = self._place[agent]
        if place < request.turn:
            raise ConfigError(
                f"{agent} acts too late: {self.agents[request.turn - 1]} has acted in this request"
            )
        self._play_defaults(request, place)
        self.components[place].act(request, self._decision(action))
        request.turn = place + 1
        if self._mailbox is not None:
            self._mailbox.send(place, request, action)
        if self.config.sequential:
            summarise(request, self.summaries)

    def _decision(self, action: Action) -> Tensor:
        if self._mailbox is not None:
            return self._mailbox.decision(action)
        assert isinstance(action, Tensor)
        return action

    def _play_defaults(self, request: Request, end: int) -> None:
        for component in self.components[request.turn : end]:
            component.act(request, self._default(component))
        request.turn = max(request.turn, end)

    def finish(self, request: Request) -> Tensor:
        """Let those who have not acted play their defaults; return the slate, int64 ``[B, K]``."""
        self._play_defaults(request, len(self.components))
        slate = request.need("slate")
        summarise(request, self.summaries)
        self._charge_data(request)
        if self._mailbox is not None:
            self._mailbox.charge(request)
        return slate

    def replay(self, request: Request, actions: Mapping[str, Action], without: str) -> Request:
        """Return the request as it would have gone had one agent played its hand-set default.

        Nothing is remembered and no message is sent, but that of the default is paid for.

        Args:
            request: the present request, before its answer.
            actions: what the agents that acted did in it.
            without: the agent to replace.
        """
        again = self.begin(request.keys)
        for component in self.components:
            if component.agent in actions and component.agent != without:
                component.act(again, self._decision(actions[component.agent]))
            else:
                component.act(again, self._default(component))
        again.need("slate")
        self._charge_data(again)
        if self._mailbox is not None:
            place = self._place[without]
            default = self._default(self.components[place])
            self._mailbox.charge_had(place, default, again)
        return again

    def _charge_data(self, request: Request) -> None:
        """Let a request pay for what components see of its user."""
        if self._data_price:
            request.spend(torch.full_like(request.keys, self._data_price, dtype=torch.float32))

    def active(self) -> dict[str, Tensor]:
        """Return, for agents that do not act at every request, whose next action counts."""
        found = {c.agent: c.active(self.memory) for c in self.components}
        return {agent: where for agent, where in found.items() if where is not None}

    def messages(self) -> Tensor | None:
        """Return what every component hears of all, float32 ``[B, senders * dim]``, ``None`` where
        they do not speak.
        """
        return None if self._mailbox is None else self._mailbox.arrived()

    def messages_sent(self) -> Tensor | None:
        """Return what each component said last, float32 ``[B, senders, dim]``, likewise."""
        return None if self._mailbox is None else self._mailbox.sent()

    def learn(self, request: Request, clicks: Tensor) -> None:
        """Update what is remembered from the users' answer (``clicks`` float32 ``[B, K]``)."""
        channel = blocks = None
        if request.slate_slot is not None and request.candidate_channel is not None:
            channel = request.candidate_channel.gather(1, request.slate_slot)
            if request.blocks is not None:
                places = request.slate_slot.unsqueeze(-1).expand(-1, -1, request.blocks.shape[2])
                blocks = request.blocks.gather(1, places)
        if request.turn:  # a slate from outside passed the components by
            for component in self.components:
                component.learn(request, clicks)
        self.memory.update(request.need("slate"), clicks, channel, blocks)
        if self._mailbox is not None:
            self._mailbox.next_request()

    # ------------------------------------------------------------------ sessions

    def reset(
        self,
        rows: Rows,
        history: Tensor,
        liked: Tensor,
        group: Tensor,
        limits: Tensor | None = None,
        beginning: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Begin new episodes; see :meth:`marec_env.pipeline.memory.SessionMemory.reset`."""
        self.memory.reset(rows, history, liked, group, limits, beginning)
        if self._mailbox is not None:
            self._mailbox.reset(rows)
        # Not in place: a tensor may be the finished request's own.
        for component in self.components:
            for name, value in self._initial[component.agent].items():
                component.state[name] = rows.put_in(component.state[name], value)
        for name, summary in self.summaries.items():
            self.summaries[name] = rows.put_in(summary, 0.0)

    def check(self) -> None:
        """Refuse actions that did not fit, where that was to wait (:class:`ActionForm`).

        Raises:
            ConfigError: there was one.
        """
        for form in self._forms.values():
            form.check()

    def _default(self, component: Component) -> Tensor:
        """Return the hand-set decision for all sessions, or the nearest that can be coded."""
        decision = component.default(self.num_sessions, self.memory.device)
        agent = component.agent
        if agent not in self._codes:
            return decision
        if agent not in self._nearest:
            action = self._decoded(agent, self._coded(component, decision[:1]))
            self._nearest[agent] = self._decision(action)[0]
        return self._nearest[agent].expand_as(decision)

    def _coded(self, component: Component, decision: Tensor) -> Action:
        """Return a decision ``[B, ...]`` as an action (silent where the component may speak)."""
        agent, mailbox = component.agent, self._mailbox
        action = decision if mailbox is None else mailbox.silent(decision, self._spaces[agent])
        code = self._codes.get(agent)
        return action if code is None else code.encode({agent: action})

    def default_actions(self) -> dict[str, Action]:
        """Return every agent's hand-set action for all sessions (silent where it may speak)."""
        return {c.agent: self._coded(c, self._default(c)) for c in self.components}

    def state_dict(self, *, copy: bool = True) -> dict[str, Any]:
        """Return everything needed to continue exactly; copies, unless it is put elsewhere at
        once.
        """
        found = {
            "memory": self.memory.state_dict(copy=False),
            "mailbox": {} if self._mailbox is None else self._mailbox.state_dict(),
            "summaries": self.summaries,
            "components": {component.agent: component.state for component in self.components},
        }
        return copied(found) if copy else found

    def load_state_dict(self, state: Mapping[str, Any], *, copy: bool = True) -> None:
        """Continue from what :meth:`state_dict` returned.

        Args:
            state: as it was returned.
            copy: whether its tensors are somebody else's too.
        """
        saved = {name: state.get(name, {}) for name in ("summaries", "components")}
        if copy:
            saved = copied(saved, self.memory.device)
        self.memory.load_state_dict(state["memory"], copy=copy)
        if self._mailbox is not None:
            self._mailbox.load_state_dict(state["mailbox"])
        self.summaries = saved["summaries"]
        for component in self.components:
            found = saved["components"].get(component.agent, {})
            remembered = self._initial[component.agent]
            if set(found) != set(remembered):
                raise ConfigError(
                    f"the saved state of {component.agent} holds {sorted(found)}, the component "
                    f"remembers {sorted(remembered)}: another version saved it; start anew"
                )
            component.state = found
