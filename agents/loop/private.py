"""Learning from a log with a guarantee to each of its visitors: clipped gradients and noise.

In every step each unit (a session, or all sessions of one user) takes part with probability
``sample_rate``; its gradient, of all components together, is shortened to ``gradient_norm``, and
normal noise is added to the sum (M. Abadi et al., "Deep learning with differential privacy", CCS
2016; by user: H. B. McMahan et al., ICLR 2018). What a unit contributes follows from its own
sessions, the actors as they are and a noisy baseline alone: no critic, no mean over the batch, no
running statistics, no stopping by what decisions look like, no choice among candidates. Those would
tell of others without noise, and :func:`require_private` refuses them by name.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from agents.learners.config import PPOFamily
from agents.learners.losses import clipped_policy_loss
from agents.learners.networks import Actor
from agents.learners.policy import TrainedPolicy
from agents.loop.exposure import ExposureLog, as_rollout
from agents.loop.valuation import to_go
from marec_env.config import ConfigModel
from marec_env.errors import ConfigError
from marec_env.privacy.accountant import Releases, epsilon_spent, least_noise
from marec_env.privacy.mechanisms import gaussian_mu, keyed_normal, noise_key

if TYPE_CHECKING:
    from agents.loop.rounds import LoopConfig

_BASELINE_SHARE = 0.05  # of what is spent (of μ²): one number, which little noise leaves readable
_LEAST_DISCOUNTING = 0.05  # 1 - γ by which sums of rewards are brought to about [0, 1]


class LearningPrivacy(ConfigModel):
    """Differential privacy of those in a log that a team learns from."""

    epsilon: float = Field(
        default=8.0, ge=1e-3, le=1000.0, description="Privacy loss ε of a session, all steps."
    )
    delta: float = Field(
        default=1e-5,
        gt=1e-300,
        le=1e-2,
        description="Probability δ with which the loss may be larger; well below 1 / sessions.",
    )
    accountant: Literal["rdp", "prv"] = Field(
        default="rdp", description="Of opacus: which bound counts sampled steps."
    )
    gradient_norm: float = Field(
        default=1.0, gt=0, description="Longest gradient of a session, all components together."
    )
    sample_rate: float = Field(
        default=0.25, gt=0.0, le=1.0, description="Chance of a session to take part in a step."
    )
    steps: int = Field(default=60, ge=1, description="Steps of Adam; fixed beforehand.")
    layers: Literal["last", "all"] = Field(
        default="last",
        description="What learns: last layers alone have fewer weights, and so less noise in all.",
    )


@dataclass(frozen=True, slots=True)
class PrivateTeam:
    """What was learned, and what is guaranteed."""

    policy: TrainedPolicy
    statement: dict[str, object]
    """Unit, ε, δ, mechanism, noise and what is outside."""

    @property
    def line(self) -> str:
        """The statement in one line."""
        told = self.statement
        noise = "" if told["noise_is_secret"] else "; noise of a known seed: for studies only"
        return (
            f"learned from a log: ε = {told['epsilon']:.4g}, δ = {told['delta']:.3g} for each of "
            f"its sessions ({told['accountant']}){noise}"
        )


OUTSIDE = (
    "the team that learning began with, and what it was learned from",
    "other sessions of the same visitor: losses add up, as they do over logs learned from in turn",
    "settings that were chosen by looking at the log, and estimates of a candidate on it",
    "how many sessions the log has",
)
"""What the guarantee says nothing of."""


def require_private(config: LoopConfig) -> None:
    """Refuse settings that would tell of the log's visitors without noise, or have no effect.

    Raises:
        ConfigError: naming all of them, why, and what to set.
    """
    algorithm = config.algorithm
    wrong = [
        (f"{key}={wanted}", why)
        for key, found, wanted, why in (
            ("algorithm.normalise_advantages", algorithm.normalise_advantages, "none",
             "mean and spread of everybody's advantages"),
            ("algorithm.normalise_values", algorithm.normalise_values, "false",
             "running statistics of everybody's values"),
            ("algorithm.target_kl", algorithm.target_kl, "null", "stops by everybody's decisions"),
            ("critic_passes", config.critic_passes, "0", "a central critic without noise"),
        )
        if str(found).lower() != wanted and not (wanted == "null" and found is None)
    ]  # fmt: skip
    if algorithm.kind == "happo":
        wrong.append(("algorithm.kind=mappo", "updates in turn, by ratios of the whole batch"))
    if algorithm.components:
        wrong.append(("algorithm.components={}", "one gradient of all components is shortened"))
    if wrong:
        raise ConfigError(
            "privacy: the guarantee would not hold, or a setting have no effect; set "
            + "; ".join(f"{setting} ({why})" for setting, why in wrong)
        )


def learn_privately(
    log: ExposureLog, policy: TrainedPolicy, config: LoopConfig, unit: Tensor | None = None
) -> PrivateTeam:
    """Return a team that has learned from a log, (ε, δ)-private for adding or removing a unit.

    Args:
        log: of the team that begins.
        policy: it; its networks are left as they are.
        config: ``config.privacy`` is set; of ``algorithm`` count learning rate, clip, entropy,
            discount and Adam's ε.
        unit: int64 ``[S]``, whose session it is; by default each is somebody else's.

    Raises:
        ConfigError: a setting would break the guarantee, or opacus is not installed.
        DataError: the log is of another team's decisions.
    """
    privacy, algorithm = config.privacy, config.algorithm
    assert privacy is not None
    require_private(config)
    log.require_team(policy.team)
    noises = noise_scales(privacy)
    if unit is None:
        unit = torch.arange(len(log.key))
    rows = [(unit == one).nonzero().squeeze(1) for one in torch.unique(unit)]
    key, secret = noise_key(config.seed)
    about = f"{_fingerprint(log)}/{privacy.model_dump_json()}/learning"

    gains = to_go(as_rollout(log, config.rewards).agents[log.agents[0]]["rewards"], algorithm.gamma)
    noise = noises[0] * keyed_normal(key, f"{about}/baseline", 2)
    advantages = gains - baseline(log, gains, rows, algorithm.gamma, noise)

    own = [(log.select(mine), advantages[mine]) for mine in rows]
    actors = {name: copy.deepcopy(actor) for name, actor in policy.actors.items()}
    weights = learning_weights(actors, privacy.layers)
    size = sum(weight.numel() for weight in weights)
    optimiser = torch.optim.Adam(weights, lr=algorithm.learning_rate, eps=algorithm.adam_epsilon)
    team = TrainedPolicy(policy.team, actors)
    for step in range(privacy.steps):
        luck = torch.special.ndtr(keyed_normal(key, f"{about}/sample/{step}", len(rows)))
        total = noises[1] * keyed_normal(key, f"{about}/gradient/{step}", size)
        for place in (luck < privacy.sample_rate).nonzero().squeeze(1).tolist():
            sessions, worth = own[place]
            total += contribution(sessions, worth, team, weights, algorithm, privacy.gradient_norm)
        start = 0
        for weight in weights:
            part = total[start : start + weight.numel()]
            # Adam does not mind the scale: dividing by the number of sessions would tell it.
            weight.grad = part.view_as(weight).to(weight.dtype)
            start += weight.numel()
        optimiser.step()
    for actor in actors.values():
        actor.requires_grad_(True).eval()
    return PrivateTeam(team, _statement(privacy, noises, secret))


def noise_scales(privacy: LearningPrivacy) -> tuple[float, float]:
    """Return the noise of the baseline and of the gradients, in sensitivities: together they spend
    ``privacy.epsilon``.
    """
    first = 1.0 / (math.sqrt(_BASELINE_SHARE) * gaussian_mu(privacy.epsilon, privacy.delta))
    second = least_noise(
        privacy.accountant,
        lambda noise: _schedule(privacy, (first, noise)),
        privacy.epsilon,
        privacy.delta,
    )
    return first, second


def _schedule(privacy: LearningPrivacy, noises: tuple[float, float]) -> list[Releases]:
    return [Releases(noises[0]), Releases(noises[1], privacy.sample_rate, privacy.steps)]


def baseline(
    log: ExposureLog, gains: Tensor, rows: Sequence[Tensor], gamma: float, noise: Tensor
) -> float:
    """Return what is to be had from a request on, on average, from a noisy sum over units.

    A unit adds (mean gain brought to about [0, 1], 1) / √2, shortened to length 1.

    Args:
        log: the sessions.
        gains: float32 ``[S, T]``, discounted rewards to go.
        rows: each unit's sessions.
        gamma: their discount.
        noise: float64 ``[2]``, in lengths of a unit's part.
    """
    scale = max(1.0 - gamma, _LEAST_DISCOUNTING)
    live = log.live
    total = noise.clone()
    for mine in rows:
        mean = float(gains[mine][live[mine]].double().mean()) * scale
        part = torch.tensor([mean, 1.0], dtype=torch.float64) / math.sqrt(2.0)
        total += part / part.norm().clamp_min(1.0)
    return float(total[0] / total[1].clamp_min(1.0)) / scale


def learning_weights(actors: Mapping[str, Actor], layers: str) -> list[torch.nn.Parameter]:
    """Return the weights that learn, of all actors; the others need no gradient from now on."""
    found = []
    for actor in actors.values():
        for name, weight in actor.named_parameters():
            learns = layers == "all" or not name.startswith("trunk.")
            weight.requires_grad_(learns)
            found += [weight] if learns else []
    return found


def contribution(
    sessions: ExposureLog, advantages: Tensor, team: TrainedPolicy,
    weights: Sequence[torch.nn.Parameter], algorithm: PPOFamily, longest: float,
) -> Tensor:  # fmt: skip
    """Return a unit's part of a step, float64 and flat, of length ``longest`` over the sensitivity
    at most: the gradient of its own clipped loss, which nothing else in the log enters.
    """
    live = sessions.live
    counted = live.to(torch.float32).flatten()
    starts = torch.zeros_like(live)
    starts[:, 0] = True
    loss = torch.zeros(())
    for agent in sessions.agents:
        name, index = team.team.actor_of(agent)
        actor = team.actors[name]
        seen = actor.trunk.normalise(sessions.observations[agent])
        memory = seen.new_zeros(len(seen), actor.memory_size) if actor.memory_size else None
        identity = actor.agent_id(index, seen.shape[:-1], seen.device)
        inputs, _ = actor.decide(seen, memory, identity, starts if actor.memory_size else None)
        log_p, entropy = actor.distribution.evaluate(inputs, sessions.actions[agent])
        ratio = torch.where(live, log_p - sessions.log_probabilities[agent], 0.0)
        loss = loss + clipped_policy_loss(
            ratio.flatten(), advantages.flatten(), counted, algorithm.clip
        )
        bonus = (entropy.flatten() * counted).sum() / counted.sum()
        loss = loss - algorithm.entropy_coefficient * bonus
    parts = torch.autograd.grad(loss, list(weights), allow_unused=True)
    flat = torch.cat(
        [
            (torch.zeros_like(weight) if part is None else part).flatten()
            for part, weight in zip(parts, weights, strict=True)
        ]
    ).to(torch.float64)
    if not bool(torch.isfinite(flat).all()):
        return torch.zeros_like(flat)  # its own alone: a loss that is no number tells nothing
    shortened: Tensor = flat / flat.norm().clamp_min(longest)
    return shortened


def _fingerprint(log: ExposureLog) -> str:
    digest = hashlib.sha256()
    columns = (log.observations, log.actions, log.log_probabilities)
    tensors = [log.key, log.length, log.left, log.clicks]
    for tensor in (*tensors, *(part for column in columns for part in column.values())):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _statement(
    privacy: LearningPrivacy, noises: tuple[float, float], secret: bool
) -> dict[str, Any]:
    return {
        "unit": "a session, added or removed",
        "epsilon": epsilon_spent(privacy.accountant, _schedule(privacy, noises), privacy.delta),
        "delta": privacy.delta,
        "accountant": privacy.accountant,
        "mechanism": "sampled Gaussian on shortened gradients of all components, and one on the "
        "baseline",
        "noise": {"baseline": noises[0], "gradients": noises[1]},
        "noise_is_secret": secret,
        "gradient_norm": privacy.gradient_norm,
        "sample_rate": privacy.sample_rate,
        "steps": privacy.steps,
        "outside": list(OUTSIDE),
    }
