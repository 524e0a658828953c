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
    raise missing("torchrl") from error

__all__ = ["ModulePolicy", "SessionsEnv"]


class SessionsEnv(EnvBase):
    """``B`` sessions as a batch of size ``[B]``.

    Each component is a group of its name, of one agent, as TorchRL's multi-agent libraries have
    them: ``(agent, "observation")`` float32 ``[B, 1, d]``, ``(agent, "action")`` ``[B, 1, n]`` and
    ``("next", agent, "reward")`` ``[B, 1, 1]``. ``state``, float32 ``[B, s]``, is the central
    critic's input; ``done``, ``terminated`` and ``truncated`` are the sessions', ``[B, 1]``. Of
    components that do not act at every request, ``(agent, "mask")``, bool ``[B, 1]``, says whose
    next action counts.
    """

    batch_locked = True

    def __init__(self, simulator: Simulator, *, actions: ActionKind = "mixed") -> None:
        """Args:
        simulator: from :func:`marec_env.make_vec`; it must not be stepped by itself.
        actions: of which kind; see :class:`marec_env.pipeline.actions.ActionCode`.

        Raises:
            ConfigError: components that act one after another, or actions that do not fit into one
                space (``mixed`` with messages).
        """
        if len(simulator.turns) > 1:
            raise ConfigError(
                "here all components act at once; set pipeline.sequential: false, or take"
                " marec_env.aec_env with TorchRL's PettingZooWrapper"
            )
        super().__init__(device=simulator.device, batch_size=[simulator.num_envs])
        self.simulator = simulator
        self.group_map = {agent: [agent] for agent in simulator.agents}
        self.codes = {
            agent: ActionCode({agent: space}, actions, simulator.device)
            for agent, space in simulator.action_spaces.items()
        }
        self._next_seed: int | None = 0
        self._now = simulator.reset(0)
        self._fresh = torch.ones(simulator.num_envs, dtype=torch.bool, device=simulator.device)
        self._make_specs()

    def _make_specs(self) -> None:
        count, device = self.simulator.num_envs, self.device
        shape = (count, 1)

        def group(entries: Mapping[str, Any]) -> Composite:
            return Composite(dict(entries), shape=shape, device=device)

        seen, decided, paid = {}, {}, {}
        for agent in self.simulator.agents:
            size = self.simulator.observation_spaces[agent].shape[0]
            entries: dict[str, Any] = {
                "observation": Unbounded((*shape, size), device=device, dtype=torch.float32)
            }
            if agent in self._now.active:
                entries["mask"] = Categorical(2, shape=shape, device=device, dtype=torch.bool)
            seen[agent] = group(entries)
            space = self.codes[agent].space
            if hasattr(space, "nvec"):
                action: Any = MultiCategorical(
                    space.nvec, shape=(*shape, len(space.nvec)), device=device
                )
            else:
                low, high = (torch.as_tensor(part, device=device).expand(*shape, -1)
                             for part in (space.low, space.high))  # fmt: skip
                action = Bounded(low, high, device=device, dtype=torch.float32)
            decided[agent] = group({"action": action})
            paid[agent] = group({"reward": Unbounded((*shape, 1), device=device)})
        state = Unbounded((count, *self.simulator.state_space.shape), device=device)
        whole = {"shape": (count,), "device": device}
        self.observation_spec = Composite({**seen, "state": state}, **whole)
        self.action_spec = Composite(decided, **whole)
        self.reward_spec = Composite(paid, **whole)
        ends = ("done", "terminated", "truncated")
        flag = Categorical(2, shape=shape, device=device, dtype=torch.bool)
        self.done_spec = Composite({name: flag.clone() for name in ends}, **whole)

    def _seen(self, observations: Mapping[str, Tensor], state: Tensor) -> dict[str, Any]:
        found: dict[str, Any] = {"state": state}
        for agent, seen in observations.items():
            entries = {"observation": seen.unsqueeze(1)}
            if agent in self._now.active:
                entries["mask"] = self._now.active[agent].unsqueeze(1)
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
            found[agent]["reward"] = reward.view(-1, 1, 1)
        ends = {"done": self._fresh, "terminated": step.terminated, "truncated": step.truncated}
        return self._dict({**found, **{name: end.view(-1, 1) for name, end in ends.items()}})

    def _dict(self, entries: Mapping[str, Any]) -> TensorDictBase:
        count, device = self.simulator.num_envs, self.device
        groups = {
            name: TensorDict(value, batch_size=[count, 1], device=device)
            if isinstance(value, dict)
            else value
            for name, value in entries.items()
        }
        return TensorDict(groups, batch_size=[count], device=device)

    def _set_seed(self, seed: int | None) -> None:
        self._next_seed = seed

    def policy(self, module: Callable[[TensorDictBase], TensorDictBase]) -> ModulePolicy:
        """Return a team for evaluation in which a module decides as it does here."""
        return ModulePolicy(self.codes, module)


class ModulePolicy:
    """A team whose actions a module writes to ``(agent, "action")``, the most probable ones."""

    def __init__(
        self,
        codes: Mapping[str, ActionCode],
        module: Callable[[TensorDictBase], TensorDictBase],
    ) -> None:
        """``codes``: of each agent's actions; ``module``: reads ``(agent, "observation")``."""
        self._codes, self._module = dict(codes), module

    def reset(self) -> None:
        """Nothing to forget: a module is taken to have no memory."""

    @torch.no_grad()
    def act(self, observations: Mapping[str, Tensor]) -> dict[str, Action]:
        """Return the actions of all agents."""
        count = len(next(iter(observations.values())))
        groups = {
            agent: TensorDict({"observation": seen.unsqueeze(1)}, batch_size=[count, 1])
            for agent, seen in observations.items()
        }
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            found = self._module(TensorDict(groups, batch_size=[count]))
        actions: dict[str, Action] = {}
        for agent in observations:
            actions |= self._codes[agent].decode(found[agent, "action"].flatten(1))
        return actions
