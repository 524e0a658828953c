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
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from agents.learners.policy import TrainedPolicy
from agents.studies.explain.team import OpenTeam, by_part
from marec_env import random
from marec_env.evaluation.off_policy import plackett_luce_log_probability, prefix_ratios
from marec_env.pipeline.ranking import standardised
from marec_env.pipeline.request import Request
from marec_env.pipeline.topk import top_k
from marec_env.rewards.terms import Outcome
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
    cascade: Floats
    """``[n, P]``: target over logging probability of the action, or of a slate's places down to
    each."""
    features: Floats
    """``[n, P, f]``: what a reward model reads of what was done."""
    target_features: Floats
    """``[n, TARGET_DRAWS, P, f]``: the same of what the target would do."""
    truth: Floats
    """``[n]``: clicks that the target got in the same state."""

    @property
    def ratio(self) -> Floats:
        """Target over logging probability of the action, or of the whole slate, ``[n, 1]``."""
        return self.cascade[:, -1:]

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
    """Let a team play, and return a log for each component (by agent), and one for slates where the
    pipeline has a ranking component.

    Args:
        world: of the environment.
        logging: draws its actions, so that every probability is known.
        target: of the same components; draws as well.
        sessions: in all, played at once.
        requests: of each session at most.
        seed: of the sessions.
        exploration: factor on the target's standard deviations and temperatures.
    """
    play = _Play(world, OpenTeam(logging), OpenTeam(target), sessions, exploration)
    play.simulator.begin(torch.arange(sessions), seed)
    rows: dict[str, list[dict[str, Floats]]] = {}
    alive = torch.ones(sessions, dtype=torch.bool, device=play.simulator.device)
    numbers = torch.arange(sessions, device=play.simulator.device)
    for _ in range(requests):
        found, ended = play.request()
        for name, row in found.items():
            kept = {k: v[alive].cpu().double().numpy() for k, v in row.items()}
            kept["session"] = numbers[alive].cpu().numpy()
            rows.setdefault(name, []).append(kept)
        alive = alive & ~ended
        if not bool(alive.any()):
            break
    return {
        name: RequestLog(**{k: np.concatenate([part[k] for part in parts]) for k in parts[0]})
        for name, parts in rows.items()
    }


class _Turn(NamedTuple):
    """What one request of the logging team was made of, by agent."""

    observations: dict[str, Tensor]
    inputs: dict[str, Tensor]
    parameters: dict[str, Tensor]
    flat: dict[str, Tensor]
    memory: dict[str, Tensor]
    step: VecStep
    outcome: Outcome


