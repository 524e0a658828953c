"""Writes the committed configuration files from the Python defaults: ``make configs``."""

from __future__ import annotations

import json
from pathlib import Path

from agents.config import RunConfig
from marec_env import io
from marec_env.config.dump import dump, json_schema
from marec_env.scenarios import SCENARIO_CHANGES, scenario_environment

__all__ = ["main"]

_FIRST_LINE = "# The main job: shared-reward MAPPO on the default preset."


def main(folder: Path = Path("configs")) -> None:
    """Write ``default.yaml``, every key at its default, what the scenarios change, and the JSON
    Schema for editors.
    """
    io.write_text(folder / "default.yaml", f"{_FIRST_LINE}\n{dump(RunConfig())}")
    for name in SCENARIO_CHANGES:
        config = RunConfig(name=name, environment=scenario_environment(name))
        first = f"# Scenario {name}: what differs from default.yaml (docs/users.md)."
        io.write_text(
            folder / "scenarios" / f"{name}.yaml", f"{first}\n{dump(config, RunConfig())}"
        )
    schema = json.dumps(json_schema(RunConfig), indent=2) + "\n"
    io.write_text(folder / "schema.json", schema)


if __name__ == "__main__":
    main()
