"""Users alone as a Gymnasium environment: one agent hands in slates.

Importing :mod:`marec_env.users` registers ``marec/slate-v0``:

>>> import gymnasium, marec_env.users
>>> envs = gymnasium.make_vec("marec/slate-v0", num_envs=4, preset="sardine/SlateTopK-Bored")
>>> observation, info = envs.reset(seed=0)
>>> observation.shape
(4, 33)

Observation (float32, what a recommender can see): per topic, the running mean of the slate's share
and of the clicks (half-life about two requests), the clicks by position of the last slate, its
engagement, the share of the horizon gone, whether the user is new; where a request offers
candidates, their topics, one-hot; with ``privileged=True``, the users' hidden state at the end.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from marec_env import random
from marec_env.classic.presets import Preset, get_preset
from marec_env.classic.rollout import offer, reward_of
from marec_env.errors import ConfigError

_MEMORY = 0.75  # of the running means; the exposure memory of the preset ``marec``
_EPISODE = 1 << 32  # session numbers of an environment's episodes lie this far apart

_Array = NDArray[Any]


class SlateVectorEnv(VectorEnv[_Array, _Array, _Array]):
    """``num_envs`` users stepped at once; an ended episode restarts in the same step.

    An action is a slate of item numbers, or of places among the candidates where a request offers
    candidates. Items may repeat. The observation before an autoreset is ``infos["final_obs"]``.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012
    _autoreset = True

    def __init__(
        self,
        num_envs: int = 1,
        preset: str | Preset = "marec",
        *,
        as_published: bool = False,
        slate_size: int | None = None,
        horizon: int | None = None,
        privileged: bool = False,
        population_seed: int = 0,
        device: str = "cpu",
    ) -> None:
        """Args:
        num_envs: sessions side by side, at least 1.
        preset: a name in :data:`marec_env.classic.presets.PRESETS`, or a preset.
        as_published: see :func:`marec_env.classic.presets.get_preset`.
        slate_size: K, if not the preset's; likewise ``horizon``, requests until truncation.
        privileged: whether the hidden state is observed as well.
        population_seed: of the preset's population.
        device: where users are simulated; observations are NumPy arrays all the same.

        Raises:
            ConfigError: an unknown preset or a size out of range.
        """
        task = get_preset(preset, as_published) if isinstance(preset, str) else preset
        self._task = task
        self._slate_size = task.slate_size if slate_size is None else slate_size
        self._horizon = task.horizon if horizon is None else horizon
        self._users = task.users(num_envs, population_seed, device)
        self._topics = self._users.population.topics
        self._num_topics = self._users.population.num_topics
        self._privileged = privileged
        self._device = torch.device(device)
        choices = task.candidates or self._users.num_items
        if not 1 <= self._slate_size <= choices:
            raise ConfigError(
                f"slate_size is {self._slate_size}; allowed: 1 ... {choices}, the items on offer"
            )
        if self._horizon < 1:
            raise ConfigError(f"horizon is {self._horizon}; allowed: at least 1")

        self.num_envs = num_envs
        size = 2 * self._num_topics + self._slate_size + 3 + task.candidates * self._num_topics
        size += self._users.hidden_size if privileged else 0
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.single_action_space = spaces.MultiDiscrete([choices] * self._slate_size)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

        self._seed = 0
        zeros = torch.zeros(num_envs, self._num_topics, device=self._device)
        self._shown, self._clicked = zeros.clone(), zeros.clone()
        self._last = torch.zeros(num_envs, self._slate_size + 1, device=self._device)
        self._length = torch.zeros(num_envs, dtype=torch.int64, device=self._device)
        self._episodes = torch.zeros_like(self._length)
        self._keys = torch.zeros_like(self._length)
        self._offer = offer(self._users, self._keys, task.candidates)
        self._started = False

    def _begin(self, where: Tensor) -> None:
        place = torch.arange(self.num_envs, device=self._device)
        keys = random.session_keys(self._seed, place + self._episodes * _EPISODE)
        self._keys = torch.where(where, keys, self._keys)
        self._users.reset(self._keys, where)
        for part in (self._shown, self._clicked, self._last):
            part *= (~where).unsqueeze(1)
        self._length *= ~where

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[_Array, dict[str, Any]]:
        """Begin a new episode everywhere, without a ``seed`` the present seed's next one; it is one
        for all environments, since sessions differ by their place.
        """
        del options
        if isinstance(seed, list):
            raise ConfigError("seed is a list; allowed: one number, environments differ by place")
        if seed is not None:
            self._seed = random.whole_seed(seed)
            self._episodes.zero_()
        elif self._started:
            self._episodes += 1
        else:
            super().reset(seed=None)
            self._seed = int(self.np_random.integers(1 << 31))
        self._started = True
        self._begin(torch.ones(self.num_envs, dtype=torch.bool, device=self._device))
        return self._observation(), self._info()

    def step(self, actions: _Array) -> tuple[_Array, _Array, _Array, _Array, dict[str, Any]]:
        """Show one slate to every user; rewards are those of the preset."""
        slate = torch.as_tensor(np.asarray(actions), dtype=torch.int64, device=self._device)
        if slate.shape != (self.num_envs, self._slate_size):
            raise ConfigError(
                f"actions have shape {tuple(slate.shape)}; "
                f"allowed: {(self.num_envs, self._slate_size)}"
            )
        least, most = int(slate.min()), int(slate.max())
        if least < 0 or most >= self._offer.shape[1]:
            raise ConfigError(
                f"actions hold {least} ... {most}; allowed: 0 ... {self._offer.shape[1] - 1}"
            )
        slate = self._offer.gather(1, slate) if self._task.candidates else slate
        feedback = self._users.respond(slate)
        topics = self._topics[slate]
        share = torch.full_like(feedback.clicks, 1.0 / self._slate_size)
        self._shown.mul_(_MEMORY).scatter_add_(1, topics, (1 - _MEMORY) * share)
        self._clicked.mul_(_MEMORY).scatter_add_(1, topics, (1 - _MEMORY) * share * feedback.clicks)
        self._last = torch.cat([feedback.clicks, feedback.engagement.unsqueeze(1)], dim=1)
        self._length += 1
        rewards = reward_of(feedback, self._task.reward)
        terminated = feedback.left
        truncated = (self._length >= self._horizon) & ~terminated
        ended = terminated | truncated
        infos: dict[str, Any] = {}
        if self._autoreset and bool(ended.any()):
            infos = {"final_obs": self._observation(), "_final_obs": ended.cpu().numpy()}
            self._episodes += ended
            self._begin(ended)
        found = self._observation()
        infos |= self._info() | {"satisfaction": feedback.satisfaction.cpu().numpy()}
        return (
            found,
            rewards.cpu().numpy().astype(np.float64),
            terminated.cpu().numpy(),
            truncated.cpu().numpy(),
            infos,
        )

    def _observation(self) -> _Array:
        """Return what is seen of the next request, whose offer is made."""
        self._offer = offer(self._users, self._keys, self._task.candidates)
        parts = [
            self._shown,
            self._clicked,
            self._last,
            (self._length / self._horizon).unsqueeze(1),
            self._users.is_new.to(torch.float32).unsqueeze(1),
        ]
        if self._task.candidates:
            kinds = torch.nn.functional.one_hot(self._topics[self._offer], self._num_topics)
            parts.append(kinds.to(torch.float32).flatten(1))
        if self._privileged:
            parts.append(self._users.hidden_state())
        found: _Array = torch.cat(parts, dim=1).cpu().numpy()
        return found

    def _info(self) -> dict[str, Any]:
        """Return the items on offer, where they are not the whole catalog."""
        if not self._task.candidates:
            return {}
        return {"candidates": self._offer.cpu().numpy().copy()}


