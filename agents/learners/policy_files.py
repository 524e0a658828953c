"""A team's policy on disk: one safetensors file an actor, and a description in JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from agents.learners.checkpoint import FORMAT
from agents.learners.config import NetworkConfig
from agents.learners.networks import Actor
from agents.learners.policy import TrainedPolicy
from agents.learners.team import TeamSpec
from marec_env.errors import RunError, unknown_name
from marec_env.io import write_json

__all__ = ["load_actor", "load_policy", "save_policy"]

_DESCRIPTION = "policy.json"


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
    agents = tuple(document["agents"])
    state_size = document["state_size"]
    team = TeamSpec(
        agents=agents,
        turns=tuple(tuple(turn) for turn in document["turns"]),
        observation_spaces={a: _box(document["observation_sizes"][a]) for a in agents},
        action_spaces={a: _space(document["action_spaces"][a]) for a in agents},
        state_space=_box(state_size),
        actors={name: tuple(entry["agents"]) for name, entry in document["actors"].items()},
    )
    return TrainedPolicy(team, {name: load_actor(path, name) for name in team.actors})


def load_actor(folder: str | Path, name: str) -> Actor:
    """Return one component's actor of a checkpoint folder.

    Raises:
        RunError: there is no such actor, or its file is missing or damaged.
    """
    path = Path(folder)
    document = _read(path)
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
    weights = path / "actors" / f"{name}.safetensors"
    try:
        actor.load_state_dict(load_file(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise RunError(f"cannot read {weights}: {error}") from error
    return actor.eval()


def _read(folder: Path) -> dict[str, Any]:
    file = folder / _DESCRIPTION
    try:
        document: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {file}: {error}") from error
    if document["format"] > FORMAT:
        raise RunError(f"{file} has format {document['format']}; this version reads up to {FORMAT}")
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
        return {"kind": "multi_binary", "n": int(space.n)}
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
