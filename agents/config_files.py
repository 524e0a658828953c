"""Writes the committed configuration files from the Python defaults: ``make configs``."""

from __future__ import annotations

import json
from pathlib import Path

from agents.config import RunConfig
from marec_env import io
from marec_env.config.dump import dump, json_schema

__all__ = ["main"]

_FIRST_LINE = "# The main job: shared-reward MAPPO on the default preset."


def main(folder: Path = Path("configs")) -> None:
    """Write ``default.yaml``, every key at its default, and the JSON Schema for editors."""
    io.write_text(folder / "default.yaml", f"{_FIRST_LINE}\n{dump(RunConfig())}")
    schema = json.dumps(json_schema(RunConfig), indent=2) + "\n"
    io.write_text(folder / "schema.json", schema)


if __name__ == "__main__":
    main()