class SlateEnv(gymnasium.Env[_Array, _Array]):
    """One user; arguments as for :class:`SlateVectorEnv`."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, preset: str | Preset = "marec", **arguments: Any) -> None:
        """See :class:`SlateVectorEnv`."""
        self._batch = SlateVectorEnv(1, preset, **arguments)
        self._batch._autoreset = False
        self.observation_space = self._batch.single_observation_space
        self.action_space = self._batch.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[_Array, dict[str, Any]]:
        """Begin a new episode."""
        super().reset(seed=seed)
        observations, infos = self._batch.reset(seed=seed, options=options)
        return observations[0], {name: value[0] for name, value in infos.items()}

    def step(self, action: _Array) -> tuple[_Array, float, bool, bool, dict[str, Any]]:
        """Show one slate; after the end of an episode call :meth:`reset`."""
        observations, *told, infos = self._batch.step(np.asarray(action)[None])
        reward, terminated, truncated = (part[0].item() for part in told)
        info = {name: value[0] for name, value in infos.items()}
        return observations[0], reward, terminated, truncated, info


gymnasium.register(
    id="marec/slate-v0",
    entry_point="marec_env.classic.slate_env:SlateEnv",
    vector_entry_point="marec_env.classic.slate_env:SlateVectorEnv",
)
