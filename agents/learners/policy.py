"""A trained team in plain torch, what evaluation runs, and the files of a checkpoint.

``policy.json`` describes the team; ``actors/<name>.safetensors`` has the weights of one actor.
Nothing is unpickled. Whether files are whole is the business of a run's checkpoints
(:mod:`agents.runs.checkpoints`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from agents.learners.config import NetworkConfig
from agents.learners.networks import Actor
from agents.learners.team import TeamSpec
from agents.learners.tree import FORMAT, check_format
from marec_env import random
from marec_env.errors import RunError, unknown_name
from marec_env.io import read_json, write_json
from marec_env.vector import Action

__all__ = [
    "Decision",
    "TrainedPolicy",
    "load_actor",
    "load_policy",
    "save_policy",
]

_STREAM = "policy/actions"
_DESCRIPTION = "policy.json"
_WRONG_SHAPE = (KeyError, TypeError, ValueError, AttributeError, IndexError, ValidationError)


@dataclass(frozen=True, slots=True)
class Decision:
    """What an agent decided in ``B`` sessions."""

    action: Action
    """In the environment's form."""
    flat: Tensor
    """As its distribution has it, float32 ``[B, width]``: a Box's number before it is clipped."""
    log_probability: Tensor | None
    """Float32 ``[B]``: of a drawn action, its log-probability (a Box: log-density of the draw)."""


class TrainedPolicy:
    """Acts for every agent of the team; needs no RLlib and no Ray.

    Recurrent actors remember from call to call; :meth:`reset` makes them forget.

    Attributes:
        memory: by recurrent agent, what its actor remembers of each session, float32 ``[B, h]``.
    """

    def __init__(
        self, team: TeamSpec, actors: Mapping[str, Actor], seed: int = 0, sampled: bool = False
    ) -> None:
        """Args:
        team: agents and their actors.
        actors: networks by actor name.
        seed: of the draws of stochastic actions, where no uniforms are given.
        sampled: whether actions are drawn, where a call does not say, rather than the most probable
            ones taken.
        """
        self.team = team
        self.actors = dict(actors)
        self._of = {agent: team.actor_of(agent) for agent in team.agents}
        self._seed = seed
        self._sampled = sampled
        self._keys: Tensor | None = None
        self._step = 0
        self.memory: dict[str, Tensor] = {}

    def reset(self, sessions: Tensor | None = None) -> None:
        """Forget everywhere, or in the sessions of a bool mask ``[B]`` whose episodes ended."""
        if sessions is None:
            self.memory.clear()
            self._step, self._keys = 0, None
            return
        for agent, memory in self.memory.items():
            self.memory[agent] = memory * (~sessions).to(memory.dtype).unsqueeze(-1)

    def begin(self, sessions: Tensor) -> None:
        """Draw for the sessions with these keys, int64 ``[B]``, whatever else is in the batch."""
        self._keys = sessions

    def playing(self, sampled: bool) -> TrainedPolicy:
        """Return the same team, which draws its actions or takes the most probable ones."""
        return TrainedPolicy(self.team, self.actors, self._seed, sampled)

    @torch.no_grad()
    def act(
        self,
        observations: Mapping[str, Tensor],
        deterministic: bool | None = None,
        uniforms: Mapping[str, Tensor] | None = None,
        action_masks: Mapping[str, Any] | None = None,
    ) -> dict[str, Action]:
        """Return the actions of the agents whose observations are given.

        Args:
            observations: per agent, ``[B, d_i]``.
            deterministic: take the most probable action rather than draw one; ``None``: as the
                policy was told.
            uniforms: per agent, ``[B, num_uniforms]`` draws in (0, 1) to sample from; without them
                draws follow from the count of calls and the session's key (:meth:`begin`), or
                where there is none from the policy's seed and the session's number.
            action_masks: per agent, as :attr:`marec_env.vector.VecStep.action_masks`.
        """
        if deterministic is None:
            deterministic = not self._sampled
        if deterministic:
            uniforms = {}
        elif not uniforms:
            uniforms = {
                agent: self._draws(agent, len(seen), seen.device)
                for agent, seen in observations.items()
            }
        return {a: d.action for a, d in self.decide(observations, uniforms, action_masks).items()}

    @torch.no_grad()
    def decide(
        self,
        observations: Mapping[str, Tensor],
        uniforms: Mapping[str, Tensor],
        action_masks: Mapping[str, Any] | None = None,
    ) -> dict[str, Decision]:
        """Return what the agents whose observations are given decide, and how probable that was.

        Args:
            observations, uniforms, action_masks: as of :meth:`act`; an agent without uniforms takes
                its most probable action.
        """
        decisions: dict[str, Decision] = {}
        for agent, observation in observations.items():
            actor_name, index = self._of[agent]
            actor = self.actor(actor_name, observation.device)
            batch = observation.shape[0]
            memory = self.memory.get(agent)
            if actor.memory_size and (memory is None or memory.shape[0] != batch):
                memory = observation.new_zeros(batch, actor.memory_size)
            inputs, memory = actor(observation, memory, index)
            if memory is not None:
                self.memory[agent] = memory
            mask = actor.distribution.flat_mask((action_masks or {}).get(agent))
            log_probability = None
            if agent in uniforms:
                flat = actor.distribution.sample(inputs, uniforms[agent], mask)
                log_probability = actor.distribution.evaluate(inputs, flat, mask)[0]
            else:
                flat = actor.distribution.mode(inputs, mask)
            decisions[agent] = Decision(actor.distribution.to_env(flat), flat, log_probability)
        self._step += 1
        return decisions

    def actor(self, name: str, device: torch.device) -> Actor:
        """Return an actor where its observations are; one that has to move is copied."""
        actor = self.actors[name]
        if actor.head.weight.device != device:
            actor = self.actors[name] = copy.deepcopy(actor).to(device)
        return actor

    def _draws(self, agent: str, batch: int, device: torch.device) -> Tensor:
        keys = self._keys
        if keys is None:
            keys = random.session_keys(self._seed, torch.arange(batch, device=device))
        return self.draws(agent, keys, self._step)

    def draws(self, agent: str, keys: Tensor, step: Tensor | int) -> Tensor:
        """Return what an agent's actions are drawn by in sessions with these keys, int64 ``[B]``.

        Args:
            agent: whose.
            keys: of the sessions.
            step: calls of :meth:`act` before, since the sessions began.
        """
        lanes = self.actors[self._of[agent][0]].distribution.num_uniforms
        return random.uniform(keys, step, f"{_STREAM}/{agent}", lanes)


