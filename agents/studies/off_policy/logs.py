"""Logs of an exploring team, and the simulator's truth about another team in the same states.

Contexts are the states that the logging team brings about. A component's log asks: what would a
request earn if this component acted by the target and all others as logged? The slates' log asks it
of the slate: both policies draw slates by Plackett-Luce over the logged candidates, from the
standardised scores that their ranking component gives them, at :data:`SLATE_TEMPERATURE`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from agents.learners.distributions import distribution_for
from agents.learners.policy import TrainedPolicy
from agents.studies.explain.team import OpenTeam
from marec_env import random
from marec_env.evaluation.off_policy import (
    plackett_luce_log_probability,
    prefix_ratios,
)
from marec_env.pipeline.ranking import standardised
from marec_env.pipeline.request import Request
from marec_env.pipeline.topk import top_k
from marec_env.simulator import Simulator
from marec_env.vector import VecStep
from marec_env.world import World

__all__ = ["RANKING", "SLATE", "SLATE_TEMPERATURE", "RequestLog", "record_logs", "rescaled"]

SLATE = "slate"
"""The log of whole slates; the others are named after their agents."""
RANKING = "ranking_0"
"""The agent whose scores slates are drawn from."""
SLATE_TEMPERATURE = 2.0
"""Standard deviations of the candidates' scores: slates vary enough to tell of other rankers."""
TARGET_DRAWS = 4  # of the target for each request, over which a model's value is a mean

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RequestLog:
    """``n`` requests with ``P`` rewards each: clicks by position (P = K), or in all (P = 1)."""

    session: NDArray[np.int64]
    """``[n]``."""
    reward: Floats
    """``[n, P]``."""
    ratio: Floats
    """``[n, 1]``: target over logging probability of the action, or of the whole slate."""
    cascade: Floats
    """``[n, P]``: the same of a slate's places down to each; of a component as ``ratio``."""
    features: Floats
    """``[n, P, f]``: what a reward model reads of what was done."""
    target_features: Floats
    """``[n, TARGET_DRAWS, P, f]``: the same of what the target would do."""
    truth: Floats
    """``[n]``: clicks that the target got in the same state."""

    def select(self, rows: NDArray[Any]) -> RequestLog:
        """Return the requests of a bool mask or of int rows."""
        return RequestLog(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def record_logs(
    world: World,
    logging: TrainedPolicy,
    target: TrainedPolicy,
    sessions: int,
    requests: int,
    seed: int,
    exploration: float = 1.0,
) -> dict[str, RequestLog]:
    """Let the logging team play, and record a log for each component and one for slates.

    Args:
        world: of the environment.
        logging: draws its actions, so that every probability is known.
        target: of the same components; draws as well.
        sessions: in all, played at once.
        requests: of each session at most.
        seed: of the sessions.
        exploration: factor on the target's standard deviations and temperatures.

    Returns:
        By agent, and :data:`SLATE` where the pipeline has a ranking component.
    """
    play = _Play(world, OpenTeam(logging), OpenTeam(target), sessions, exploration)
    play.simulator.begin(torch.arange(sessions), seed)
    rows: dict[str, list[dict[str, Tensor]]] = {}
    alive = torch.ones(sessions, dtype=torch.bool, device=play.simulator.device)
    for _ in range(requests):
        found, ended = play.request()
        for name, row in found.items():
            rows.setdefault(name, []).append({k: v[alive].cpu() for k, v in row.items()})
        alive = alive & ~ended
        if not bool(alive.any()):
            break
    return {name: _join(parts) for name, parts in rows.items()}


def _join(parts: list[dict[str, Tensor]]) -> RequestLog:
    joined = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
    session = joined.pop("session").astype(np.int64)
    return RequestLog(session=session, **{k: v.astype(np.float64) for k, v in joined.items()})


class _Play:
    """A simulator in which a logging team plays, and in each state the target on the side."""

    def __init__(
        self, world: World, logging: OpenTeam, target: OpenTeam, sessions: int, exploration: float
    ) -> None:
        self.simulator = Simulator(world, sessions, autoreset=False)
        self.logging, self.target, self.exploration = logging, target, exploration
        self.memory: dict[str, Tensor] = {}
        self.target_memory: dict[str, Tensor] = {}

    def request(self) -> tuple[dict[str, dict[str, Tensor]], Tensor]:
        """Answer one request; return what the logs get of it, and whose session ended."""
        simulator = self.simulator
        before = simulator.state_dict()
        statistics = simulator.pipeline.fields()["session"]
        turn = self._turn({})
        after = simulator.state_dict()
        assert simulator.last is not None
        request, clicks = simulator.last.request, simulator.last.feedback.clicks
        rows, target_memory = {}, {}
        for agent in self.logging.agents:
            seen = self.target.join(agent, turn.observations[agent], self.target_memory)
            parameters, memory = self._target_parameters(agent, seen)
            if memory is not None:
                target_memory[agent] = memory
            row = self._component(agent, turn, parameters, before)
            rows[agent] = {**row, "reward": clicks.sum(dim=1, keepdim=True)}
            if agent == RANKING and request.slate_logits is not None:
                mode = self.target.distribution(agent).mode(parameters)
                rows[SLATE] = self._slate(statistics, request, mode, before)
        numbers = torch.arange(simulator.num_envs, device=simulator.device)
        simulator.load_state_dict(after)
        self.memory, self.target_memory = turn.memory, target_memory
        ended = turn.step.terminated | turn.step.truncated
        return {name: {**row, "session": numbers} for name, row in rows.items()}, ended

    def _target_parameters(self, agent: str, seen: Tensor) -> tuple[Tensor, Tensor | None]:
        with torch.no_grad():
            parameters, memory = self.target.forward(agent, seen)
        space = self.simulator.action_spaces[agent]
        return rescaled(space, parameters, self.exploration), memory

    def _turn(self, overruled: Mapping[str, Tensor]) -> _Turn:
        """Answer the request by the logging team's draws, but for overruled flat actions."""
        simulator, team = self.simulator, self.logging
        found = _Turn()
        for turn in simulator.turns:
            actions = {}
            for agent in turn:
                observation = simulator.observe(agent)
                inputs = team.join(agent, observation, self.memory)
                with torch.no_grad():
                    parameters, memory = team.forward(agent, inputs)
                flat = self._draw(agent, parameters, "logged")
                found.observations[agent], found.inputs[agent] = observation, inputs
                found.parameters[agent], found.flat[agent] = parameters, flat
                if memory is not None:
                    found.memory[agent] = memory
                chosen = overruled.get(agent, flat)
                actions[agent] = team.distribution(agent).to_env(chosen)
            simulator.act(actions)
        found.step = simulator.advance()
        return found

    def _draw(self, agent: str, parameters: Tensor, stream: str) -> Tensor:
        distribution = self.logging.distribution(agent)
        uniforms = random.uniform(
            self.simulator.session_keys,
            self.simulator.pipeline.memory.requests,
            f"off_policy/{stream}/{agent}",
            distribution.num_uniforms,
        )
        return distribution.sample(parameters, uniforms)

    def _component(
        self, agent: str, turn: _Turn, parameters: Tensor, before: dict[str, Any]
    ) -> dict[str, Tensor]:
        distribution = self.logging.distribution(agent)
        logged, _ = distribution.evaluate(turn.parameters[agent], turn.flat[agent])
        wanted, _ = distribution.evaluate(parameters, turn.flat[agent])
        ratio = torch.exp(wanted - logged).unsqueeze(1)
        self.simulator.load_state_dict(before)
        draws = [self._draw(agent, parameters, f"target{k}") for k in range(TARGET_DRAWS)]
        truth = self._turn({agent: draws[0]}).step.metrics["clicks"]

        def features(flat: Tensor) -> Tensor:
            parts = [turn.inputs[agent], flat, flat.square()]
            return torch.cat(parts, dim=1).unsqueeze(1)

        return {
            "ratio": ratio,
            "cascade": ratio,
            "features": features(turn.flat[agent]),
            "target_features": torch.stack([features(flat) for flat in draws], dim=1),
            "truth": truth,
        }

    def _slate(
        self, statistics: Tensor, request: Request, target: Tensor, before: dict[str, Any]
    ) -> dict[str, Tensor]:
        """Show slates drawn by standardised scores: of the logged ranking, and of the target's."""
        simulator = self.simulator
        simulator.load_state_dict(before)
        self._turn({RANKING: target})
        assert simulator.last is not None
        theirs = simulator.last.request
        assert request.slate_logits is not None and theirs.slate_logits is not None
        assert request.candidates is not None and theirs.candidates is not None
        assert torch.equal(request.candidates, theirs.candidates)  # all stages before act alike
        ours = standardised(request.slate_logits) / SLATE_TEMPERATURE
        heat = SLATE_TEMPERATURE * self.exploration
        wanted = standardised(theirs.slate_logits) / heat
        picks, clicks = self._show(before, request.candidates, ours, "slate/logged")
        log_target = plackett_luce_log_probability(wanted.cpu().numpy(), picks.cpu().numpy())
        log_logging = plackett_luce_log_probability(ours.cpu().numpy(), picks.cpu().numpy())
        cascade = torch.as_tensor(prefix_ratios(log_target, log_logging))
        places = torch.eye(picks.shape[1], device=picks.device).expand(picks.shape[0], -1, -1)
        user = statistics.unsqueeze(1).expand(-1, picks.shape[1], -1)
        table = [ours.unsqueeze(2), wanted.unsqueeze(2)]
        if request.blocks is not None:
            table.append(request.blocks)
        scores = torch.cat(table, dim=2)  # [B, C, .]

        def features(chosen: Tensor) -> Tensor:
            index = chosen.unsqueeze(2).expand(-1, -1, scores.shape[2])
            return torch.cat([scores.gather(1, index), places, user], dim=2)

        size = picks.shape[1]
        draws = [self._picks(wanted, f"slate/target{k}", size) for k in range(TARGET_DRAWS)]
        _, truth = self._show(before, request.candidates, wanted, "slate/target0")
        return {
            "reward": clicks,
            "ratio": cascade[:, -1:],
            "cascade": cascade,
            "features": features(picks),
            "target_features": torch.stack([features(chosen) for chosen in draws], dim=1),
            "truth": truth.sum(dim=1),
        }

    def _picks(self, scores: Tensor, stream: str, size: int) -> Tensor:
        keys, step = self.simulator.session_keys, self.simulator.pipeline.memory.requests
        noise = random.gumbel(keys, step, f"off_policy/{stream}", scores.shape[1])
        return top_k(scores + noise, size)

    def _show(
        self, before: dict[str, Any], candidates: Tensor, scores: Tensor, stream: str
    ) -> tuple[Tensor, Tensor]:
        """Return the columns drawn and the clicks they got, ``[B, K]`` each."""
        simulator = self.simulator
        simulator.load_state_dict(before)
        picks = self._picks(scores, stream, simulator.config.pipeline.slate_size)
        simulator.step_slate(candidates.gather(1, picks))
        assert simulator.last is not None
        clicks = simulator.last.feedback.clicks
        simulator.load_state_dict(before)
        return picks, clicks


class _Turn:
    """What one request of the logging team was made of."""

    def __init__(self) -> None:
        self.observations: dict[str, Tensor] = {}
        self.inputs: dict[str, Tensor] = {}
        self.parameters: dict[str, Tensor] = {}
        self.flat: dict[str, Tensor] = {}
        self.memory: dict[str, Tensor] = {}
        self.step: VecStep


def rescaled(space: spaces.Space[Any], parameters: Tensor, factor: float) -> Tensor:
    """Return parameters whose distribution explores ``factor`` times as much.

    Box: standard deviations are multiplied. Discrete kinds: logits are divided (temperature).

    Args:
        space: the action space of one session.
        parameters: of the actor's distribution, ``[n, num_inputs]``.
        factor: > 0.
    """
    if isinstance(space, spaces.Box):
        mean, log_std = parameters.chunk(2, dim=-1)
        return torch.cat([mean, log_std + math.log(factor)], dim=-1)
    if isinstance(space, spaces.Tuple):
        sizes = [distribution_for(part).num_inputs for part in space]
        pieces = torch.split(parameters, sizes, dim=-1)
        return torch.cat([rescaled(p, x, factor) for p, x in zip(space, pieces, strict=True)], -1)
    return parameters / factor
