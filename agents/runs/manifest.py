"""``manifest.json``: what a run was made of, so that it can be made again."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from marec_env import __version__, io
from marec_env.errors import RunError

__all__ = [
    "TOPICS",
    "build_manifest",
    "changed_inputs",
    "check_same_inputs",
    "code_state",
    "read_manifest",
    "record_resume",
]

TOPICS = "topics"
"""Name of the hash of an environment's topics among a manifest's inputs."""
_PACKAGES = (
    "torch", "ray", "gymnasium", "pettingzoo", "numpy", "scipy", "transformers", "safetensors",
    "pydantic", "implicit", "wandb",
)  # fmt: skip
_GIT_TIMEOUT = 10  # seconds; a repository on a stalled network disk must not hold up a run


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"marec": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def _git(*arguments: str) -> str | None:
    """Return the output of git in the source's folder, ``None`` outside a repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _hardware() -> dict[str, Any]:
    import torch

    return {
        "machine": platform.machine(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def code_state() -> dict[str, str | bool | None]:
    """Return the source's git ``commit``, and whether it is ``dirty``; ``None`` outside git."""
    status = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
    }


def build_manifest(
    *, seed: int, config_hash: str, inputs: Mapping[str, str], command: list[str]
) -> dict[str, Any]:
    """Return the manifest of a run that starts now.

    Args:
        seed: the run's seed, from which all others follow.
        config_hash: hash of the configuration without seed and name.
        inputs: hashes by name of the data and the weights that the run reads.
        command: the command line.
    """
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": command,
        "versions": _versions(),
        "git": code_state(),
        "seeds": {"run": seed},
        "config_hash": config_hash,
        "inputs": dict(inputs),
        "hardware": _hardware(),
        "python": sys.executable,
        "resumes": [],
    }


def read_manifest(path: Path) -> dict[str, Any]:
    """Return a run's manifest.

    Raises:
        RunError: it is missing or damaged.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing; the run cannot be continued") from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); restore it to continue") from error
    if not isinstance(content, dict):
        raise RunError(f"{path} is not a manifest; restore it to continue")
    return content


def check_same_inputs(manifest: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
    """Refuse to continue a run on other data, weights or topics than it began with.

    Raises:
        RunError: a hash differs.
    """
    for name in changed_inputs(manifest, inputs):
        raise RunError(
            f"{name} changed since the run began (then {manifest['inputs'][name]}, now "
            f"{inputs.get(name)}); restore what was then, or start a new run"
        )


def changed_inputs(manifest: Mapping[str, Any], inputs: Mapping[str, str]) -> list[str]:
    """Return the names of a manifest's inputs that are not what they were."""
    then = manifest.get("inputs", {})
    return [name for name, before in then.items() if inputs.get(name) != before]


def record_resume(path: Path, env_steps: int, overrides: list[str]) -> None:
    """Add one continuation to a manifest."""
    manifest = read_manifest(path)
    manifest.setdefault("resumes", []).append(
        {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "env_steps": env_steps,
            "overrides": overrides,
            "versions": _versions(),
        }
    )
    io.write_json(path, manifest)
