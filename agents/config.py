"""The configuration of a run, composed of the sections that lie beside the code they configure."""

from __future__ import annotations

import hashlib
import json

from marec_env.environment_config import EnvironmentConfig
from pydantic import Field

from agents.learners.config import AlgorithmConfig, MAPPOConfig, SamplingConfig
from agents.runs.config import EvaluationConfig, TrackingConfig, TrainingConfig
from marec_env.config.base import ConfigModel

__all__ = ["RunConfig", "config_hash"]

_NOT_HASHED = {"name", "seed", "output", "tracking"}


class RunConfig(ConfigModel):
    """Everything that decides a run; the same YAML and seed give the same run."""

    name: str = Field(
        "marec",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="First part of the run folder's name: letters, digits, '_', '.', '-'.",
    )
    seed: int = Field(0, ge=0, description="Seed from which every draw of the run follows.")
    output: str = Field("runs", min_length=1, description="Folder in which run folders are made.")
    environment: EnvironmentConfig = Field(
        EnvironmentConfig(), description="Data, users, pipeline and rewards."
    )
    algorithm: AlgorithmConfig = Field(MAPPOConfig(), description="What learns.")
    sampling: SamplingConfig = Field(
        SamplingConfig(), description="How experience is gathered, and on what devices."
    )
    training: TrainingConfig = Field(
        TrainingConfig(), description="How long to train, and what to keep."
    )
    evaluation: EvaluationConfig = Field(
        EvaluationConfig(), description="The comparison at the end."
    )
    tracking: TrackingConfig = Field(TrackingConfig(), description="Dashboards.")


def config_hash(config: RunConfig) -> str:
    """Return 64 hexadecimal digits that runs differing only in seed and labels share."""
    content = config.model_dump(mode="json", exclude=_NOT_HASHED)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
