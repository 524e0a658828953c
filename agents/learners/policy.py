"""A trained team in plain torch, what evaluation runs, and the files of a checkpoint.

``policy.json`` describes the team; ``actors/<name>.safetensors`` has the weights of one actor; the
state of training is a tree of tensors (safetensors) and JSON. Nothing is unpickled. Whether files
are whole is the business of a run's checkpoints (:mod:`agents.runs.checkpoints`).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
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
from marec_env import random
from marec_env.errors import RunError, unknown_name
from marec_env.io import read_json, write_json
from marec_env.vector import Action

__all__ = ["TrainedPolicy", "load_actor", "load_policy", "load_tree", "save_policy", "save_tree"]

FORMAT = 1
"""Version of the layout; a change that old code cannot read raises it."""
_STREAM = "policy/actions"
_DESCRIPTION = "policy.json"
_WRONG_SHAPE = (KeyError, TypeError, ValueError, AttributeError, IndexError, ValidationError)


class TrainedPolicy:
    """Acts for every agent of the team; needs no RLlib and no Ray.

    Recurrent actors remember from call to call; :meth:`reset` makes them forget.
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
        self._memory: dict[str, Tensor] = {}

    def reset(self, sessions: Tensor | None = None) -> None:
        """Forget everywhere, or in the sessions of a bool mask ``[B]`` whose episodes ended."""
        if sessions is None:
            self._memory.clear()
            self._step, self._keys = 0, None
            return
        for agent, memory in self._memory.items():
            self._memory[agent] = memory * (~sessions).to(memory.dtype).unsqueeze(-1)

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
        actions: dict[str, Action] = {}
        for agent, observation in observations.items():
            actor_name, index = self._of[agent]
            actor = self.actor(actor_name, observation.device)
            batch = observation.shape[0]
            memory = self._memory.get(agent)
            if actor.memory_size and (memory is None or memory.shape[0] != batch):
                memory = observation.new_zeros(batch, actor.memory_size)
            inputs, memory = actor(observation, memory, index)
            if memory is not None:
                self._memory[agent] = memory
            mask = actor.distribution.flat_mask((action_masks or {}).get(agent))
            if deterministic:
                flat = actor.distribution.mode(inputs, mask)
            else:
                draws = uniforms[agent] if uniforms else self._draws(agent, batch, inputs.device)
                flat = actor.distribution.sample(inputs, draws, mask)
            actions[agent] = actor.distribution.to_env(flat)
        self._step += 1
        return actions

    def actor(self, name: str, device: torch.device) -> Actor:
        """Return an actor where its observations are; one that has to move is copied."""
        actor = self.actors[name]
        if next(actor.parameters()).device != device:
            actor = self.actors[name] = copy.deepcopy(actor).to(device)
        return actor

    def _draws(self, agent: str, batch: int, device: torch.device) -> Tensor:
        keys = self._keys
        if keys is None:
            keys = random.session_keys(self._seed, torch.arange(batch, device=device))
        lanes = self.actors[self._of[agent][0]].distribution.num_uniforms
        return random.uniform(keys, self._step, f"{_STREAM}/{agent}", lanes)


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
    _check_format(folder / _DESCRIPTION, document)
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


def _check_format(path: Path, document: Mapping[str, Any]) -> None:
    """Refuse a file that a newer version wrote.

    Raises:
        RunError: it is, or does not say.
    """
    found = document.get("format")
    if not isinstance(found, int) or found > FORMAT:
        raise RunError(
            f"{path} has format {found}; this version reads up to {FORMAT}: update marec"
        )


def save_tree(folder: Path, name: str, tree: Any) -> None:
    """Write a nested structure as ``name.json`` and ``name.safetensors``.

    Args:
        folder: existing folder.
        name: stem of both files.
        tree: dicts, lists, tuples, numbers, strings, booleans, None, tensors and numpy arrays.

    Raises:
        RunError: a leaf is of another kind, or a file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    encoded = _encode(tree, tensors, name)
    weights = folder / f"{name}.safetensors"
    try:
        save_file(tensors, weights)
        with open(weights, "rb") as stream:
            os.fsync(stream.fileno())
    except (OSError, SafetensorError) as error:
        raise RunError(f"cannot write {weights}: {error}") from error
    write_json(folder / f"{name}.json", {"format": FORMAT, "tree": encoded})


def load_tree(folder: Path, name: str) -> Any:
    """Return what :func:`save_tree` wrote; numpy arrays come back as such.

    Raises:
        RunError: a file is missing, cut short, or of a newer format.
    """
    description, weights = folder / f"{name}.json", folder / f"{name}.safetensors"
    try:
        document = read_json(description, dict[str, Any])
        _check_format(description, document)
        return _decode(document["tree"], load_file(weights))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise RunError(
            f"cannot read the checkpoint {folder} ({description.name}): {error};"
            " use an earlier checkpoint"
        ) from error


def _encode(value: Any, tensors: dict[str, Tensor], path: str) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        # JSON lacks infinities and NaN, and floats must come back to the bit.
        return {"float": value.hex()}
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().contiguous().clone()
        return {"tensor": path}
    if isinstance(value, np.ndarray):
        tensors[path] = torch.from_numpy(np.array(value))
        return {"array": path}
    if isinstance(value, np.generic):
        return _encode(value.item(), tensors, path)
    if isinstance(value, Mapping):
        items = [
            [_encode(key, tensors, f"{path}.key"), _encode(item, tensors, f"{path}.{key}")]
            for key, item in value.items()
        ]
        return {"dict": items}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_encode(item, tensors, f"{path}.{i}") for i, item in enumerate(value)]}
    raise RunError(f"cannot save '{path}': values of type {type(value).__name__} are not supported")


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "float":
        return float.fromhex(content)
    if kind == "tensor":
        return tensors[content]
    if kind == "array":
        return tensors[content].numpy()
    if kind == "dict":
        return {_decode(k, tensors): _decode(v, tensors) for k, v in content}
    items = [_decode(item, tensors) for item in content]
    return items if kind == "list" else tuple(items)
