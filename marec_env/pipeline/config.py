"""Configuration of the pipeline: funnel, components, channels, blocks, messages, data limits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, model_validator

from marec_env.config import ConfigModel

ActionKind = Literal["mixed", "box", "discrete"]
"""See :class:`marec_env.pipeline.actions.ActionCode`."""


class RecallConfig(ConfigModel):
    """The recall sources."""

    channels: tuple[str, ...] = Field(
        default=("cf", "text", "affinity", "item_to_item", "popular", "fresh", "diverse"),
        min_length=1,
        description="Channels in the order in which they fill their quotas (name or "
        "package.module:object).",
    )
    levels: int = Field(
        default=4, ge=2, le=16, description="Quota levels per channel: 0 ... levels - 1."
    )
    index: Literal["exact", "faiss"] = Field(
        default="exact",
        description="How 'cf', 'text', 'affinity' and 'diverse' find the best items: by all "
        "scores, or above index_above by an approximate index (pip install 'marec[ann]').",
    )
    index_above: int = Field(
        default=100_000, ge=0, description="Items above which index: faiss is used."
    )
    shards: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="Ray actors that hold the items' vectors and search them, each a share of the "
        "catalog; 1: this process does. On the CPU, with sampling.num_env_runners 0.",
    )
    affinity_weight: float = Field(
        default=0.6,
        ge=0,
        description="Score units that 'affinity' gives to a topic the user favours e times as much "
        "as others do.",
    )
    topic_penalty: float = Field(
        default=3.0, ge=0, description="Score units that 'diverse' takes off a fully exposed topic."
    )

    def approximate(self, num_items: int) -> bool:
        """Return whether a catalog of this size is searched by an approximate index."""
        return self.index == "faiss" and num_items > self.index_above


class NoMessages(ConfigModel):
    """Components do not speak."""

    kind: Literal["none"] = Field(default="none", description="Nobody says anything.")


class MessagePrivacy(ConfigModel):
    """Local differential privacy: a message is noisy before anybody hears it."""

    epsilon: float = Field(
        ge=1e-3,
        le=1e6,
        description="Privacy loss ε of one message: Laplace noise of scale 2 dim / ε in each "
        "number, cut to [-1, 1]; a session's messages add up.",
    )


class _Messages(ConfigModel):
    """What components tell each other."""

    topology: Literal["downstream", "full"] = Field(
        default="downstream", description="Who hears whom: later components only, or all others."
    )
    dim: int = Field(default=4, ge=1, le=64, description="Numbers in a message.")
    every: int = Field(default=1, ge=1, description="Requests between two messages.")
    delay: int = Field(
        default=0,
        ge=0,
        le=32,
        description="Requests until a message arrives; where all act at once, 0 is as 1.",
    )
    noise: float = Field(default=0.0, ge=0, description="Standard deviation of normal noise added.")
    privacy: MessagePrivacy | None = Field(
        default=None, description="null: no noise beside `noise`; else that of local privacy."
    )
    bandwidth_cost: float = Field(
        default=0.0,
        ge=0,
        description="Taken off the team reward per unit of mean absolute message.",
    )


class FixedMessages(_Messages):
    """Each component publishes a summary of its decision."""

    kind: Literal["fixed"] = Field(default="fixed", description="A summary of the decision.")


class TextMessages(_Messages):
    """Each component says in a sentence which of its numbers is largest and which smallest, and
    publishes the sentence's embedding.
    """

    kind: Literal["text"] = Field(default="text", description="A sentence on it, embedded.")


class LearnedMessages(_Messages):
    """The message is part of a component's action."""

    kind: Literal["learned"] = Field(default="learned", description="Part of the action.")


MessageConfig = Annotated[
    NoMessages | FixedMessages | TextMessages | LearnedMessages, Field(discriminator="kind")
]


class AuditConfig(ConfigModel):
    """House rules: the component ``auditor`` enforces, the term ``within_limits`` judges them."""

    max_topic_share: float = Field(
        default=0.4,
        gt=0,
        le=1,
        description="Largest share of what a session is shown (decayed) that may be of one topic.",
    )
    max_provider_share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Largest share of what a session was shown that may be of one provider.",
    )
    suitability: dict[str, str] = Field(
        default_factory=lambda: {"risk": "risk_limit"},
        description="Item attribute and the user attribute it must not exceed; without effect "
        "where the data lack either.",
    )


class TrainerConfig(ConfigModel):
    """How the component ``trainer`` refits the user's collaborative vector."""

    every: int = Field(default=5, ge=1, description="Requests between two decisions to refit.")
    cost: float = Field(default=0.02, ge=0, description="Taken off the team reward per refit.")


class PipelineConfig(ConfigModel):
    """The recommender's side of the environment."""

    components: tuple[str, ...] = Field(
        default=("profile", "recall", "feature", "ranking"),
        min_length=1,
        description="Components in pipeline order (registered name or package.module:object).",
    )
    candidates: int = Field(
        default=100, ge=1, le=65_536, description="Items kept by recall, C: the funnel width."
    )
    slate_size: int = Field(default=10, ge=1, le=100, description="Items shown per request, K.")
    sequential: bool = Field(
        default=False, description="Within a request, each component sees what those before it did."
    )
    actions: ActionKind = Field(
        default="mixed",
        description="Components' action spaces: each its own (mixed), all numbers in [-1, 1] (box: "
        "a choice among n is the one of n equal intervals in which its number lies), or all "
        "choices (discrete: a number is one of 11 levels).",
    )
    half_lives: tuple[Annotated[float, Field(ge=0.01)], ...] = Field(
        default=(2.0, 8.0, 32.0), min_length=1, description="History time scales, in requests."
    )
    recall: RecallConfig = RecallConfig()
    blocks: dict[str, NonNegativeFloat] = Field(
        default_factory=lambda: {
            "cf": 0.02,
            "text": 0.03,
            "affinity": 0.01,
            "popularity": 0.005,
            "freshness": 0.005,
            "exposure": 0.01,
        },
        min_length=1,
        description="Feature blocks (name or package.module:object) and what computing each costs, "
        "in units of f_feature.",
    )
    messages: MessageConfig = Field(
        default=NoMessages(), description="What components tell each other."
    )
    audit: AuditConfig = AuditConfig()
    trainer: TrainerConfig = TrainerConfig()
    data_access: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="Per component, the observation fields it may see; a component not listed may "
        "see all that it asks for.",
    )
    data_prices: dict[str, NonNegativeFloat] = Field(
        default_factory=dict,
        description="Per observation field, what each component that sees it costs a request, "
        "taken off the team reward as extra_cost.",
    )

    @model_validator(mode="after")
    def _funnel(self) -> PipelineConfig:
        if self.slate_size > self.candidates:
            raise ValueError(
                f"slate_size {self.slate_size} exceeds candidates {self.candidates}; "
                "show fewer or recall more"
            )
        if len(set(self.components)) != len(self.components):
            raise ValueError("components: each may be named once")
        return self
