"""What is made from the configuration's Python types: ``make configs`` writes docs/reference.md.

``python -m agents.config_files schema`` prints the JSON Schema, with which editors complete and
check YAML.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from agents.config import RunConfig
from marec_env import io
from marec_env.config.reference import reference

__all__ = ["main", "page"]

_FIRST = (
    "Every key of a run's file, made from the code by `make configs`. A file need only name what "
    "differs from these defaults; `extends: FILE` builds on another; `--set key=value` overrides "
    "one key. Each run's folder holds its complete configuration."
)


def page() -> str:
    """Return the reference of a run's configuration."""
    return reference(RunConfig, "Configuration", _FIRST)


def main(arguments: list[str], folder: Path = Path("docs")) -> None:
    """Print the schema, or write the reference."""
    if arguments == ["schema"]:
        dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
        print(json.dumps({**dialect, **RunConfig.model_json_schema()}, indent=2))
    else:
        io.write_text(folder / "reference.md", page())


if __name__ == "__main__":
    main(sys.argv[1:])
