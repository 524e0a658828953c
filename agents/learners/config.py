"""Typed configuration of the learners and of sampling.

The defaults of the PPO family are those of Yu et al., "The Surprising Effectiveness of PPO in
Cooperative Multi-Agent Games" (NeurIPS 2022), where they state one.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from marec_env.config import ConfigModel, Device
from marec_env.rewards.config import DISCOUNT

Activation = Literal["tanh", "relu", "silu"]
InitialWeights = Literal["orthogonal", "uniform"]
RewardSource = Literal["team_mean", "team_sum", "own"]

GAMMA = 0.99
"""Discount of learners, and RLlib's own, where the task has none of its own."""

Discount = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        description=f"Discount per env step; if not given, {DISCOUNT} on the recommender, {GAMMA} "
        "elsewhere.",
    ),
]
AdvantageScope = Literal["team", "agent", "none"]


class NetworkConfig(ConfigModel):
    """A multi-layer perceptron, followed by a GRU if ``recurrent_units`` is not zero."""

    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(64, 64), strict=False, description="Units of each hidden layer."
    )
    activation: Activation = Field(default="relu", description="Non-linearity after each layer.")
    recurrent_units: int = Field(
        default=0, ge=0, description="Units of a GRU after the layers; 0 for none."
    )
    initial_weights: InitialWeights = Field(
        default="orthogonal",
        description="Orthogonal, with a policy's last layer near 0; or uniform within 1 / √inputs,"
        " as torch makes layers.",
    )
    normalise_inputs: bool = Field(
        default=True,
        description="Divide inputs by their running standard deviation after subtracting the mean;"
        " if not given, on the recommender only.",
    )


class ComponentOverrides(ConfigModel):
    """Settings of one component that differ from the team's; null keeps the team's."""

    actor: NetworkConfig | None = Field(default=None, description="The component's own network.")
    learning_rate: float | None = Field(default=None, gt=0, description="Of the actor's Adam.")
    entropy_coefficient: float | None = Field(default=None, ge=0, description="Of the entropy.")
    clip: float | None = Field(default=None, gt=0, description="Of the probability ratio.")
    frozen: bool = Field(default=False, description="Act, but do not learn.")

    @model_validator(mode="after")
    def _frozen_learns_nothing(self) -> ComponentOverrides:
        for key in ("learning_rate", "entropy_coefficient", "clip"):
            if self.frozen and getattr(self, key) is not None:
                raise ValueError(f"{key} has no effect where frozen is true")
        return self


class CloningConfig(ConfigModel):
    """Behaviour cloning of a given policy before reinforcement learning starts."""

    policy: str = Field(
        description="Place of a function that takes the VectorEnv and returns the policy to clone:"
        " 'package.module:function'; the policy has act(observations) -> actions."
    )
    env_steps: int = Field(default=20_000, ge=1, description="Steps of demonstration.")
    epochs: int = Field(default=20, ge=1, description="Passes over the demonstration.")
    minibatch_size: int = Field(default=512, ge=1, description="Decisions per gradient step.")
    learning_rate: float = Field(default=1e-3, gt=0, description="Of Adam.")


