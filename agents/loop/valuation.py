"""What a candidate team would earn, told from the log of another: the gate before anybody meets it.

The estimators are those of :mod:`marec_env.evaluation.request_log`. Beside clicks a request, a
decision is valued by all clicks of the session from it on (discounted): the mean of the differences
is, to first order in how far the candidate is from the team that was served, the difference of what
sessions earn (Kakade and Langford, ICML 2002, lemma 6.1); that the candidate would bring about
other states is left out, which is why a canary share follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.learners.networks import Actor
from agents.learners.policy import TrainedPolicy
from agents.loop.exposure import ExposureLog
from marec_env import random
from marec_env.errors import DataError
from marec_env.evaluation.off_policy import doubly_robust, effective_sample_size
from marec_env.evaluation.request_log import (
    TARGET_DRAWS,
    Floats,
    RequestLog,
    estimates,
    fitted,
)
from marec_env.evaluation.statistics import Estimate

CLIP = 10.0
"""Largest ratio of probabilities that an estimate believes: a bias towards 0, for less variance."""
TEAM = "team"
"""The log of all components' decisions together; the others are named after their agents."""
_STREAM = "loop/target"

Numbers = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Broken:
    """How a team keeps one of the house's rules."""

    served: float
    """Share of the items shown that broke it, as logged."""
    more: Estimate
    """How much larger the candidate's share is, doubly robust."""


@dataclass(frozen=True, slots=True)
class Valuation:
    """A candidate beside the team that was served, on the same log."""

    requests: int
    effective: float
    """How many requests of the candidate's own the log is worth."""
    served: float
    """Clicks a request, as logged."""
    served_to_go: float
    """Discounted clicks from a request to the session's end, as logged."""
    by_estimator: dict[str, dict[str, Estimate]]
    """Clicks a request, by component (and ``team``) and estimator."""
    gain: Estimate
    """Clicks a request more than was served, doubly robust."""
    gain_to_go: Estimate
    """The same of the discounted clicks from a request to the session's end."""
    broken: dict[str, Broken]
    """By rule of the house, of those that were asked about."""

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {
            "requests": self.requests,
            "effective_requests": self.effective,
            "served": self.served,
            "served_to_go": self.served_to_go,
            "estimates": {
                name: {kind: one.as_json() for kind, one in found.items()}
                for name, found in self.by_estimator.items()
            },
            "gain": self.gain.as_json(),
            "gain_to_go": self.gain_to_go.as_json(),
            "broken": {
                rule: {"served": one.served, "more": one.more.as_json()}
                for rule, one in self.broken.items()
            },
        }


def value(
    log: ExposureLog,
    candidate: TrainedPolicy,
    discount: float,
    clip: float = CLIP,
    broken: Mapping[str, Tensor] | None = None,
) -> Valuation:
    """Estimate what a candidate would earn in the states of a log on which it has not learned.

    Args:
        log: of the served team, held out.
        candidate: with the same components.
        discount: of clicks a request later, in ``gain_to_go``.
        clip: largest ratio.
        broken: by rule, the share of each slate that broke it, float32 ``[S, T]``
            (:func:`agents.loop.limits.broken_shares`).

    Raises:
        DataError: the log is of another team's decisions, or tells nothing of the candidate.
    """
    logs = request_logs(log, candidate, clip)
    team = logs[TEAM]
    if not team.ratio.any():
        raise DataError(
            "the log says nothing of this team: it never does what was done; value one that is "
            "nearer to what was served"
        )
    models = {name: fitted(one) for name, one in logs.items()}

    def paid(values: Tensor) -> RequestLog:
        return replace(team, reward=values[log.live].double().numpy()[:, None])

    later = paid(to_go(log.clicks.sum(dim=2), discount))
    rules = {rule: paid(shares) for rule, shares in (broken or {}).items()}
    return Valuation(
        requests=len(team.session),
        effective=effective_sample_size(team.ratio),
        served=float(team.reward.mean()),
        served_to_go=float(later.reward.mean()),
        by_estimator={name: estimates(one, models[name]) for name, one in logs.items()},
        gain=_gain(team, *models[TEAM]),
        gain_to_go=_gain(later, *fitted(later)),
        broken={
            rule: Broken(float(one.reward.mean()), _gain(one, *fitted(one)))
            for rule, one in rules.items()
        },
    )


