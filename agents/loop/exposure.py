"""The exposure log: what an exploring team saw, did with which probability, and what was clicked.

One file of tensors, sessions first: whoever made it, a service or a simulator, learning and
estimates read it alike.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from agents.learners.collector import Rollout
from agents.learners.policy import TrainedPolicy
from agents.learners.team import TeamSpec
from marec_env import random
from marec_env.errors import DataError, visible
from marec_env.io import write_bytes
from marec_env.rewards.config import RewardConfig
from marec_env.simulator import Simulator

FORMAT = 2
"""Version of the layout; a change that old code cannot read raises it."""
_HELD_OUT = "loop/held_out"
_COLUMNS = ("observations", "actions", "log_probabilities")
_TEAM = ("key", "length", "left", "clicks", "slate")


@dataclass(frozen=True, slots=True)
class ExposureLog:
    """``S`` sessions of ``T`` requests at most, ``K`` items a slate; zeros beyond a session's end.

    A request that was answered is one whose slate was shown; what was not clicked by the session's
    end never was.
    """

    key: Tensor
    """Int64 ``[S]``: the sessions' keys, from which all their draws follow."""
    length: Tensor
    """Int64 ``[S]``: requests answered."""
    left: Tensor
    """Bool ``[S]``: the user left after the last of them; else the session was cut off there."""
    clicks: Tensor
    """Float32 ``[S, T, K]``."""
    slate: Tensor
    """Int64 ``[S, T, K]``: what was shown, as places in ``items``."""
    items: tuple[str, ...]
    """Identifiers."""
    attributes: dict[str, Tensor]
    """By name, float32 ``[S]``: users' own limits, as they were given; infinite where none was."""
    observations: dict[str, Tensor]
    """Per agent, float32 ``[S, T, d]``: what it decided on."""
    actions: dict[str, Tensor]
    """Per agent, float32 ``[S, T, n]``: what it decided, flat."""
    log_probabilities: dict[str, Tensor]
    """Per agent, float32 ``[S, T]``: of that decision, by the policy that made it."""

    @property
    def agents(self) -> tuple[str, ...]:
        """Those that decided."""
        return tuple(self.observations)

    @property
    def state(self) -> Tensor:
        """Float32 ``[S, T, s]``: all that the components saw, for a critic."""
        return torch.cat(list(self.observations.values()), dim=2)

    @property
    def live(self) -> Tensor:
        """Bool ``[S, T]``: where there was a request."""
        return torch.arange(self.clicks.shape[1]) < self.length.unsqueeze(1)

    def places(self, ids: Sequence[str]) -> Tensor:
        """Return what was shown as places among ``ids``, int64 ``[S, T, K]``.

        Raises:
            DataError: an item is not there.
        """
        there = {name: place for place, name in enumerate(ids)}
        if missing := [name for name in self.items if name not in there]:
            raise DataError(
                f"the log shows item '{visible(missing[0])}', which is not in the catalog here; "
                "take log and team, or users, of one catalog"
            )
        return torch.tensor([there[name] for name in self.items])[self.slate]

    def clicks_a_session(self) -> Tensor:
        """Return float32 ``[S]``."""
        return self.clicks.sum(dim=(1, 2))

    def ended(self, longest: int) -> Tensor:
        """Return the clicks of each session that has ended, float32 ``[n]``: those under way count
        for nothing yet. ``longest`` is the number of requests after which one ends by itself.
        """
        return self.clicks_a_session()[self.left | (self.length >= longest)]

    def select(self, sessions: Tensor) -> ExposureLog:
        """Return some sessions, by a bool mask ``[S]`` or int64 places."""
        tables: dict[str, Any] = {
            name: {agent: column[sessions] for agent, column in getattr(self, name).items()}
            for name in _COLUMNS
        }
        tables |= {name: getattr(self, name)[sessions] for name in _TEAM}
        tables["attributes"] = {name: limit[sessions] for name, limit in self.attributes.items()}
        return replace(self, **tables)

    def split(self, share: float, seed: int = 0) -> tuple[ExposureLog, ExposureLog]:
        """Return the sessions to learn from, and a ``share`` that is held out, told by their keys:
        a session is on one side whatever else is in the log.
        """
        draw = random.uniform(self.key ^ seed, 0, _HELD_OUT, 1).squeeze(1)
        return self.select(draw >= share), self.select(draw < share)

    @classmethod
    def joined(cls, logs: Sequence[ExposureLog]) -> ExposureLog:
        """Return several logs of one team, over one list of items, as one."""
        longest = max(log.clicks.shape[1] for log in logs)

        def padded(values: Tensor) -> Tensor:
            more = values.new_zeros(values.shape[0], longest - values.shape[1], *values.shape[2:])
            return torch.cat([values, more], dim=1)

        tables: dict[str, Any] = {
            name: torch.cat([getattr(log, name) for log in logs]) for name in _TEAM[:3]
        }
        tables |= {
            name: torch.cat([padded(getattr(log, name)) for log in logs]) for name in _TEAM[3:]
        }
        for name in _COLUMNS:
            tables[name] = {
                agent: torch.cat([padded(getattr(log, name)[agent]) for log in logs])
                for agent in logs[0].agents
            }
        tables["attributes"] = {
            name: torch.cat([log.attributes[name] for log in logs]) for name in logs[0].attributes
        }
        return replace(logs[0], **tables)

    def save(self, path: Path) -> None:
        """Write one file of tensors that :meth:`load` reads."""
        tensors = {name: getattr(self, name) for name in _TEAM}
        for name in _COLUMNS:
            tensors |= {f"{name}/{agent}": t for agent, t in getattr(self, name).items()}
        tensors |= {f"attributes/{name}": limit for name, limit in self.attributes.items()}
        owned = {name: value.contiguous() for name, value in tensors.items()}
        told = {
            "format": FORMAT, "agents": self.agents, "items": self.items,
            "attributes": [*self.attributes],
        }  # fmt: skip
        about = {"exposure_log": json.dumps(told)}
        write_bytes(path, save(owned, about))

    @classmethod
    def load(cls, path: Path) -> ExposureLog:
        """Return what :meth:`save` wrote.

        Raises:
            DataError: it is no exposure log, damaged, or of a newer format.
        """
        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {}).get("exposure_log", "{}"))
                if about.get("format") != FORMAT:
                    raise DataError(
                        f"{path} is no exposure log that this version reads (format "
                        f"{about.get('format')}, not {FORMAT}); make one with 'marec events'"
                    )
                team = {name: file.get_tensor(name) for name in _TEAM}
                tables: dict[str, Any] = {
                    name: {agent: file.get_tensor(f"{name}/{agent}") for agent in about["agents"]}
                    for name in _COLUMNS
                }
                tables["attributes"] = {
                    name: file.get_tensor(f"attributes/{name}") for name in about["attributes"]
                }
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"cannot read the exposure log {path}: {reason}") from error
        return cls(**team, **tables, items=tuple(about["items"]))

    def require_team(self, team: TeamSpec) -> None:
        """Refuse a log of another team's decisions.

        Raises:
            DataError: agents or sizes differ.
        """
        sizes = {agent: column.shape[2] for agent, column in self.observations.items()}
        wanted = {agent: int(team.observation_spaces[agent].shape[0]) for agent in team.agents}
        if sizes != wanted:
            raise DataError(
                f"the log is of another team: its components saw {sizes} numbers, the policy's see "
                f"{wanted}; take the log of the version that was served"
            )


