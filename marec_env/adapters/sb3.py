"""Stable-Baselines3's ``VecEnv`` on a Gymnasium ``VectorEnv`` that resets in the same step."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from marec_env.adapters import missing
from marec_env.errors import ConfigError

try:
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise missing("stable-baselines3", error) from error

__all__ = ["SB3VecEnv"]

_Array = NDArray[Any]


class SB3VecEnv(VecEnv):
    """What Stable-Baselines3 steps: one of its environments is one session.

    >>> model = PPO("MlpPolicy", SB3VecEnv(envs))  # doctest: +SKIP
    >>> policy = envs.policy(lambda seen: model.predict(seen)[0])  # doctest: +SKIP
    """

    def __init__(self, envs: VectorEnv[_Array, _Array, _Array]) -> None:
        """Args:
        envs: :class:`marec_env.adapters.gym.TeamVectorEnv` or
            :class:`marec_env.classic.SlateVectorEnv`.

        Raises:
            ConfigError: it does not reset in the same step.
        """
        if envs.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
            raise ConfigError("Stable-Baselines3 needs an environment that resets in the same step")
        self.envs = envs
        self.render_mode = None
        self._actions: _Array = np.zeros(0)
        self._began = time.monotonic()
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> _Array:
        """Begin new episodes everywhere, of the seed that :meth:`seed` was given."""
        seen, _ = self.envs.reset(seed=self._seeds[0])
        self._reset_seeds()
        return seen

    def step_async(self, actions: _Array) -> None:
        """Take all sessions' actions."""
        self._actions = actions

    def step_wait(self) -> tuple[_Array, _Array, _Array, list[dict[str, Any]]]:
        """Answer one request of every session."""
        seen, rewards, terminated, truncated, infos = self.envs.step(self._actions)
        ended = terminated | truncated
        told: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        passed = time.monotonic() - self._began
        for place in np.flatnonzero(ended):
            told[place] = {
                "terminal_observation": infos["final_obs"][place],
                "TimeLimit.truncated": bool(truncated[place] and not terminated[place]),
            }
            if "episode" in infos:
                whole = infos["episode"]
                score, length = float(whole["r"][place]), int(whole["l"][place])
                told[place]["episode"] = {"r": score, "l": length, "t": passed}
        return seen, rewards.astype(np.float32), ended, told

    def close(self) -> None:
        """Close what is wrapped."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute, the same for all sessions."""
        found = getattr(self if hasattr(type(self), attr_name) or attr_name in vars(self)
                        else self.envs, attr_name)  # fmt: skip
        return [found for _ in self._places(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of all sessions."""
        setattr(self.envs, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
        """Refuse: sessions have no methods of their own."""
        raise ConfigError(f"sessions have no method '{method_name}' of their own; call the batch's")

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Return that no session is wrapped."""
        return [False for _ in self._places(indices)]

    def _places(self, indices: Any) -> Iterable[int]:
        found: Iterable[int] = self._get_indices(indices)
        return found