def _gain(log: RequestLog, predicted: Floats, expected: Floats) -> Estimate:
    """Return the doubly robust estimate less what was earned, session by session."""
    return doubly_robust(log.reward, log.ratio, predicted, expected - log.reward, log.session)


def to_go(rewards: Tensor, discount: float) -> Tensor:
    """Return the discounted sums from each request of ``[S, T]`` on."""
    found = torch.zeros_like(rewards)
    later = rewards.new_zeros(len(rewards))
    for step in range(rewards.shape[1] - 1, -1, -1):
        later = rewards[:, step] + discount * later
        found[:, step] = later
    return found


@torch.no_grad()
def request_logs(
    log: ExposureLog, candidate: TrainedPolicy, clip: float = CLIP
) -> dict[str, RequestLog]:
    """Return a log for each component (by agent) and one for the whole team, as estimators take
    them; the truth, which only a simulator knows, is NaN.
    """
    log.require_team(candidate.team)
    live = log.live
    step = torch.arange(live.shape[1]).expand_as(live)[live]
    keys = log.key.unsqueeze(1).expand_as(live)[live]
    session = torch.arange(len(log.key)).unsqueeze(1).expand_as(live)[live].numpy()
    reward = log.clicks.sum(dim=2)[live].double().numpy()[:, None]
    found, ratios = {}, []
    made: list[Tensor] = []
    drawn: list[Tensor] = []
    for agent in log.agents:
        seen, flat = log.observations[agent][live], log.actions[agent][live]
        name, index = candidate.team.actor_of(agent)
        actor = candidate.actors[name]
        inputs = _inputs(actor, index, log.observations[agent], live)
        log_p, _ = actor.distribution.evaluate(inputs, flat)
        ratios.append(log_p - log.log_probabilities[agent][live])
        lanes = actor.distribution.num_uniforms
        draws = torch.stack(
            [
                actor.distribution.sample(
                    inputs, random.uniform(keys, step, f"{_STREAM}{k}/{agent}", lanes)
                )
                for k in range(TARGET_DRAWS)
            ],
            dim=1,
        )
        made.append(features(seen, flat))
        drawn.append(features(seen.unsqueeze(1).expand(-1, TARGET_DRAWS, -1), draws))
        found[agent] = _log(session, reward, ratios[-1], made[-1], drawn[-1], clip)
    found[TEAM] = _log(
        session, reward, torch.stack(ratios).sum(0), torch.cat(made, -1), torch.cat(drawn, -1), clip
    )
    return found


def _inputs(actor: Actor, index: int, seen: Tensor, live: Tensor) -> Tensor:
    """Return what an actor's distribution takes at the live requests of ``[S, T, d]``; one that
    remembers has met the session's earlier requests, whoever answered them.
    """
    if not actor.memory_size:
        inputs, _ = actor.forward(seen[live], None, index)
        return inputs
    starts = torch.zeros_like(live)
    starts[:, 0] = True
    nothing = seen.new_zeros(len(seen), actor.memory_size)
    agent_id = actor.agent_id(index, tuple(live.shape), seen.device)
    return actor.decide(actor.trunk.normalise(seen), nothing, agent_id, starts)[0][live]


def features(seen: Tensor, action: Tensor) -> Tensor:
    """Return what reward models read of a component's decision, ``[..., d + 2 n]``."""
    return torch.cat([seen, action, action.square()], dim=-1)


def _log(
    session: Any, reward: Floats, log_ratio: Tensor, made: Tensor, drawn: Tensor, clip: float
) -> RequestLog:
    return RequestLog(
        session=session,
        reward=reward,
        cascade=log_ratio.exp().clamp(max=clip).double().numpy()[:, None],
        features=made.double().numpy()[:, None],
        target_features=drawn.double().numpy()[:, :, None],
        truth=np.full(len(session), np.nan),
    )