class PPOFamilyConfig(ConfigModel):
    """What MAPPO, IPPO and HAPPO have in common."""

    actor: NetworkConfig = Field(default=NetworkConfig(), description="Policy network.")
    critic: NetworkConfig = Field(default=NetworkConfig(), description="Value network.")
    reward: RewardSource = Field(
        default="team_mean",
        description="What a value predicts: the mean or the sum over agents of their rewards, or"
        " each agent's own. Where every agent is paid F, the mean is F.",
    )
    epochs: int = Field(default=10, ge=1, description="Passes over each batch; 5 to 15 is usual.")
    minibatches: int = Field(default=1, ge=1, description="Mini-batches per pass.")
    clip: float = Field(
        default=0.2, gt=0, description="Probability ratios beyond 1 ± clip earn no gradient."
    )
    gamma: Discount = GAMMA
    gae_lambda: float = Field(default=0.95, ge=0, le=1, description="λ of the advantage estimate.")
    learning_rate: float = Field(default=5e-4, gt=0, description="Of the actors' Adam.")
    critic_learning_rate: float = Field(default=5e-4, gt=0, description="Of the critic's Adam.")
    adam_epsilon: float = Field(default=1e-5, gt=0, description="ε of Adam.")
    max_gradient_norm: float = Field(
        default=10.0, gt=0, description="Gradients of each network are clipped to this norm."
    )
    entropy_coefficient: float = Field(default=0.01, ge=0, description="Bonus for entropy.")
    decay_env_steps: int | None = Field(
        default=None,
        ge=1,
        description="Learning rates and entropy bonus fall linearly to 0 at this env step; null:"
        " constant.",
    )
    huber_delta: float = Field(default=10.0, gt=0, description="δ of the Huber value loss.")
    value_clip: float | None = Field(
        default=0.2, gt=0, description="New values beyond old ± this earn no gradient; null: off."
    )
    normalise_values: bool = Field(
        default=True, description="Critics learn values in units of their running mean and std."
    )
    normalise_advantages: AdvantageScope = Field(
        default="team",
        description="Over sessions × time × agents (team), sessions × time (agent), or none;"
        " active decisions only.",
    )
    target_kl: float | None = Field(
        default=None, gt=0, description="An actor stops its passes beyond this KL; null: never."
    )
    share_parameters: bool = Field(
        default=False, description="Agents with equal spaces share one actor."
    )
    agent_ids: bool = Field(
        default=True, description="A shared actor sees which agent it acts for (one-hot)."
    )
    box_distribution: Literal["clipped", "squashed"] = Field(
        default="clipped",
        description="Box actions: a Gaussian clipped to the bounds, or squashed into them by tanh.",
    )
    initial_log_std: float = Field(
        default=-0.5, description="Of Box actions, in units of half the distance of the bounds."
    )
    components: dict[str, ComponentOverrides] = Field(
        default={}, description="Settings by component where they differ."
    )
    cloning: CloningConfig | None = Field(
        default=None, description="Behaviour cloning before the first step; null: none."
    )

    @model_validator(mode="after")
    def _effective(self) -> PPOFamilyConfig:
        if self.share_parameters and self.components:
            raise ValueError("components cannot differ where share_parameters is true")
        if not (self.agent_ids or self.share_parameters):
            raise ValueError("agent_ids has an effect only where share_parameters is true")
        return self


class MAPPOConfig(PPOFamilyConfig):
    """Multi-agent PPO: actors see their own observation, the critic sees the state."""

    kind: Literal["mappo"] = "mappo"
    critic_input: Literal["state", "state_and_observation"] = Field(
        default="state",
        description="One critic of the state, or one a component of the state and what the"
        " component observes.",
    )


class IPPOConfig(PPOFamilyConfig):
    """Independent PPO: each component has a critic of its own observation."""

    kind: Literal["ippo"] = "ippo"
    critic_input: Literal["observation"] = Field(
        default="observation", description="Each component's critic sees what the component sees."
    )
    reward: RewardSource = Field(
        default="own", description="As in MAPPO; here each agent's own reward by default."
    )
    normalise_advantages: AdvantageScope = Field(
        default="agent", description="As in MAPPO; here for each agent by itself by default."
    )


class HAPPOConfig(PPOFamilyConfig):
    """Heterogeneous-agent PPO: actors are updated one after another in random order.

    Each agent's advantage is multiplied by the probability ratios of the agents before it (Kuba et
    al., "Trust Region Policy Optimisation in Multi-Agent Reinforcement Learning", ICLR 2022).
    """

    kind: Literal["happo"] = "happo"
    critic_input: Literal["state"] = Field(default="state", description="One critic of the state.")
    share_parameters: Literal[False] = Field(
        default=False, description="Sequential updates need separate actors."
    )


PPOFamily = MAPPOConfig | IPPOConfig | HAPPOConfig


