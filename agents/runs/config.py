"""Configuration of how long a run trains, what it keeps, and where its numbers go."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from marec_env.config import ConfigModel, Seed

__all__ = ["EvaluationConfig", "TrackingConfig", "TrainingConfig"]


class TrainingConfig(ConfigModel):
    """The budget of a run, and what it keeps on the way."""

    env_steps: int = Field(
        default=400_000,
        ge=1,
        description="Requests to train on, over all sessions; training then ends.",
    )
    checkpoint_every: int = Field(
        default=50_000,
        ge=1,
        description="Env steps between checkpoints; one more is written at the end.",
    )
    keep_checkpoints: int = Field(
        default=3, ge=0, description="How many of the newest checkpoints stay on disk; 0 keeps all."
    )


class EvaluationConfig(ConfigModel):
    """The comparison that ends a run: every policy meets the same users with the same luck."""

    at_end: bool = Field(default=True, description="Compare with the baselines when training ends.")
    sessions: int = Field(
        default=512, ge=2, description="Sessions each policy is rolled out on, the same for all."
    )
    seed: Seed = Field(
        default=1_000_003, description="Seed of these sessions; apart from training seeds."
    )
    baselines: tuple[str, ...] = Field(
        default=("random", "popularity", "item_knn", "static", "oracle"),
        description="What the trained team is compared with.",
    )


class TrackingConfig(ConfigModel):
    """Dashboards beside ``metrics.jsonl``, which is always written."""

    wandb: Literal["auto", "online", "offline", "disabled"] = Field(
        default="auto",
        description="Weights & Biases. auto: as WANDB_MODE says, else online when logged in, "
        "otherwise offline into the run's folder.",
    )
    project: str = Field(default="marec", min_length=1, description="W&B project.")
    entity: str | None = Field(
        default=None, description="W&B user or team; null is the account's default."
    )
    group: str | None = Field(
        default=None,
        description="W&B group; null makes one of algorithm, environment preset and configuration, "
        "which the seeds of one experiment share.",
    )
    tags: tuple[str, ...] = Field(default=(), description="W&B tags.")
    tensorboard: bool = Field(
        default=False,
        description="Also write TensorBoard events into the run's folder (extra: tensorboard).",
    )
