"""Logs of an exploring team, and the simulator's truth about another team in the same states.

Contexts are the states that the logging team brings about. A component's log asks: what would a
request earn if this component acted by the target and all others as logged? The slates' log asks it
of the slate: both policies draw slates by Plackett-Luce over the logged candidates, from the
standardised scores that their ranking component gives them, at :data:`SLATE_TEMPERATURE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.learners.policy import TrainedPolicy
from agents.studies.explain.team import MaskedTeam, OpenTeam
from marec_env import random
from marec_env.evaluation.off_policy import plackett_luce_log_probability, prefix_ratios
from marec_env.evaluation.request_log import TARGET_DRAWS, Floats, RequestLog
from marec_env.evaluation.rollout import play_request
from marec_env.pipeline.ranking import standardised
from marec_env.pipeline.request import Request
from marec_env.pipeline.selection import top_k
from marec_env.rewards.terms import Outcome
from marec_env.simulator import Simulator
from marec_env.vector import VecStep
from marec_env.world import World

SLATE = "slate"
"""The log of whole slates; the others are named after their agents."""
RANKING = "ranking_0"
"""The agent whose scores slates are drawn from."""
SLATE_TEMPERATURE = 2.0
"""Standard deviations of the candidates' scores: slates vary enough to tell of other rankers."""


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

    Both teams draw their actions, so that every probability is known. Sessions are played at once,
    ``requests`` of each at most; ``exploration`` is a factor on the target's standard deviations
    and temperatures.
    """
    play = _Play(world, logging, target, sessions, exploration)
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


class _Play(MaskedTeam):
    """The logging team, which draws its actions, in its simulator, and the target on the side."""

    def __init__(
        self,
        world: World,
        logging: TrainedPolicy,
        target: TrainedPolicy,
        sessions: int,
        exploration: float,
    ) -> None:
        super().__init__(OpenTeam(logging))
        self.simulator = Simulator(world, sessions, autoreset=False)
        self.target, self.exploration = MaskedTeam(OpenTeam(target)), exploration
        self.flat: dict[str, Tensor] = {}
        """What was drawn in the latest request."""

    def choose(self, agent: str, parameters: Tensor) -> Tensor:
        """Draw, unless the action is given."""
        if agent not in self.overruled:
            self.flat[agent] = self._draw(agent, parameters, "logged")
        return self.overruled.get(agent, self.flat[agent])

    def _draw(self, agent: str, parameters: Tensor, stream: str) -> Tensor:
        distribution, simulator = self.team.actor(agent).distribution, self.simulator
        uniforms = random.uniform(
            simulator.session_keys,
            simulator.pipeline.memory.requests,
            f"off_policy/{stream}/{agent}",
            distribution.num_uniforms,
        )
        return distribution.sample(parameters, uniforms)

    @torch.no_grad()
    def request(self) -> tuple[dict[str, dict[str, Tensor]], Tensor]:
        """Answer one request; return what the logs get of it, and whose session ended."""
        simulator = self.simulator
        self.before = simulator.state_dict(), dict(self.memory)
        statistics = simulator.pipeline.fields()["session"]
        step, outcome = self._answer({})
        seen, flat, parameters = dict(self.seen), dict(self.flat), dict(self.parameters)
        after = simulator.state_dict(), self.memory
        sizes = {agent: simulator.observation_spaces[agent].shape[0] for agent in seen}
        self.target.act({agent: inputs[:, : sizes[agent]] for agent, inputs in seen.items()})
        rows = {}
        for agent, inputs in seen.items():
            distribution = self.team.actor(agent).distribution
            wanted = distribution.rescaled(self.target.parameters[agent], self.exploration)
            rows[agent] = self._component(agent, inputs, flat[agent], parameters[agent], wanted)
            rows[agent]["reward"] = outcome.feedback.clicks.sum(dim=1, keepdim=True)
            if agent == RANKING and outcome.request.slate_logits is not None:
                mode = distribution.mode(wanted)
                rows[SLATE] = self._slate(statistics, outcome.request, mode)
        self._restore(*after)
        return rows, step.terminated | step.truncated

    def _restore(self, state: dict[str, Any], memory: Mapping[str, Tensor]) -> None:
        self.simulator.load_state_dict(state)
        self.memory = dict(memory)

    def _answer(self, overruled: dict[str, Tensor]) -> tuple[VecStep, Outcome]:
        """Answer the request by the logging team's draws, but for overruled flat actions."""
        self._restore(*self.before)
        self.overruled = overruled
        step = play_request(self.simulator, self)
        assert self.simulator.last is not None
        return step, self.simulator.last

    def _component(
        self, agent: str, inputs: Tensor, flat: Tensor, parameters: Tensor, wanted: Tensor
    ) -> dict[str, Tensor]:
        """Return what a component's log gets, but for the reward; ``wanted`` are the target's
        parameters.
        """
        distribution = self.team.actor(agent).distribution
        of_log, of_target = (distribution.evaluate(p, flat)[0] for p in (parameters, wanted))
        self._restore(*self.before)
        draws = [self._draw(agent, wanted, f"target{k}") for k in range(TARGET_DRAWS)]
        truth = self._answer({agent: draws[0]})[0].metrics["clicks"]

        def features(made: Tensor) -> Tensor:
            return torch.cat([inputs, made, made.square()], dim=1).unsqueeze(1)

        return {
            "cascade": torch.exp(of_target - of_log).unsqueeze(1),
            "features": features(flat),
            "target_features": torch.stack([features(made) for made in draws], dim=1),
            "truth": truth,
        }

    def _slate(self, statistics: Tensor, request: Request, target: Tensor) -> dict[str, Tensor]:
        """Show slates drawn by standardised scores: of the logged ranking, and of the target's."""
        theirs = self._answer({RANKING: target})[1].request
        assert request.slate_logits is not None and theirs.slate_logits is not None
        assert request.candidates is not None and theirs.candidates is not None
        assert torch.equal(request.candidates, theirs.candidates)  # all stages before act alike
        ours = standardised(request.slate_logits) / SLATE_TEMPERATURE
        wanted = standardised(theirs.slate_logits) / (SLATE_TEMPERATURE * self.exploration)
        picks, clicks = self._show(request.candidates, ours, "slate/logged")
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
        _, truth = self._show(request.candidates, wanted, "slate/target0")
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

    def _show(self, candidates: Tensor, scores: Tensor, stream: str) -> tuple[Tensor, Tensor]:
        """Return the columns drawn and the clicks they got, ``[B, K]`` each."""
        simulator = self.simulator
        self._restore(*self.before)
        picks = self._picks(scores, stream, simulator.config.pipeline.slate_size)
        simulator.step_slate(candidates.gather(1, picks))
        assert simulator.last is not None
        clicks = simulator.last.feedback.clicks
        self._restore(*self.before)
        return picks, clicks