class VDNConfig(ConfigModel):
    """Value decomposition networks: Q of the team is the sum of each component's Q.

    For Discrete and MultiDiscrete components (Sunehag et al., "Value-Decomposition Networks for
    Cooperative Multi-Agent Learning", AAMAS 2018), with double Q-learning.
    """

    kind: Literal["vdn"] = "vdn"
    network: NetworkConfig = Field(default=NetworkConfig(), description="Q network of each agent.")
    reward: Literal["team_mean", "team_sum"] = Field(
        default="team_mean", description="The team's reward from its agents' rewards."
    )
    gamma: Discount = GAMMA
    learning_rate: float = Field(default=5e-4, gt=0, description="Of Adam.")
    adam_epsilon: float = Field(default=1e-5, gt=0, description="ε of Adam.")
    max_gradient_norm: float = Field(default=10.0, gt=0, description="Gradient norm limit.")
    replay_size: int = Field(default=50_000, ge=1, description="Env steps kept for replay.")
    minibatch_size: int = Field(default=512, ge=1, description="Env steps per gradient step.")
    updates: int = Field(default=8, ge=1, description="Gradient steps per rollout.")
    target_rate: float = Field(
        default=0.05, gt=0, le=1, description="How far the target moves at each gradient step."
    )
    epsilon_start: float = Field(default=1.0, ge=0, le=1, description="Random actions at first.")
    epsilon_end: float = Field(default=0.05, ge=0, le=1, description="Random actions at last.")
    epsilon_env_steps: int = Field(default=20_000, ge=1, description="Env steps between the two.")

    @model_validator(mode="after")
    def _no_recurrence(self) -> VDNConfig:
        if self.network.recurrent_units:
            raise ValueError(
                "vdn replays single steps: network.recurrent_units must be 0 (mappo, ippo and happo"
                " have recurrent networks)"
            )
        return self


class RLlibConfig(ConfigModel):
    """Any algorithm of RLlib on its stock path, over the PettingZoo view of the environment."""

    kind: Literal["rllib"] = "rllib"
    name: str = Field(default="PPO", description="RLlib's name of the algorithm: PPO, APPO, ...")
    settings: dict[str, float | int | bool | str | None] = Field(
        default={}, description="Passed to the algorithm's training()."
    )


class OwnConfig(ConfigModel):
    """An algorithm that trains elsewhere, and hands in its policy by ``agents.record_policy``."""

    kind: Literal["own"] = "own"
    name: str = Field(default="own", min_length=1, description="What it is called in tables.")
    settings: dict[str, float | int | bool | str | None] = Field(
        default={}, description="Of its training, for the record."
    )


AlgorithmConfig = Annotated[
    MAPPOConfig | IPPOConfig | HAPPOConfig | VDNConfig | RLlibConfig | OwnConfig,
    Field(discriminator="kind"),
]
"""The algorithm, chosen by ``kind``."""


class SamplingConfig(ConfigModel):
    """How experience is gathered and on what the learner runs."""

    num_sessions: int = Field(
        default=256, ge=1, description="Sessions stepped at once by each runner."
    )
    rollout_length: int = Field(
        default=32, ge=1, description="Env steps of each session per iteration."
    )
    num_env_runners: int = Field(
        default=0,
        ge=0,
        description="Remote runners; 0 samples in the learner's process, exactly repeatable.",
    )
    num_learners: int = Field(
        default=0, ge=0, description="Remote learners that share a batch; 0: in this process."
    )
    gpus_per_learner: float = Field(default=0, ge=0, description="GPUs of each learner.")
    device: Device | None = Field(
        default=None,
        description="Where the runner and learner of this process work: cpu, cuda or cuda:i; null: "
        "the run's `device`.",
    )
    torch_threads: int | None = Field(
        default=1,
        ge=1,
        description="Threads of a tensor operation; 1 where processes share cores; null: torch's.",
    )
    ray_address: str | None = Field(
        default=None, description="Address of a Ray cluster; null starts Ray here when needed."
    )

    @property
    def env_steps_per_iteration(self) -> int:
        """Env steps that one iteration gathers when no runner fails."""
        return self.num_sessions * self.rollout_length * max(1, self.num_env_runners)
