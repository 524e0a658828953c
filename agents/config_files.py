"""Writes the committed configuration files from the Python defaults: ``make configs``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from agents.config import RunConfig
from marec_env import io
from marec_env.config.dump import dump, json_schema

__all__ = ["CONFIGS", "main"]

CONFIGS: Mapping[str, str] = {
    "default.yaml": "The main job: shared-reward MAPPO on the default preset.",
}
"""Files that hold every key at its default, and their first line."""


def main(folder: Path = Path("configs")) -> None:
    """Write the full default configuration and the JSON Schema for editors."""
    for name, line in CONFIGS.items():
        io.write_text(folder / name, f"# {line}\n{dump(RunConfig())}")
    schema = json.dumps(json_schema(RunConfig), indent=2) + "\n"
    io.write_text(folder / "schema.json", schema)


if __name__ == "__main__":
    main()
