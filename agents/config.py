"""The configuration of a run, composed of the sections that lie beside the code they configure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from agents.learners.config import (
    GAMMA,
    AlgorithmConfig,
    MAPPOConfig,
    NetworkConfig,
    OwnConfig,
    PPOFamily,
    RLlibConfig,
    SamplingConfig,
)
from agents.pettingzoo_adapter import PettingZooConfig
from marec_env.config import ConfigModel, Device, Seed, chosen_device, usable_device
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError
from marec_env.rewards.config import DISCOUNT

_NOT_HASHED = {"name", "seed", "device", "output", "tracking"}
_PLACED = ("environment", "sampling")  # sections that may name a device of their own


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
    every: int | None = Field(
        default=100_000,
        ge=1,
        description="Env steps between evaluations of the team as it trains, on the same sessions; "
        "null for none. The best so far is kept in the run's folder best/.",
    )
    best: Literal["clicks", "satisfaction", "length", "return"] = Field(
        default="clicks",
        description="By which outcome the best is told; clicks a session, ... On other people's "
        "environments it is the return.",
    )
    sessions: int = Field(
        default=512, ge=2, description="Sessions each policy is rolled out on, the same for all."
    )
    seed: Seed = Field(
        default=1_000_003, description="Seed of these sessions; apart from training seeds."
    )
    baselines: tuple[str, ...] = Field(
        default=("random", "popularity", "item_knn", "static", "oracle"),
        description="What the trained team is compared with; on other people's environments only "
        "random and those of your own.",
    )
    play: Literal["greedy", "sampled"] = Field(
        default="greedy",
        description="How the trained team plays: greedy takes each component's most probable "
        "action, sampled draws actions as in training (mappo, ippo and happo).",
    )
    metrics: tuple[str, ...] = Field(
        default=(),
        description="Reward terms (name or package.module:object) that evaluations report as "
        "term/NAME though they pay nobody: metrics of your own.",
    )
    report: bool = Field(
        default=True, description="Print the comparison and draw the run's page, report.html."
    )
    environment: dict[str, Any] = Field(
        default={},
        description="Sections of the environment that differ where the team is evaluated, such as "
        "{data: {synthetic: {seed: 1}}}; what it sees and decides must be the same.",
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
    trackio: bool = Field(
        default=False,
        description="Also log into trackio's local dashboard, in TRACKIO_DIR (extra: trackio).",
    )


class RunConfig(ConfigModel):
    """Everything that decides a run; the same YAML and seed give the same run."""

    name: str = Field(
        default="marec",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="First part of the run folder's name: letters, digits, '_', '.', '-'.",
    )
    seed: Seed = Field(default=0, description="Seed from which every draw of the run follows.")
    device: Device | Literal["auto"] = Field(
        default="auto",
        description="Where everything is computed: auto (CUDA where there is one), cpu, cuda or "
        "cuda:i. May be set anew on resuming.",
    )
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

    @property
    def recommender(self) -> EnvironmentConfig:
        """The environment, which is marec's own.

        Raises:
            ConfigError: it is another.
        """
        if not isinstance(self.environment, EnvironmentConfig):
            raise ConfigError(f"{self.name}: environment.kind must be 'marec' here")
        return self.environment

    @property
    def evaluated_in(self) -> EnvironmentConfig | PettingZooConfig:
        """The environment in which the team is evaluated."""
        changes, own = self.evaluation.environment, self.environment
        if isinstance(own, EnvironmentConfig) and self.evaluation.metrics:
            unpaid = {name: 0.0 for name in self.evaluation.metrics if name not in own.rewards.team}
            changes = _laid_over({"rewards": {"team": unpaid}}, changes)
        return evaluation_environment(own, changes) if changes else own

    @model_validator(mode="after")
    def _evaluation_fits(self) -> Self:
        for key in ("environment", "metrics"):
            if getattr(self.evaluation, key) and not isinstance(
                self.environment, EnvironmentConfig
            ):
                raise ValueError(f"evaluation.{key} is for environment.kind 'marec' only")
        try:
            _ = self.evaluated_in
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise ValueError(f"evaluation.environment: {place}: {first['msg']}") from None
        return self

    @model_validator(mode="after")
    def _inputs_as_they_are(self) -> Self:
        """Let networks of PettingZoo environments see inputs as they are, unless told otherwise."""
        if isinstance(self.environment, PettingZooConfig):
            object.__setattr__(self, "algorithm", _raw_by_default(self.algorithm))
        return self

    @model_validator(mode="after")
    def _actions_can_be_drawn(self) -> Self:
        if self.evaluation.play == "sampled" and not isinstance(self.algorithm, PPOFamily):
            raise ValueError(
                f"evaluation.play 'sampled' draws from learned distributions, and algorithm.kind "
                f"'{self.algorithm.kind}' has none here; choose 'greedy'"
            )
        return self

    @model_validator(mode="after")
    def _shards_are_kept_once(self) -> Self:
        """Refuse runners beside item shards: each would build, and divide, a catalog of its own."""
        if not isinstance(self.environment, EnvironmentConfig):
            return self
        shards, runners = self.environment.pipeline.recall.shards, self.sampling.num_env_runners
        if shards > 1 and runners:
            raise ValueError(
                f"environment.pipeline.recall.shards is {shards} and sampling.num_env_runners "
                f"{runners}: item shards serve the process that made them; set shards to 1, or "
                "num_env_runners to 0"
            )
        return self

    @model_validator(mode="after")
    def _one_discount(self) -> Self:
        """Give learners of the recommender its discount, and see that shaping has the learner's."""
        algorithm, environment = self.algorithm, self.environment
        if not isinstance(environment, EnvironmentConfig) or isinstance(algorithm, OwnConfig):
            return self
        if isinstance(algorithm, RLlibConfig):
            discount = algorithm.settings.get("gamma", GAMMA)
        else:
            if "gamma" not in algorithm.model_fields_set:
                algorithm = algorithm.model_copy(update={"gamma": DISCOUNT})
                object.__setattr__(self, "algorithm", algorithm)  # frozen once validated
            discount = algorithm.gamma
        for number, shaping in enumerate(environment.rewards.shaping):
            if shaping.gamma != discount:
                raise ValueError(
                    f"environment.rewards.shaping[{number}].gamma is {shaping.gamma} and "
                    f"algorithm.gamma {discount}; shaping leaves optimal play as it is only "
                    "where they are equal: set both alike"
                )
        return self