class _Play:
    """A simulator in which a logging team plays, and in each state the target on the side."""

    def __init__(
        self, world: World, logging: OpenTeam, target: OpenTeam, sessions: int, exploration: float
    ) -> None:
        self.simulator = Simulator(world, sessions, autoreset=False)
        self.logging, self.target, self.exploration = logging, target, exploration
        self.memory: dict[str, Tensor] = {}
        self.target_memory: dict[str, Tensor] = {}

    @torch.no_grad()
    def request(self) -> tuple[dict[str, dict[str, Tensor]], Tensor]:
        """Answer one request; return what the logs get of it, and whose session ended."""
        simulator = self.simulator
        before = simulator.state_dict()
        statistics = simulator.pipeline.fields()["session"]
        turn = self._turn({})
        after = simulator.state_dict()
        rows, target_memory = {}, {}
        for agent in self.logging.agents:
            seen = self.target.join(agent, turn.observations[agent], self.target_memory)
            parameters, memory = self.target.forward(agent, seen)
            parameters = rescaled(simulator.action_spaces[agent], parameters, self.exploration)
            if memory is not None:
                target_memory[agent] = memory
            rows[agent] = self._component(agent, turn, parameters, before)
            if agent == RANKING and turn.outcome.request.slate_logits is not None:
                mode = self.target.distribution(agent).mode(parameters)
                rows[SLATE] = self._slate(statistics, turn.outcome.request, mode, before)
        simulator.load_state_dict(after)
        self.memory, self.target_memory = turn.memory, target_memory
        return rows, turn.step.terminated | turn.step.truncated

    def _turn(self, overruled: Mapping[str, Tensor]) -> _Turn:
        """Answer the request by the logging team's draws, but for overruled flat actions."""
        simulator, team = self.simulator, self.logging
        observations, inputs, parameters, flat, memory = ({} for _ in range(5))
        for turn in simulator.turns:
            actions = {}
            for agent in turn:
                observations[agent] = simulator.observe(agent)
                inputs[agent] = team.join(agent, observations[agent], self.memory)
                parameters[agent], after = team.forward(agent, inputs[agent])
                flat[agent] = self._draw(agent, parameters[agent], "logged")
                if after is not None:
                    memory[agent] = after
                chosen = overruled.get(agent, flat[agent])
                actions[agent] = team.distribution(agent).to_env(chosen)
            simulator.act(actions)
        step = simulator.advance()
        assert simulator.last is not None
        return _Turn(observations, inputs, parameters, flat, memory, step, simulator.last)

    def _draw(self, agent: str, parameters: Tensor, stream: str) -> Tensor:
        distribution, simulator = self.logging.distribution(agent), self.simulator
        uniforms = random.uniform(
            simulator.session_keys,
            simulator.pipeline.memory.requests,
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
        self.simulator.load_state_dict(before)
        draws = [self._draw(agent, parameters, f"target{k}") for k in range(TARGET_DRAWS)]
        truth = self._turn({agent: draws[0]}).step.metrics["clicks"]

        def features(flat: Tensor) -> Tensor:
            parts = [turn.inputs[agent], flat, flat.square()]
            return torch.cat(parts, dim=1).unsqueeze(1)

        return {
            "reward": turn.outcome.feedback.clicks.sum(dim=1, keepdim=True),
            "cascade": torch.exp(wanted - logged).unsqueeze(1),
            "features": features(turn.flat[agent]),
            "target_features": torch.stack([features(flat) for flat in draws], dim=1),
            "truth": truth,
        }

    def _slate(
        self, statistics: Tensor, request: Request, target: Tensor, before: dict[str, Any]
    ) -> dict[str, Tensor]:
        """Show slates drawn by standardised scores: of the logged ranking, and of the target's."""
        self.simulator.load_state_dict(before)
        theirs = self._turn({RANKING: target}).outcome.request
        assert request.slate_logits is not None and theirs.slate_logits is not None
        assert request.candidates is not None and theirs.candidates is not None
        assert torch.equal(request.candidates, theirs.candidates)  # all stages before act alike
        ours = standardised(request.slate_logits) / SLATE_TEMPERATURE
        wanted = standardised(theirs.slate_logits) / (SLATE_TEMPERATURE * self.exploration)
        picks, clicks = self._show(before, request.candidates, ours, "slate/logged")
        log_target, log_logging = (
            plackett_luce_log_probability(scores.cpu().numpy(), picks.cpu().numpy())
            for scores in (wanted, ours)
        )
        size = picks.shape[1]
        places = torch.eye(size, device=picks.device).expand(picks.shape[0], -1, -1)
        user = statistics.unsqueeze(1).expand(-1, size, -1)
        blocks = [] if request.blocks is None else [request.blocks]
        scores = torch.cat([ours.unsqueeze(2), wanted.unsqueeze(2), *blocks], dim=2)  # [B, C, .]

        def features(chosen: Tensor) -> Tensor:
            index = chosen.unsqueeze(2).expand(-1, -1, scores.shape[2])
            return torch.cat([scores.gather(1, index), places, user], dim=2)

        draws = [self._picks(wanted, f"slate/target{k}", size) for k in range(TARGET_DRAWS)]
        _, truth = self._show(before, request.candidates, wanted, "slate/target0")
        return {
            "reward": clicks,
            "cascade": torch.as_tensor(prefix_ratios(log_target, log_logging), device=picks.device),
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


def rescaled(space: spaces.Space[Any], parameters: Tensor, factor: float) -> Tensor:
    """Return an actor's parameters ``[n, num_inputs]`` that explore ``factor`` > 0 times as much.

    Box: standard deviations are multiplied. Discrete kinds: logits are divided (temperature).
    """

    def wider(part: spaces.Space[Any], piece: Tensor) -> Tensor:
        if not isinstance(part, spaces.Box):
            return piece / factor
        mean, log_std = piece.chunk(2, dim=-1)
        return torch.cat([mean, log_std + math.log(factor)], dim=-1)

    return by_part(space, parameters, wider)
