"""The configuration of an environment: data, embeddings, catalog, users, pipeline, rewards."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from marec_env.catalog.build import CatalogConfig
from marec_env.config import ConfigModel, Device
from marec_env.data.config import DataConfig
from marec_env.data.population import PopulationConfig
from marec_env.data.recommender_log import KnowledgeConfig
from marec_env.embeddings.config import EmbeddingConfig
from marec_env.pipeline.config import PipelineConfig
from marec_env.rewards.config import MeasureConfig, RewardConfig
from marec_env.text.config import TextConfig
from marec_env.users.config import UsersConfig


class EnvironmentConfig(ConfigModel):
    """Everything that defines the task; two runs with equal sections play the same game."""

    kind: Literal["marec"] = Field(
        default="marec", description="marec: the recommender pipeline of this package."
    )
    max_requests: int = Field(
        default=40, ge=1, le=10_000, description="Requests after which an episode is cut off."
    )
    state: Literal["observable", "privileged"] = Field(
        default="observable",
        description="What the central critic sees: what the pipeline could know, or also the "
        "user's hidden state (for training only).",
    )
    device: Device | None = Field(
        default=None,
        description="Device of embedding and simulator: cpu, cuda or cuda:i; null: the run's "
        "`device`, and the CPU where there is no run.",
    )
    data: DataConfig = DataConfig()
    embeddings: EmbeddingConfig = EmbeddingConfig()
    catalog: CatalogConfig = CatalogConfig()
    population: PopulationConfig = PopulationConfig()
    text: TextConfig = TextConfig()
    knowledge: KnowledgeConfig = KnowledgeConfig()
    users: UsersConfig = UsersConfig()
    pipeline: PipelineConfig = PipelineConfig()
    rewards: RewardConfig = RewardConfig()
    measure: MeasureConfig = MeasureConfig()

    @model_validator(mode="after")
    def _privacy_holds(self) -> EnvironmentConfig:
        if self.data.privacy is None:
            return self
        if self.knowledge.federated is not None:
            raise ValueError(
                "knowledge.federated learns factors from the users' interactions, data.privacy "
                "from a release; take one of them"
            )
        for share in ("user_share", "interaction_share"):
            if getattr(self.knowledge, share) != 1.0:
                raise ValueError(
                    f"knowledge.{share} below 1 draws by what others consumed, which "
                    "data.privacy cannot bound; leave it at 1 and lower "
                    "data.privacy.contribution.events"
                )
        finetune = self.embeddings.finetune
        if finetune and finetune.objective == "from_reward" and self.data.privacy.users == "log":
            raise ValueError(
                "embeddings.finetune.objective: from_reward would fit the encoder to clicks of the "
                "log's own users, whom data.privacy protects; set data.privacy.users: release, or "
                "objective: co_click, which reads the release alone"
            )
        return self

    @model_validator(mode="after")
    def _costs_are_counted(self) -> EnvironmentConfig:
        pipeline, rewards = self.pipeline, self.rewards
        costs = {
            "pipeline.trainer.cost": pipeline.trainer.cost
            * ("trainer" in pipeline.components and not rewards.weights.get("trainer")),
            "pipeline.data_prices": sum(pipeline.data_prices.values()),
            "pipeline.messages.bandwidth_cost": getattr(pipeline.messages, "bandwidth_cost", 0.0),
        }
        for key, cost in costs.items():
            if cost and "extra_cost" not in rewards.team:
                raise ValueError(
                    f"{key} is not taken off F, since rewards.team lacks extra_cost; add "
                    "'extra_cost: -1' to it (0 leaves the cost out of F)"
                )
        return self