def save_policy(folder: Path, team: TeamSpec, actors: Mapping[str, Actor]) -> None:
    """Write ``policy.json`` and ``actors/<name>.safetensors`` into an existing folder."""
    (folder / "actors").mkdir(exist_ok=True)
    for name, actor in actors.items():
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in actor.state_dict().items()}
        save_file(tensors, folder / "actors" / f"{name}.safetensors")
    write_json(
        folder / _DESCRIPTION,
        {
            "format": FORMAT,
            "agents": list(team.agents),
            "turns": [list(turn) for turn in team.turns],
            "state_size": int(team.state_space.shape[0]),
            "observation_sizes": {a: int(team.observation_spaces[a].shape[0]) for a in team.agents},
            "action_spaces": {a: _describe(team.action_spaces[a]) for a in team.agents},
            "actors": {
                name: {
                    "agents": list(team.actors[name]),
                    "network": actor.config.model_dump(mode="json"),
                    "squashed": actor.squashed,
                    "num_agents": actor.num_agents,
                }
                for name, actor in actors.items()
            },
        },
    )


def load_policy(folder: str | Path) -> TrainedPolicy:
    """Return the policy of a checkpoint folder, without RLlib or Ray.

    Raises:
        RunError: a file is missing, damaged, or of a newer format.
    """
    path = Path(folder)
    document = _read(path)
    try:
        agents = tuple(document["agents"])
        team = TeamSpec(
            agents=agents,
            turns=tuple(tuple(turn) for turn in document["turns"]),
            observation_spaces={a: _box(document["observation_sizes"][a]) for a in agents},
            action_spaces={a: _space(document["action_spaces"][a]) for a in agents},
            state_space=_box(document["state_size"]),
            actors={name: tuple(entry["agents"]) for name, entry in document["actors"].items()},
        )
    except _WRONG_SHAPE as error:
        raise _damaged(path, error) from error
    return TrainedPolicy(team, {name: load_actor(path, name) for name in team.actors})


def load_actor(folder: str | Path, name: str) -> Actor:
    """Return one component's actor of a checkpoint folder.

    Raises:
        RunError: there is no such actor, or its file is missing or damaged.
    """
    path = Path(folder)
    document = _read(path)
    try:
        if name not in document["actors"]:
            raise RunError(unknown_name(f"actor of checkpoint {path}:", name, document["actors"]))
        entry = document["actors"][name]
        agent = entry["agents"][0]
        actor = Actor(
            _box(document["observation_sizes"][agent]),
            _space(document["action_spaces"][agent]),
            NetworkConfig.model_validate(entry["network"]),
            squashed=entry["squashed"],
            num_agents=entry["num_agents"],
        )
    except _WRONG_SHAPE as error:
        raise _damaged(path, error) from error
    weights = path / "actors" / f"{name}.safetensors"
    try:
        actor.load_state_dict(load_file(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"cannot read {weights}: {reason}") from error
    return actor.eval()


def _damaged(folder: Path, error: Exception) -> RunError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return RunError(f"{folder / _DESCRIPTION} does not describe a policy ({reason})")


def _read(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = read_json(folder / _DESCRIPTION, dict[str, Any])
    check_format(folder / _DESCRIPTION, document)
    return document


def _box(size: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (size,), np.float32)


def _describe(space: spaces.Space[Any]) -> dict[str, Any]:
    if isinstance(space, spaces.Box):
        # JSON lacks infinities: bounds are written in hexadecimal notation of floats.
        bounds = {
            "low": [float(x).hex() for x in space.low.reshape(-1)],
            "high": [float(x).hex() for x in space.high.reshape(-1)],
        }
        return {"kind": "box", "shape": list(space.shape), **bounds}
    if isinstance(space, spaces.Discrete):
        return {"kind": "discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"kind": "multi_discrete", "n": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "multi_binary", "n": np.asarray(space.n).tolist()}
    if isinstance(space, spaces.Tuple):
        return {"kind": "tuple", "parts": [_describe(part) for part in space]}
    raise RunError(f"cannot describe action space {space}")


def _space(document: Mapping[str, Any]) -> spaces.Space[Any]:
    kind = document["kind"]
    if kind == "box":
        shape = tuple(document["shape"])
        low = np.array([float.fromhex(x) for x in document["low"]], np.float32).reshape(shape)
        high = np.array([float.fromhex(x) for x in document["high"]], np.float32).reshape(shape)
        return spaces.Box(low, high, shape, np.float32)
    if kind == "discrete":
        return spaces.Discrete(document["n"], start=document["start"])
    if kind == "multi_discrete":
        return spaces.MultiDiscrete(document["n"], start=document["start"])
    if kind == "multi_binary":
        return spaces.MultiBinary(document["n"])
    return spaces.Tuple([_space(part) for part in document["parts"]])
