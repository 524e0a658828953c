"""A policy that something else has trained, as the folder of an evaluated run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from agents.config import RunConfig

if TYPE_CHECKING:
    from marec_env.evaluation.policies import Policy

_TRIAL = 2  # sessions on which a policy is tried
Setting = float | int | bool | str | None


def record_policy(
    policy: Policy,
    config: RunConfig | str | Path,
    algorithm: str,
    env_steps: int,
    *,
    seed: int = 0,
    settings: Mapping[str, Setting] | None = None,
    run_dir: Path | None = None,
) -> Path:
    """Evaluate a policy as a run is evaluated, and write a run's folder of it.

    ``evaluate.py compare`` takes the folder beside those of ``train.py``; folders of one
    ``algorithm`` with the same settings are seeds of one experiment.

    Args:
        policy: of a team or of slates (:mod:`marec_env.evaluation.policies`).
        config: a run's configuration, or its file (``configs/quick.yaml``, ``RUN/config.yaml``):
            the environment that the policy learned in, and on which sessions and beside which
            baselines it is to be evaluated.
        algorithm: what trained it; its name in tables.
        env_steps: its budget: requests that it could learn from, the same for all seeds.
        seed: of its training.
        settings: of its training, for the record: what tells its experiments apart.
        run_dir: the folder; by default a new one in the configuration's ``output``.

    Returns:
        The folder.

    Raises:
        MarecError: the input is at fault; nothing is written then.
    """
    from agents.commands.cohort import EvaluationCohort
    from agents.commands.evaluate import evaluate_run
    from agents.runs.environment import evaluation_world, input_hashes, told_of
    from agents.runs.folder import RunFolder, check_place, create_run, run_name
    from agents.runs.manifest import build_manifest
    from agents.runs.metrics_log import append_metrics
    from marec_env import io
    from marec_env.config.loader import load, load_mapping
    from marec_env.config.yaml_source import dump
    from marec_env.evaluation.rollout import rollout

    known = config if isinstance(config, RunConfig) else load(Path(config), RunConfig)
    changes = {
        "name": known.name,
        "seed": seed,
        "device": known.device,
        "output": known.output,
        "environment": known.recommender.model_dump(),
        "algorithm": {"kind": "own", "name": algorithm, "settings": dict(settings or {})},
        "sampling": known.sampling.model_dump(),
        "training": {"env_steps": env_steps},
        "evaluation": known.evaluation.model_dump(),
    }
    own = load_mapping(changes, RunConfig, "record_policy")
    place = run_dir or Path(own.output) / run_name(own.name, algorithm, seed)
    check_place(place)
    cohort = EvaluationCohort(world := evaluation_world(own), own.evaluation)
    rollout(world, policy, _TRIAL, seed=0)  # one that fails is told before there is a folder
    manifest = build_manifest(own, input_hashes(own), sys.argv, *told_of(own))

    def fill(folder: RunFolder) -> None:
        io.write_text(folder.config, dump(own))
        io.write_json(folder.manifest, manifest)
        append_metrics(folder.metrics, {"env_steps": env_steps, "iterations": 1})

    folder = create_run(place, fill, unique=run_dir is None)
    evaluate_run(folder.path, cohort, policy, env_steps, replace=True)
    return folder.path