def _raw_by_default(section: Any) -> Any:
    """Return a section in which no network normalises inputs but one that was told to."""
    if isinstance(section, Mapping):
        return {name: _raw_by_default(part) for name, part in section.items()}
    if isinstance(section, NetworkConfig):
        given = "normalise_inputs" in section.model_fields_set
        return section if given else section.model_copy(update={"normalise_inputs": False})
    if not isinstance(section, ConfigModel):
        return section
    parts = {name: _raw_by_default(getattr(section, name)) for name in type(section).model_fields}
    changed = {name: part for name, part in parts.items() if part is not getattr(section, name)}
    return section.model_copy(update=changed) if changed else section


def evaluation_environment(
    environment: ConfigModel | Mapping[str, Any], changes: Mapping[str, Any]
) -> EnvironmentConfig:
    """Return an environment with the sections of ``evaluation.environment`` laid over it.

    Raises:
        ValidationError: they do not fit.
    """
    if isinstance(environment, ConfigModel):
        environment = environment.model_dump(mode="json")
    return EnvironmentConfig.model_validate(_laid_over(environment, changes), strict=False)


def _laid_over(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested sections with others on top; one that names another kind replaces its own."""
    found = dict(base)
    for key, value in top.items():
        below = found.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            alike = value.get("kind", below.get("kind")) == below.get("kind")
            value = _laid_over(below, value) if alike else dict(value)
        found[key] = value
    return found


def placed(config: RunConfig) -> RunConfig:
    """Return a run with the device of each part decided, for this machine.

    Raises:
        ConfigError: the machine lacks a device that the run names.
    """
    device, parts = chosen_device("device", config.device), {}
    for name in _PLACED:
        section = getattr(config, name)
        own = getattr(section, "device", device)  # other people's environments have none
        if own is None:
            parts[name] = section.model_copy(update={"device": device})
        else:
            usable_device(f"{name}.device", own)
    return config.model_copy(update=parts)


def moved(config: RunConfig, device: str) -> RunConfig:
    """Return a run with everything on one device."""
    parts = {
        name: section.model_copy(update={"device": None})
        for name in _PLACED
        if hasattr(section := getattr(config, name), "device")
    }
    return config.model_copy(update={"device": device, **parts})


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
