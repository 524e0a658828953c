"""A tiny environment with the simulator's interface, whose payoffs are known."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from marec_env import random
from marec_env.vector import VecStep

LIMIT = 6


class TinyPipeline:
    """Two components; clicks grow with both decisions, the user leaves at random.

    profile_0 chooses p in [0, 2], recall_0 two levels r in {0..3}; per request
    f_profile = p, f_recall = (r_1 + r_2) / 6 − p / 4, team reward = their sum plus luck.
    """

    agents = ("profile_0", "recall_0")
    max_requests = LIMIT

    def __init__(self, num_envs=4, sequential=False):
        self.num_envs = num_envs
        self.turns = (("profile_0",), ("recall_0",)) if sequential else (self.agents,)
        self.action_spaces = {
            "profile_0": spaces.Box(0.0, 2.0, (1,), np.float32),
            "recall_0": spaces.MultiDiscrete([4, 4]),
        }
        box = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.observation_spaces = dict.fromkeys(self.agents, box)
        self.state_space = box
        self.pending, self.log = {}, []

    defaults = {"profile_0": torch.tensor([0.5]), "recall_0": torch.tensor([1, 1])}  # noqa: RUF012

    def begin(self, session_ids):
        self.keys = random.session_keys(7, session_ids)
        self.num_envs = len(session_ids)
        self.t = torch.zeros(len(session_ids), dtype=torch.int64)
        return self

    def reset(self, seed):
        self.begin(torch.arange(self.num_envs) + 1000 * seed)
        zero = torch.zeros(self.num_envs, dtype=torch.bool)
        return self._step(dict.fromkeys(self.agents, self.t.float()), zero, zero, {})

    def observe(self, agent):
        # Sequentially, recall sees what profile did; the luck of the session identifies the row.
        told = torch.zeros(self.num_envs)
        if agent == "recall_0" and len(self.turns) > 1:
            told = self.pending["profile_0"][:, 0]
        return torch.stack([told, self.t.float()], dim=-1)

    def act(self, actions):
        self.pending.update(actions)

    def advance(self):
        p = self.pending["profile_0"][:, 0]
        r = self.pending["recall_0"].float().sum(-1) / 6
        self.pending = {}
        draws = random.uniform(self.keys, self.t, "tiny", 2)
        own = {"profile_0": p, "recall_0": r - p / 4}
        self.t = self.t + 1
        terminated = draws[:, 0] < 0.2
        truncated = ~terminated & (self.t >= LIMIT)
        metrics = {f"objective/{a}": v for a, v in own.items()}
        metrics["team_reward"] = own["profile_0"] + own["recall_0"] + 0.1 * draws[:, 1]
        metrics["clicks"] = r + draws[:, 1]
        self.t = torch.where(terminated | truncated, 0, self.t)
        return self._step(own, terminated, truncated, metrics)

    def step(self, actions):
        for turn in self.turns:
            self.act({agent: actions[agent] for agent in turn})
        return self.advance()

    def _step(self, rewards, terminated, truncated, metrics):
        seen = torch.stack([torch.zeros(self.num_envs), self.t.float()], dim=-1)
        views = dict.fromkeys(self.agents, seen)
        return VecStep(views, seen, rewards, terminated, truncated, seen, views, metrics=metrics)

    def state_dict(self):
        return {"t": self.t, "keys": self.keys}

    def load_state_dict(self, state):
        self.t, self.keys = state["t"], state["keys"]

    def close(self):
        pass


@pytest.fixture
def tiny():
    return TinyPipeline


class Constant:
    """A policy of fixed actions."""

    def __init__(self, **actions):
        self.actions = actions

    def reset(self):
        pass

    def act(self, observations):
        return {
            agent: torch.as_tensor(self.actions[agent]).expand(
                len(view), *torch.as_tensor(self.actions[agent]).shape
            )
            for agent, view in observations.items()
        }


@pytest.fixture
def constant():
    return Constant