def as_rollout(log: ExposureLog, rewards: RewardConfig) -> Rollout:
    """Return a log as the experience that learners take, a row a session.

    The reward is what a service knows of F: the share of the slate clicked, weighted as the ranking
    component's objective, and staying, weighted as the term ``retention``. What only a simulator
    knows is left out.
    """
    live, last = log.live, log.live.clone()
    last[:, :-1] &= ~live[:, 1:]
    over = last | ~live
    terminated = (last & log.left.unsqueeze(1)) | ~live
    stays = live & ~(last & log.left.unsqueeze(1))
    reward = live * log.clicks.mean(dim=2) * rewards.weights.get("ranking", 1.0)
    reward = reward + stays * rewards.team.get("retention", 0.0)
    starts = torch.zeros_like(live)
    starts[:, 0] = True
    state = log.state
    following = torch.cat([state[:, 1:], state[:, -1:]], dim=1)
    team = {
        "state": state,
        # What came after a session that was cut off is not known: as good as before.
        "next_state": torch.where(last.unsqueeze(2), state, following),
        "terminated": terminated,
        "ended": over,
        "starts": starts,
    }
    agents = {
        agent: {
            "observations": log.observations[agent],
            "actions": log.actions[agent],
            "log_probabilities": log.log_probabilities[agent],
            "active": live,
            "rewards": reward,
            "terminated": terminated,
            "ended": over,
        }
        for agent in log.agents
    }
    return Rollout(team, agents)


@torch.no_grad()
def play_log(
    simulator: Simulator, policy: TrainedPolicy, sessions: Tensor, seed: int
) -> ExposureLog:
    """Return the log of a team that explores, of simulated sessions, one for each of the
    simulator's rows: what a service that the simulator's users visit would have logged.
    """
    simulator.begin(sessions, seed)
    policy.reset()
    limits = dict(zip(simulator.world.config.pipeline.audit.suitability.values(),
                      simulator.pipeline.memory.limits.clone().unbind(1), strict=True))  # fmt: skip
    rows: dict[str, list[Tensor]] = {}

    def note(name: str, value: Tensor) -> None:
        rows.setdefault(name, []).append(value * alive.view(-1, *[1] * (value.dim() - 1)))

    alive = torch.ones(simulator.num_envs, dtype=torch.bool)
    length, left = torch.zeros(simulator.num_envs, dtype=torch.int64), torch.zeros_like(alive)
    while bool(alive.any()):
        step_number = simulator.pipeline.memory.requests.clone()
        for turn in simulator.turns:
            seen = {agent: simulator.observe(agent) for agent in turn}
            keys = simulator.session_keys
            made = policy.decide(seen, {a: policy.draws(a, keys, step_number) for a in turn})
            for agent, decision in made.items():
                assert decision.log_probability is not None
                note(f"observations/{agent}", seen[agent])
                note(f"actions/{agent}", decision.flat)
                note(f"log_probabilities/{agent}", decision.log_probability)
            simulator.act({agent: decision.action for agent, decision in made.items()})
        step = simulator.advance()
        assert simulator.last is not None
        note("clicks", simulator.last.feedback.clicks)
        note("slate", simulator.last.slate)
        length += alive
        left |= alive & step.terminated
        alive = alive & ~(step.terminated | step.truncated)
    stacked = {name: torch.stack(values, dim=1) for name, values in rows.items()}
    tables = {
        name: {agent: stacked[f"{name}/{agent}"] for agent in simulator.agents} for name in _COLUMNS
    }
    return ExposureLog(
        key=simulator.session_keys.clone(),
        length=length,
        left=left,
        clicks=stacked["clicks"],
        slate=stacked["slate"],
        items=simulator.world.catalog.ids,
        attributes=limits,
        **tables,
    )
