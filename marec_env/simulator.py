"""The batched core: ``B`` sessions in which a pipeline meets users.

One environment step is one request of every session: components decide, a slate is shown, users
answer, everybody is paid, and sessions whose user has left begin anew (or, for evaluation, rest).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from marec_env import random
from marec_env.beginnings import best_at_start, by_user
from marec_env.errors import ConfigError
from marec_env.graph import StepGraph
from marec_env.memory import require_sessions
from marec_env.pipeline.memory import copied
from marec_env.pipeline.observations import STATE_FIELDS, FieldTable
from marec_env.pipeline.pipeline import Pipeline
from marec_env.pipeline.plugin_checks import checked_slate
from marec_env.pipeline.request import Request
from marec_env.registry import names_own
from marec_env.rewards.team import Shaping, TeamReward
from marec_env.rewards.terms import Outcome, Truth
from marec_env.users.registry import make_users
from marec_env.vector import Action, Rows, VecStep, add_sums, episode_outcomes, no_sums
from marec_env.world import World

__all__ = ["Simulator"]

_EPISODE_STRIDE = 1 << 32  # session number = episode x stride + slot: free of the batch size
_OWN = ("_seeds", "_sessions", "session_keys", "_top", "_sums")


class Simulator:
    """``B`` sessions at once (implements :class:`marec_env.vector.VectorEnv`).

    Attributes:
        world: what it was built from.
        users: the user side; privileged.
        pipeline: the recommender's side; ``pipeline.memory`` is what a recommender may see.
        last: the latest request's outcome, or ``None`` before the first; of a step that is a CUDA
            graph (:mod:`marec_env.graph`) it holds until the next step only.
        session_keys: int64 ``[B]``, of the running sessions, for policies that draw.
        own_plug_ins: whether any of the user's own takes part.
    """

    def __init__(self, world: World, num_sessions: int, *, autoreset: bool = True) -> None:
        """Args:
        world: see :func:`marec_env.world.build_world`.
        num_sessions: B.
        autoreset: whether a session whose episode ended begins a new one in the same step; if not
            it rests, and its numbers mean nothing until :meth:`begin`.
        """
        config = world.config
        places = config.max_requests * config.pipeline.slate_size
        require_sessions(num_sessions, world.knowledge.num_items, places)
        self.world = world
        self.config = config
        self.device = world.knowledge.device
        self.num_envs = num_sessions
        self.autoreset = autoreset
        self.users = make_users(config.users, world.population, num_sessions, self.device)
        self.pipeline = Pipeline(
            config.pipeline,
            world.knowledge,
            num_sessions,
            history_length=world.population.history.length,
            max_requests=config.max_requests,
            groups=len(world.population.group_names),
        )
        self.agents = self.pipeline.agents
        turns = tuple((a,) for a in self.agents) if config.pipeline.sequential else (self.agents,)
        self.turns: tuple[tuple[str, ...], ...] = turns
        self._team = TeamReward(config.rewards, self.pipeline.components)
        self._shaping = Shaping(config.rewards.shaping)
        sections = (config.pipeline, config.rewards, config.users)
        self.own_plug_ins = names_own([section.model_dump() for section in sections])
        self._known = world.learned.known_users.to(self.device)
        self._limits = world.user_limits.to(self.device)
        depth = min(config.measure.true_top + places, world.knowledge.num_items)
        self._top = torch.zeros(num_sessions, depth, dtype=torch.int64, device=self.device)
        self._by_user = by_user(world, self.users, self.pipeline.memory, depth)
        self._sessions = torch.arange(num_sessions, device=self.device)
        self._seeds = torch.zeros_like(self._sessions)
        self.session_keys = random.session_keys(self._seeds, self._sessions)
        self._sums: dict[str, Tensor] = {}
        self._request: Request | None = None
        self._actions: dict[str, Action] = {}
        self.last: Outcome | None = None
        self._waiting: dict[str, Action] | None = None
        self._graph = StepGraph.of(self, self._whole) if autoreset else None
        self.reset(0)
        self.observation_spaces = {a: _box(self.observe(a).shape[1]) for a in self.agents}
        self.action_spaces: Mapping[str, spaces.Space[Any]] = self.pipeline.action_spaces
        self.state_space = _box(self.state().shape[1])

    def reset(self, seed: int) -> VecStep:
        """Begin episode 0 of slots 0 ... B - 1 under a seed."""
        return self.begin(torch.arange(self.num_envs, device=self.device), seed)

    def begin(self, sessions: Tensor, seed: int | Tensor) -> VecStep:
        """Begin exactly these ``sessions``, int64 ``[B]``: the same numbers and ``seed`` (or seeds,
        int64 ``[B]``) meet the same users and luck.

        Raises:
            ConfigError: the seed is no integer; off the CPU also if an action before did not fit.
        """
        self.pipeline.check()
        self._seeds = random.seeds_of(seed, self.num_envs, self.device)
        self._sessions = sessions.to(self.device).clone()
        self._forget()
        self._sums = no_sums(self._sums)
        self._start(Rows())
        return self._begun()

    def restart(self, where: Tensor) -> VecStep:
        """Begin the next episode of some sessions, bool ``[B]``, as if theirs had ended."""
        self._forget()
        self._renew(Rows(where))
        return self._begun()

    def _renew(self, rows: Rows) -> None:
        self._sums = {name: rows.put_in(sums, 0.0) for name, sums in self._sums.items()}
        rows.put(self._sessions, rows.of(self._sessions) + _EPISODE_STRIDE)
        self._start(rows)

    def _begun(self) -> VecStep:
        """Return a step in which nothing happened."""
        nothing = torch.zeros(self.num_envs, device=self.device)
        never = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        state, observations = self._look(Rows())
        return VecStep(
            observations=observations,
            state=state,
            rewards=dict.fromkeys(self.agents, nothing),
            terminated=never,
            truncated=never,
            final_state=state,
            final_observations=observations,
            active=self.pipeline.active(),
        )

    def _start(self, rows: Rows) -> None:
        """Begin the sessions that ``self._sessions`` numbers in ``rows``."""
        keys = random.session_keys(rows.of(self._seeds), rows.of(self._sessions))
        rows.put(self.session_keys, keys)
        users, population = self.users, self.world.population
        users.reset(self.session_keys, rows.where)
        person = rows.of(users.user_index)
        known = ~rows.of(users.is_new) & self._known[person]
        history, liked = population.history.of(person)
        history = torch.where(known.unsqueeze(1), history, -1)
        place = person + population.num_users * ~known
        beginning = {name: table[place] for name, table in self._by_user.items()}
        group, limits = population.groups[person], self._limits[person]
        self.pipeline.reset(rows, history, liked, group, limits, beginning)
        if (top := beginning.get("top")) is None:
            top = best_at_start(users, self.pipeline.memory.seen, self._top.shape[1], rows)
        rows.put(self._top, top)

    def compile(self) -> None:
        """Let a step be one compiled program from now on (:mod:`marec_env.step_program`): of
        sessions on the CPU without autoreset. Plays three requests, at the third of which it is
        compiled; begin anew then. What a step returns, and ``last``, hold until the next.
        """
        self._graph = StepGraph.compiled(self, self._whole)
        for _ in range(3):
            self.step(self.default_actions())

    def observe(self, agent: str) -> Tensor:
        """Return an agent's current observation, float32 ``[B, d]``."""
        return self.pipeline.observe(agent)

    def state(self) -> Tensor:
        """Return the central critic's input, float32 ``[B, s]``."""
        return self._state(self.pipeline.fields(), Rows())

    def _state(self, fields: FieldTable, rows: Rows) -> Tensor:
        parts = [fields[name] for name in STATE_FIELDS]
        if self.config.state == "privileged":
            parts.append(rows.of(self.users.hidden_state()))
        return torch.cat(parts, dim=1)

    def _look(self, rows: Rows) -> tuple[Tensor, dict[str, Tensor]]:
        """Return state and observations of ``rows``."""
        fields = self.pipeline.fields(rows)
        return self._state(fields, rows), self.pipeline.observe_all(fields, rows)

    def _whole(self, actions: Mapping[str, Action]) -> VecStep:
        self._take(actions)
        return self._answer(self._request or self.pipeline.begin(self.session_keys), None)

    def act(self, actions: Mapping[str, Action]) -> None:
        """Take the actions of one turn's agents, in pipeline order.

        Raises:
            ConfigError: an agent is unknown, or its action does not fit its space.
        """
        fitting = self.pipeline.fit(actions)
        first = self._request is None and self._waiting is None
        if self._graph is not None and first and len(fitting) == len(self.agents):
            self._waiting = fitting
            return
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._take(waiting)
        self._take(fitting)

    def _take(self, fitting: Mapping[str, Action]) -> None:
        if self._request is None:
            self._request = self.pipeline.begin(self.session_keys)
        try:
            for agent, action in fitting.items():
                self._actions[agent] = action
                self.pipeline.act(self._request, agent, action)
        except Exception:
            self._close_request()  # else a second try would meet half a request
            raise

    def _close_request(self) -> None:
        self._request = self._waiting = None
        self._actions = {}

    def _forget(self) -> None:
        """Forget the request, and how steps went: the sessions are other ones."""
        self._close_request()
        self.last = None
        if self._graph is not None:
            self._graph.forget()

    def advance(self) -> VecStep:
        """Show the slate, collect the answer, pay everybody, and go on; if a plug-in of the user's
        own fails, the sessions are as before the request.
        """
        if self._graph is not None and self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            return self._graph(waiting)
        return self._answer(self._request or self.pipeline.begin(self.session_keys), None)

    def step(self, actions: Mapping[str, Action]) -> VecStep:
        """Act all turns, then advance."""
        self.act(actions)
        return self.advance()

    def step_slate(self, slate: Tensor) -> VecStep:
        """Show a slate chosen outside the pipeline, int64 ``[B, K]``, no item twice in a slate.

        Objectives that need a pipeline decision (candidates, profile) take the slate for the
        candidates and are neutral otherwise.

        Raises:
            ConfigError: wrong shape (a slate is neither short nor empty), items outside the
                catalog, an item twice in one slate, or one that the session has seen before.
        """
        checked_slate(slate, self.config.pipeline.slate_size, self.pipeline.memory)
        return self._answer(self.pipeline.begin(self.session_keys), slate)

    def _answer(self, request: Request, slate: Tensor | None) -> VecStep:
        """Close a request: with the pipeline's slate, or one chosen outside it."""
        before = (self.state_dict(), self.last) if self.own_plug_ins else None
        try:
            if slate is not None:
                request.slate = request.candidates = slate
            return self._played(request, self.pipeline.finish(request) if slate is None else slate)
        except Exception:
            if before is not None:
                self.load_state_dict(before[0])
                self.last = before[1]
            raise

    def _played(self, request: Request, slate: Tensor) -> VecStep:
        memory = self.pipeline.memory
        truth = Truth.of(self.users, request, self._top, self.config.measure)
        potential = self._shaping.before(memory)
        counterfactual = self._counterfactual(request)
        feedback, items = self.users.respond(slate), self.world.catalog.attributes
        outcome = Outcome(request, feedback, truth, memory.seen, items)
        objectives, team, terms = self._team.score(outcome)

        self.pipeline.learn(request, feedback.clicks)
        self.last = outcome
        self._close_request()
        terminated = feedback.left
        truncated = ~terminated & (memory.requests >= self.config.max_requests)
        bonus = self._shaping.bonus(potential, memory, terminated)
        return self._close(
            rewards=self._team.rewards(objectives, team, counterfactual, bonus),
            metrics={
                "team_reward": team,
                "clicks": feedback.clicks.sum(1),
                "engagement": feedback.engagement,
                "satisfaction": feedback.satisfaction,
                **feedback.outcomes,
                **{f"objective/{agent}": value for agent, value in objectives.items()},
                **{f"term/{name}": value for name, value in terms.items()},
            },
            terminated=terminated,
            truncated=truncated,
        )

    def _counterfactual(self, request: Request) -> dict[str, Tensor]:
        """Return F had one component played its default, luck unchanged, per agent that acted."""
        if self.config.rewards.mode != "difference":
            return {}
        users, seen = self.users.state_dict(), self.pipeline.memory.seen
        items = self.world.catalog.attributes
        totals: dict[str, Tensor] = {}
        for agent in self._actions:
            replayed = self.pipeline.replay(request, self._actions, agent)
            truth = Truth.of(self.users, replayed, self._top, self.config.measure)
            feedback = self.users.respond(replayed.need("slate"))
            outcome = Outcome(replayed, feedback, truth, seen, items)
            totals[agent] = self._team.score(outcome)[1]
            self.users.load_state_dict(users)
        return totals

    def _close(
        self,
        rewards: dict[str, Tensor],
        metrics: dict[str, Tensor],
        terminated: Tensor,
        truncated: Tensor,
    ) -> VecStep:
        """Add up episodes, keep final observations, and begin anew where an episode ended."""
        add_sums(self._sums, metrics)
        rows = Rows(terminated | truncated)
        final_state, final_observations = self._look(Rows())
        episodes: dict[str, Tensor] = {}
        observations, state = final_observations, final_state
        if rows:
            totals = ("clicks", *(self.last.feedback.outcomes if self.last else ()))
            episodes = episode_outcomes(rows, self._sums, self.pipeline.memory.requests, totals)
            if self.autoreset:
                self._renew(rows)
                new_state, new = self._look(rows)
                state = rows.put_in(final_state, new_state)
                observations = {a: rows.put_in(final_observations[a], new[a]) for a in new}
        return VecStep(
            observations=observations,
            state=state,
            rewards=rewards,
            terminated=terminated,
            truncated=truncated,
            final_state=final_state,
            final_observations=final_observations,
            active=self.pipeline.active(),
            metrics=metrics,
            episodes=episodes,
        )

    def default_actions(self) -> dict[str, Action]:
        """Return the hand-set static pipeline's actions for all sessions."""
        return self.pipeline.default_actions()

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to continue exactly (between two steps): nested dicts of
        tensors whose first dimension is the sessions'.
        """
        self.pipeline.check()
        return {
            **copied({name.strip("_"): getattr(self, name) for name in _OWN}),
            "users": self.users.state_dict(),
            "pipeline": self.pipeline.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned.

        Raises:
            ConfigError: it was saved with another number of sessions or configuration.
        """
        saved = len(state["session_keys"])
        if saved != self.num_envs:
            raise ConfigError(
                f"the state was saved with {saved} sessions, this environment has "
                f"{self.num_envs}; make one of {saved}"
            )
        sums = no_sums(self._sums)
        for name in _OWN:
            setattr(self, name, copied(state[name.strip("_")], self.device))
        self._sums = sums | self._sums
        self.users.load_state_dict(state["users"])
        self.pipeline.load_state_dict(state["pipeline"])
        self._forget()

    def close(self) -> None:
        """Release nothing: all is memory."""


def _box(size: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (size,), np.float32)
