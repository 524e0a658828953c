"""The configuration of a run, composed of the sections that lie beside the code they configure."""

from __future__ import annotations

import hashlib
import json
from typing import Self

from pydantic import Field, model_validator

from agents.learners.config import AlgorithmConfig, MAPPOConfig, SamplingConfig
from agents.pettingzoo_adapter import PettingZooConfig
from agents.runs.config import EvaluationConfig, TrackingConfig, TrainingConfig
from marec_env.config.base import ConfigModel
from marec_env.environment_config import EnvironmentConfig

__all__ = ["RunConfig", "config_hash", "preset_name"]

RECOMMENDER_GAMMA = 0.8
"""Discount on the recommender's environment unless one is given: the table of discounts in
docs/learners.md says why."""

_NOT_HASHED = {"name", "seed", "output", "tracking"}


class RunConfig(ConfigModel):
    """Everything that decides a run; the same YAML and seed give the same run."""

    name: str = Field(
        default="marec",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="First part of the run folder's name: letters, digits, '_', '.', '-'.",
    )
    seed: int = Field(default=0, ge=0, description="Seed from which every draw of the run follows.")
    output: str = Field(
        default="runs", min_length=1, description="Folder in which run folders are made."
    )
    environment: EnvironmentConfig | PettingZooConfig = Field(
        default=EnvironmentConfig(), discriminator="kind", description="The task."
    )
    algorithm: AlgorithmConfig = Field(default=MAPPOConfig(), description="What learns.")
    sampling: SamplingConfig = Field(
        default=SamplingConfig(), description="How experience is gathered, and on what devices."
    )
    training: TrainingConfig = Field(
        default=TrainingConfig(), description="How long to train, and what to keep."
    )
    evaluation: EvaluationConfig = Field(
        default=EvaluationConfig(), description="The comparison at the end."
    )
    tracking: TrackingConfig = Field(default=TrackingConfig(), description="Dashboards.")

    @model_validator(mode="after")
    def _discount_of_recommenders(self) -> Self:
        """Fill in the discount where none is given and the task is the recommender."""
        algorithm = self.algorithm
        ours = isinstance(self.environment, EnvironmentConfig)
        if ours and "gamma" in type(algorithm).model_fields.keys() - algorithm.model_fields_set:
            filled = algorithm.model_copy(update={"gamma": RECOMMENDER_GAMMA})
            object.__setattr__(self, "algorithm", filled)  # the model is frozen once validated
        return self


def config_hash(config: RunConfig) -> str:
    """Return 64 hexadecimal digits that runs differing only in seed and labels share."""
    content = config.model_dump(mode="json", exclude=_NOT_HASHED)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def preset_name(config: RunConfig) -> str:
    """Return what the run's environment is called in dashboards."""
    environment = config.environment
    if isinstance(environment, PettingZooConfig):
        return environment.entry_point.partition(":")[0]
    return environment.users.model
