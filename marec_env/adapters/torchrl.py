"""TorchRL's ``EnvBase`` over batched sessions, on any device: a group of one for each component.

>>> import marec_env
>>> from marec_env.adapters.torchrl import SessionsEnv
>>> env = SessionsEnv(marec_env.make_vec(num_sessions=64))  # doctest: +SKIP
>>> env.rollout(10)["next", "ranking_0", "reward"].shape  # doctest: +SKIP
torch.Size([64, 10, 1, 1])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from marec_env.adapters import missing
from marec_env.errors import ConfigError
from marec_env.pipeline.actions import ActionCode
from marec_env.pipeline.config import ActionKind
from marec_env.simulator import Simulator
from marec_env.vector import Action, VecStep

try:
    from tensordict import TensorDict, TensorDictBase
    from torchrl.data import Bounded, Categorical, Composite, MultiCategorical, Unbounded
    from torchrl.envs import EnvBase
    from torchrl.envs.utils import ExplorationType, set_exploration_type
except ImportError as error:
    raise missing("torchrl", error) from error

__all__ = ["ModulePolicy", "SessionsEnv"]


class SessionsEnv(EnvBase):
    """``B`` sessions as a batch of size ``[B]``.

    Each component is a group of its name, of one agent, as TorchRL's multi-agent libraries have
    them: ``(agent, "observation")`` float32 ``[B, 1, d]``, ``(agent, "action")`` ``[B, 1, n]`` and
    ``("next", agent, "reward")`` ``[B, 1, 1]``. ``state``, float32 ``[B, s]``, is the central
    critic's input; ``done``, ``terminated`` and ``truncated`` are the sessions', ``[B, 1]``. Of
    components that do not act at every request, ``(agent, "mask")``, bool ``[B, 1]``, says whose
    next action counts.

    With ``split`` each of a component's choices is an agent of its group (``recall_0/2``), for
    libraries that know one choice an agent: ``n`` agents that observe ``[B, n, d + n]``, the
    component's observation and which of its choices it is about (one-hot), choose ``[B, n]``, and
    are all paid what the component is.
    """

    batch_locked = True

    def __init__(
        self, simulator: Simulator, *, actions: ActionKind = "mixed", split: bool = False
    ) -> None:
        """Args:
        simulator: from :func:`marec_env.make_vec`; it must not be stepped by itself.
        actions: of which kind; see :class:`marec_env.pipeline.actions.ActionCode`.
        split: whether each choice is an agent.

        Raises:
            ConfigError: components that act one after another; actions that do not fit into one
                space (``mixed`` with messages); ``split``, and a component's actions are no choices
                among equally many.
        """
        if len(simulator.turns) > 1:
            raise ConfigError(
                "here all components act at once; set pipeline.sequential: false, or take"
                " marec_env.aec_env with TorchRL's PettingZooWrapper"
            )
        super().__init__(device=simulator.device, batch_size=[simulator.num_envs])
        self.simulator = simulator
        self.codes = {
            agent: ActionCode({agent: space}, actions, simulator.device)
            for agent, space in simulator.action_spaces.items()
        }
        self._choices: dict[str, int] = {}
        if split:
            self._choices = {agent: _equal(agent, code.space) for agent, code in self.codes.items()}
        self.group_map = {
            agent: [f"{agent}/{place}" for place in range(code.size)] if split else [agent]
            for agent, code in self.codes.items()
        }
        self._next_seed: int | None = 0
        self._now = simulator.reset(0)
        self._fresh = torch.ones(simulator.num_envs, dtype=torch.bool, device=simulator.device)
        self._make_specs()

    def _make_specs(self) -> None:
        count, device = self.simulator.num_envs, self.device
        seen, decided, paid = {}, {}, {}
        for agent, members in self.group_map.items():
            shape = (count, len(members))
            group = {"shape": shape, "device": device}
            observation = self._observation(agent, self._now.observations[agent])
            entries: dict[str, Any] = {
                "observation": Unbounded(observation.shape, device=device, dtype=torch.float32)
            }
            if agent in self._now.active:
                entries["mask"] = Categorical(2, shape=shape, device=device, dtype=torch.bool)
            seen[agent] = Composite(entries, **group)
            space = self.codes[agent].space
            action: Any
            if agent in self._choices:
                action = Categorical(self._choices[agent], shape=shape, device=device)
            elif hasattr(space, "nvec"):
                action = MultiCategorical(
                    space.nvec, shape=(*shape, len(space.nvec)), device=device
                )
            else:
                low, high = (torch.as_tensor(part, device=device).expand(*shape, -1)
                             for part in (space.low, space.high))  # fmt: skip
                action = Bounded(low, high, device=device, dtype=torch.float32)
            decided[agent] = Composite({"action": action}, **group)
            paid[agent] = Composite({"reward": Unbounded((*shape, 1), device=device)}, **group)
        state = Unbounded((count, *self.simulator.state_space.shape), device=device)
        whole = {"shape": (count,), "device": device}
        self.observation_spec = Composite({**seen, "state": state}, **whole)
        self.action_spec = Composite(decided, **whole)
        self.reward_spec = Composite(paid, **whole)
        ends = ("done", "terminated", "truncated")
        flag = Categorical(2, shape=(count, 1), device=device, dtype=torch.bool)
        self.done_spec = Composite({name: flag.clone() for name in ends}, **whole)

    def _observation(self, agent: str, seen: Tensor) -> Tensor:
        return _by_member(seen, len(self.group_map[agent]) if agent in self._choices else 0)

    def _seen(self, observations: Mapping[str, Tensor], state: Tensor) -> dict[str, Any]:
        found: dict[str, Any] = {"state": state}
        for agent, seen in observations.items():
            entries = {"observation": self._observation(agent, seen)}
            if agent in self._now.active:
                count = len(self.group_map[agent])
                entries["mask"] = self._now.active[agent].unsqueeze(1).expand(-1, count)
            found[agent] = entries
        return found

    @torch.no_grad()
    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDictBase:
        """Begin episodes: of a seed where one was set, else each session's next one."""
        where = None if tensordict is None else tensordict.get("_reset", None)
        wanted = torch.ones_like(self._fresh) if where is None else where.view(-1)
        if self._next_seed is not None:
            self._now, self._next_seed = self.simulator.reset(self._next_seed), None
        elif bool((wanted & ~self._fresh).any()):  # a session that ended has begun anew already
            self._now = self.simulator.restart(wanted & ~self._fresh)
        self._fresh = self._fresh | wanted
        never = torch.zeros(self.simulator.num_envs, 1, dtype=torch.bool, device=self.device)
        ends = dict.fromkeys(("done", "terminated", "truncated"), never)
        return self._dict({**self._seen(self._now.observations, self._now.state), **ends})

    @torch.no_grad()
    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Answer one request of every session; what is returned of an ended one is its end."""
        actions: dict[str, Action] = {}
        for agent, code in self.codes.items():
            actions |= code.decode(tensordict[agent, "action"].flatten(1))
        step: VecStep = self.simulator.step(actions)
        self._now = step
        self._fresh = step.terminated | step.truncated
        found = self._seen(step.final_observations, step.final_state)
        for agent, reward in step.rewards.items():
            found[agent]["reward"] = reward.view(-1, 1, 1).expand(-1, len(self.group_map[agent]), 1)
        ends = {"done": self._fresh, "terminated": step.terminated, "truncated": step.truncated}
        return self._dict({**found, **{name: end.view(-1, 1) for name, end in ends.items()}})

    def _dict(self, entries: Mapping[str, Any]) -> TensorDictBase:
        count, device = self.simulator.num_envs, self.device
        groups = {
            name: TensorDict(value, batch_size=[count, len(self.group_map[name])], device=device)
            if isinstance(value, dict)
            else value
            for name, value in entries.items()
        }
        return TensorDict(groups, batch_size=[count], device=device)

    def _set_seed(self, seed: int | None) -> None:
        self._next_seed = seed

    def policy(self, module: Callable[[TensorDictBase], TensorDictBase]) -> ModulePolicy:
        """Return a team for evaluation in which a module decides as it does here."""
        return ModulePolicy(self.codes, module, split=bool(self._choices))


class ModulePolicy:
    """A team whose actions a module writes to ``(agent, "action")``, the most probable ones."""

    def __init__(
        self,
        codes: Mapping[str, ActionCode],
        module: Callable[[TensorDictBase], TensorDictBase],
        split: bool = False,
    ) -> None:
        """``codes``: of each agent's actions; ``module``: reads ``(agent, "observation")``;
        ``split``: as :class:`SessionsEnv` has it.
        """
        self._codes, self._module, self._split = dict(codes), module, split

    def reset(self) -> None:
        """Nothing to forget: a module is taken to have no memory."""

    @torch.no_grad()
    def act(self, observations: Mapping[str, Tensor]) -> dict[str, Action]:
        """Return the actions of all agents."""
        count = len(next(iter(observations.values())))
        groups = {
            agent: TensorDict({"observation": made}, batch_size=made.shape[:2])
            for agent, seen in observations.items()
            for made in [_by_member(seen, self._codes[agent].size if self._split else 0)]
        }
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            found = self._module(TensorDict(groups, batch_size=[count]))
        actions: dict[str, Action] = {}
        for agent in observations:
            actions |= self._codes[agent].decode(found[agent, "action"].flatten(1))
        return actions


def _by_member(seen: Tensor, choices: int) -> Tensor:
    """Return what the agents of a component's group observe, from ``[B, d]``: ``[B, 1, d]``, or
    where each of its choices is one ``[B, choices, d + choices]``.
    """
    if not choices:
        return seen.unsqueeze(1)
    which = torch.eye(choices, device=seen.device).expand(len(seen), -1, -1)
    return torch.cat([seen.unsqueeze(1).expand(-1, choices, -1), which], dim=2)


def _equal(agent: str, space: Any) -> int:
    """Return among how many each choice of a component is."""
    counts = set(getattr(space, "nvec", ()))
    if len(counts) != 1:
        raise ConfigError(
            f"split: the actions of {agent}, {space}, are no choices among equally many; take"
            " actions='discrete' and components without learned messages, or no split"
        )
    return int(counts.pop())
