"""One round of a loop: learn from the log, value the candidate, and judge it once it is served.

A candidate passes three hurdles: the gate (the lower bound of what it gains on sessions that it has
not learned from), a canary share of the sessions, and what those earn beside the others. Whoever
serves, a service or a simulator, does so between :func:`consider` and :func:`judge`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field
from torch import Tensor

from agents.learners.config import MAPPOConfig, PPOFamily
from agents.learners.policy import TrainedPolicy
from agents.loop.exposure import ExposureLog
from agents.loop.learning import Critics, learn_from_log
from agents.loop.private import LearningPrivacy
from agents.loop.users import learn_on_users, recalibrated
from agents.loop.valuation import CLIP, Valuation, value
from marec_env.config import ConfigModel, Seed
from marec_env.errors import DataError
from marec_env.evaluation.statistics import Estimate, mean_difference
from marec_env.rewards.config import DISCOUNT, RewardConfig

if TYPE_CHECKING:
    from marec_env.world import World

Verdict = Literal["promote", "roll back", "wait"]
Rules = Callable[[ExposureLog], Mapping[str, Tensor]]
"""From a log to the shares of its slates that break each rule, ``[S, T]``."""


class LoopConfig(ConfigModel):
    """How a team goes on learning from those it serves."""

    algorithm: PPOFamily = Field(
        default=MAPPOConfig(gamma=DISCOUNT),
        discriminator="kind",
        description="The losses by which it learns from the log; networks are the served team's.",
    )
    rewards: RewardConfig = Field(
        default=RewardConfig(), description="What a click and staying are worth."
    )
    passes: int = Field(
        default=12, ge=1, description="Updates of actors and critics from one log, all epochs each."
    )
    critic_passes: int = Field(
        default=6, ge=0, description="Updates of new critics before the actors learn."
    )
    env_steps: int = Field(
        default=160_000,
        ge=1,
        description="Simulated requests of a candidate that learns on users fitted to the log; "
        "a quarter as many teach nothing that can be seen.",
    )
    held_out: float = Field(
        default=0.3, gt=0.0, lt=1.0, description="Share of sessions on which candidates are valued."
    )
    clip: float = Field(
        default=CLIP, ge=1.0, description="Largest ratio of probabilities that estimates believe."
    )
    gate: float = Field(
        default=-0.02,
        gt=-1.0,
        description="Gain in discounted clicks, as share of the served team's, that the lower "
        "bound must exceed. 0 asks for proof that a candidate is better, which takes thousands of "
        "sessions; below 0 it may be that much worse at the most.",
    )
    limits: float = Field(
        default=0.05,
        ge=0.0,
        le=1.0,
        description="How much more of what is shown than the served team's may break a rule of "
        "the house (pipeline.audit), as share of the items, by the upper bound.",
    )
    fewest_sessions: int = Field(
        default=100, ge=4, description="Sessions without which nothing is learned."
    )
    canary_share: float = Field(
        default=0.25, gt=0.0, lt=1.0, description="Share of new sessions that meet a candidate."
    )
    canary_sessions: int = Field(
        default=50, ge=2, description="Ended sessions of the candidate before it is judged."
    )
    canary_most: int = Field(
        default=1000,
        ge=2,
        description="Ended sessions of the candidate at which the estimate itself decides, where "
        "its interval has not until then.",
    )
    canary_loss: float = Field(
        default=0.05,
        ge=0.0,
        lt=1.0,
        description="Loss in clicks a session, as share of the served team's, that is tolerable: a "
        "candidate is promoted early only if the lower bound of its gain lies above it.",
    )
    seed: Seed = Field(default=0, description="Of held-out sessions, critics and mini-batches.")
    privacy: LearningPrivacy | None = Field(
        default=None,
        description="Of those in the log: clipped gradients with noise. Nothing is valued then.",
    )


@dataclass(frozen=True, slots=True)
class Considered:
    """A candidate, and whether it may meet anybody."""

    policy: TrainedPolicy
    valuation: Valuation
    failed: tuple[str, ...]
    """What keeps it from being shown: ``gain``, or rules of the house that it would break."""
    critics: Critics = field(repr=False)
    """With which a round that begins with the candidate goes on."""
    learned: dict[str, float] = field(default_factory=dict)
    """The learner's numbers after its last pass."""

    @property
    def passed(self) -> bool:
        """Whether nothing does."""
        return not self.failed

    def __str__(self) -> str:
        found = self.valuation
        gain = f"{found.gain_to_go} clicks to go beside {found.served_to_go:.2f}"
        broken = "".join(
            f"; {rule} broken by {one.more} more of what is shown than {one.served:.3f}"
            for rule, one in found.broken.items()
            if rule in self.failed
        )
        said = f"does not pass ({', '.join(self.failed)})" if self.failed else "passes the gate"
        return f"{said}, {gain}{broken}"

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON takes it, without networks."""
        verdict = {"passed": self.passed, "failed": [*self.failed]}
        return {**self.valuation.as_json(), **verdict, "learner": self.learned}


def consider(
    log: ExposureLog,
    served: TrainedPolicy,
    config: LoopConfig,
    critics: Critics | None = None,
    rules: Rules | None = None,
    world: World | None = None,
) -> Considered:
    """Return the candidate that a log makes of the team that was served, valued on held-out
    sessions.

    Args:
        log: of sessions of that team.
        served: it.
        config: how it learns, and what passes.
        critics: the served team's, of the round that made it, to go on with.
        rules: from a log to what of each slate broke the house's rules, by rule.
        world: whose users are fitted to the log; the team then learns on them, not from the log
            itself.

    Raises:
        DataError: the log is too small, or of another team.
    """
    if len(log.key) < config.fewest_sessions:
        raise DataError(
            f"the log holds {len(log.key)} sessions; at least {config.fewest_sessions} are needed "
            "(fewest_sessions): wait for more"
        )
    learned_from, held_out = log.split(config.held_out, config.seed)
    told: dict[str, float] = {}
    if world is not None:
        fitted = recalibrated(world, learned_from, served, config.seed)
        actors, critics = learn_on_users(
            fitted, served, config.algorithm, config.env_steps, config.seed, critics, told.update
        )
    else:
        actors, critics = learn_from_log(
            learned_from,
            served,
            config.algorithm,
            config.rewards,
            passes=config.passes,
            critic_passes=config.critic_passes,
            seed=config.seed,
            critics=critics,
            say=told.update,
        )
    for actor in actors.values():
        actor.eval()
    candidate = TrainedPolicy(served.team, actors)
    broken = rules(held_out) if rules else None
    valuation = value(held_out, candidate, config.algorithm.gamma, config.clip, broken)
    enough = valuation.gain_to_go.low > config.gate * valuation.served_to_go
    failed = [] if enough else ["gain"]
    failed += [rule for rule, one in valuation.broken.items() if one.more.high > config.limits]
    return Considered(candidate, valuation, tuple(failed), critics, told)


def judge(served: Tensor, canary: Tensor, config: LoopConfig) -> tuple[Verdict, Estimate | None]:
    """Return what is to become of a candidate that has met some sessions.

    Args:
        served: float32 ``[n]``, clicks of ended sessions of the served team in the same time.
        canary: float32 ``[m]``, of the candidate's.
        config: how many there must be.

    Returns:
        the verdict, and the candidate's gain a session once there are enough: it is rolled back
        where the whole interval (95 %) lies below 0, promoted where it lies above the tolerable
        loss, and waits for more sessions where it tells neither; at the most, the estimate decides.
    """
    if min(len(served), len(canary)) < config.canary_sessions:
        return "wait", None
    gain = mean_difference(canary.double().numpy(), served.double().numpy())
    if gain.high < 0:
        return "roll back", gain
    if gain.low > -config.canary_loss * float(served.mean()):
        return "promote", gain
    if len(canary) < config.canary_most:
        return "wait", gain
    return ("promote" if gain.value >= 0 else "roll back"), gain
