"""Any number of chosen sessions of the recommender's simulator, played as often as wanted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from agents.baselines.teams import hand_set_actions
from marec_env.simulator import Simulator
from marec_env.vector import Action, VecStep

if TYPE_CHECKING:
    from marec_env.world import World

__all__ = ["EVALUATION_SEED", "SimulatorReplay"]

EVALUATION_SEED = 1_000_003
"""Of the users met here; training runs use their own small seeds, so no session is shared."""
_KEPT = 3  # simulators of the latest sizes are kept, since their memory is allocated once


class SimulatorReplay:
    """A :class:`agents.studies.equilibrium.lineups.ReplayEnv` over a world."""

    def __init__(self, world: World, seed: int = EVALUATION_SEED) -> None:
        """Args:
        world: what is simulated.
        seed: equal seeds and session numbers are equal users and luck.
        """
        self.world, self.seed = world, seed
        self._kept: OrderedDict[int, Simulator] = OrderedDict()
        self._simulator = self._of_size(1)
        self.num_envs = 1
        self.max_requests = world.config.max_requests
        self.agents = self._simulator.agents
        self.turns = self._simulator.turns
        self.observation_spaces = self._simulator.observation_spaces
        self.action_spaces = self._simulator.action_spaces
        self.state_space = self._simulator.state_space

    def _of_size(self, rows: int) -> Simulator:
        if rows not in self._kept:
            self._kept[rows] = Simulator(self.world, rows, autoreset=False)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(rows)
        return self._kept[rows]

    def default_actions(self) -> dict[str, Action]:
        """Return each agent's default action, without a batch dimension."""
        return hand_set_actions(self._simulator)

    def begin(self, session_ids: Tensor) -> VecStep:
        """Start these sessions, int64 ``[B]``."""
        self._simulator = self._of_size(len(session_ids))
        self.num_envs = len(session_ids)
        return self._simulator.begin(session_ids, self.seed)

    def reset(self, seed: int) -> VecStep:
        """Start sessions 0 ... B - 1 under another seed."""
        return self._simulator.begin(torch.arange(self.num_envs), seed)

    def observe(self, agent: str) -> Tensor:
        """See :class:`marec_env.vector.VectorEnv`."""
        return self._simulator.observe(agent)

    def act(self, actions: Mapping[str, Action]) -> None:
        """See :class:`marec_env.vector.VectorEnv`."""
        self._simulator.act(actions)

    def advance(self) -> VecStep:
        """See :class:`marec_env.vector.VectorEnv`."""
        return self._simulator.advance()

    def step(self, actions: Mapping[str, Action]) -> VecStep:
        """See :class:`marec_env.vector.VectorEnv`."""
        return self._simulator.step(actions)

    def state_dict(self) -> dict[str, Any]:
        """See :class:`marec_env.vector.VectorEnv`."""
        return self._simulator.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See :class:`marec_env.vector.VectorEnv`."""
        self._simulator.load_state_dict(state)

    def close(self) -> None:
        """Release the simulators."""
        self._kept.clear()
