"""Further rows of a comparison, from files that other commands wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agents.comparison.grouping import refuse_other_topics
from agents.comparison.rows import Row, policy_row
from agents.comparison.runs import TRAINED, Run
from agents.runs.manifest import TOPICS, read_manifest
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError

__all__ = ["rows_of_file"]

_TRAINED_LEVEL = "trained: "  # how the game's report calls the runs it was given


def rows_of_file(path: Path, like: Run) -> tuple[list[Row], list[str]]:
    """Return further rows from an ``evaluation.json`` or from the report of ``evaluate.py game``.

    Args:
        path: the file; its trained teams, and their controls, are left out.
        like: a run whose evaluation the file's sessions must equal.

    Returns:
        The rows, and notes on what could not be checked.

    Raises:
        ConfigError: the file is neither, or was made on other sessions.
    """
    assert like.evaluation is not None
    try:
        document = json.loads(path.read_text())
        game = "levels" in document
        plan = document["plan"] if game else document
        seed, sessions = plan["cohort" if game else "seed"], plan["sessions"]
        policies = (
            {
                name: {"outcomes": level}
                for name, level in document["levels"].items()
                if not name.startswith(_TRAINED_LEVEL)
            }
            if game
            else {n: policy for n, policy in document["policies"].items() if n != TRAINED}
        )
        for name, policy in policies.items():
            policy.setdefault("privileged", name.startswith("oracle"))
            float(policy["outcomes"]["clicks"]["mean"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is neither an evaluation.json nor a report of 'evaluate.py game' "
            f"({type(error).__name__}: {error})"
        ) from error
    if seed != like.evaluation["seed"]:
        raise ConfigError(
            f"{path} was made on other sessions (seed {seed}) than the runs were evaluated on "
            f"({like.evaluation['seed']}); make it anew with that seed"
        )
    notes = []
    if sessions != like.evaluation["sessions"]:
        notes.append(
            f"the rows from {path} are over {sessions} sessions of the same seed, the runs over "
            f"{like.evaluation['sessions']}"
        )
    environment = document.get("environment")
    if environment is None:
        notes.append(f"{path} does not say on which environment it was made: not checked")
    elif _completed(environment) != like.config.get("environment"):
        raise ConfigError(f"{path} was made on another environment than {like.path}")
    source = Run(
        path,
        -1,
        {},
        "",
        like.codes,
        evaluation={"sessions": sessions, "policies": policies},
        topics=_topics(path, document),
    )
    refuse_other_topics(like, source)
    rows = [
        policy_row(source, name, name, "oracle" if policy["privileged"] else "baseline")
        for name, policy in policies.items()
    ]
    return rows, notes


def _topics(path: Path, document: dict[str, Any]) -> str | None:
    """Return the hash of the topics behind a file: its own, or of the run that it evaluates."""
    inputs = document.get("inputs")
    if inputs is None and (path.parent / "manifest.json").is_file():
        inputs = read_manifest(path.parent / "manifest.json").get("inputs")
    return (inputs or {}).get(TOPICS)


def _completed(environment: Any) -> Any:
    """Return an environment with the settings that it does not name yet, as runs are read."""
    try:
        found = EnvironmentConfig.model_validate(environment, strict=False)
    except ValidationError:
        return environment  # of another kind or version: equal to none of the runs'
    return found.model_dump(mode="json")
