"""``manifest.json``: what a run was made of, and by which code, so that it can be made again."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ConfigDict
from typing_extensions import TypedDict

from agents.config import RunConfig, config_hash
from agents.runs.folder import RunFolder
from marec_env import __version__, io
from marec_env.config import chosen_device
from marec_env.config.loader import load, load_mapping
from marec_env.errors import RunError
from marec_env.registry import search_in, searched, trusted
from marec_env.shipped import typed

TOPICS = "topics"
"""Name of the hash of an environment's topics among a manifest's inputs."""
DECISIVE = ("marec_env", "agents/learners")
"""Source folders that decide what a run learns and is measured by."""
_PACKAGES = (
    "torch", "ray", "gymnasium", "pettingzoo", "numpy", "scipy", "transformers", "safetensors",
    "pydantic", "implicit", "wandb",
)  # fmt: skip
_ROOT = Path(__file__).resolve().parents[2]
_GIT_TIMEOUT = 10  # seconds; a repository on a stalled network disk must not hold up a run
_LABELS = ("name", "output", "tracking.")
"""Settings that decide nothing about a run's numbers."""


class _Git(TypedDict, total=False):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    commit: str | None
    dirty: bool | None
    source: str | None


class _Resume(TypedDict, total=False):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    device: str
    env_steps: int
    versions: dict[str, str | None]
    git: _Git | None


class Manifest(TypedDict, total=False):
    """The parts of a manifest that are read back."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    versions: dict[str, str | None]
    git: _Git | None
    seeds: dict[str, int]
    config_hash: str
    config: dict[str, Any]
    device: str
    inputs: dict[str, str]
    warnings: list[str]
    privacy: dict[str, Any] | None
    code_folders: list[str]
    resumes: list[_Resume]


@dataclass(frozen=True, slots=True)
class CodeVersion:
    """The code that trained or evaluated a run."""

    commit: str | None
    """Of git; ``None`` outside a repository."""
    dirty: bool = False
    """Whether files differed from the commit."""
    source: str | None = None
    """SHA-256 of the sources in :data:`DECISIVE`; older runs do not have it."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> CodeVersion:
        """Return the version in the ``git`` entry of a manifest, a resume or an evaluation."""
        git = document.get("git") or {}
        return cls(git.get("commit"), bool(git.get("dirty")), git.get("source"))

    @classmethod
    @cache
    def here(cls) -> CodeVersion:
        """Return the version of the code that runs."""
        digest = hashlib.sha256()
        for folder in DECISIVE:
            for path in sorted((_ROOT / folder).rglob("*.py")):
                digest.update(f"{path.relative_to(_ROOT)}\0".encode() + path.read_bytes() + b"\0")
        status = _git("status", "--porcelain", "--untracked-files=no")
        return cls(_git("rev-parse", "HEAD"), bool(status), digest.hexdigest())

    def same(self, other: CodeVersion) -> bool:
        """Whether both decide alike what a run learns, as far as is known."""
        if self.source is not None and other.source is not None:
            return self.source == other.source
        return (self.commit, self.dirty) == (other.commit, other.dirty)

    def __str__(self) -> str:
        name = self.commit[:10] if self.commit else "unknown"
        return f"{name} with uncommitted changes" if self.dirty else name


def _git(*arguments: str) -> str | None:
    """Return the output of git in the source's folder, ``None`` outside a repository."""
    command = ["git", "-C", str(_ROOT), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_GIT_TIMEOUT, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"marec": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def _hardware() -> dict[str, Any]:
    import torch

    try:
        memory: int | None = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        memory = None
    return {
        "machine": platform.machine(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "memory_bytes": memory,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def build_manifest(
    config: RunConfig,
    inputs: Mapping[str, str],
    command: list[str],
    warnings: Sequence[str] = (),
    privacy: Mapping[str, Any] | None = None,
) -> Manifest:
    """Return the manifest of a run that starts now.

    ``inputs`` are hashes by name of what the run reads, ``warnings`` what is not plausible about
    it, ``privacy`` what is guaranteed to the log's users; the configuration is kept, so that a
    later edit of ``config.yaml`` is noticed.
    """
    return {  # type: ignore[typeddict-unknown-key]
        "started": _now(),
        "command": command,
        "versions": _versions(),
        "git": asdict(CodeVersion.here()),  # type: ignore[typeddict-item]
        "seeds": {"run": config.seed},
        "config_hash": config_hash(config),
        "config": config.model_dump(mode="json"),
        "inputs": dict(inputs),
        "warnings": list(warnings),
        "privacy": None if privacy is None else dict(privacy),
        "code_folders": searched(),
        "device": chosen_device("device", config.device),
        "hardware": _hardware(),
        "python": sys.executable,
        "resumes": [],
    }


def read_manifest(path: Path) -> Manifest:
    """Return a run's manifest.

    Raises:
        RunError: it is missing or damaged.
    """
    found: Manifest = io.read_json(
        path,
        Manifest,
        f"restore it, or start a new run: {typed('train')} {RunFolder(path.parent).config}",
    )
    return found


def run_config(folder: RunFolder, overrides: Sequence[str] = ()) -> RunConfig:
    """Return a run's configuration; code that it names is found where it was when the run began.

    Raises:
        ConfigError: it cannot be read, or overrides do not fit.
    """
    with suppress(RunError):  # a manifest that cannot be read is told where it matters
        for place in read_manifest(folder.manifest).get("code_folders", []):
            if trusted(folder.manifest):
                search_in(place)
    return load(folder.config, RunConfig, overrides)


def changed_inputs(manifest: Manifest, inputs: Mapping[str, str]) -> list[str]:
    """Return the names of a manifest's inputs that are not what they were."""
    then = manifest.get("inputs", {})
    return [name for name, before in then.items() if inputs.get(name) != before]


def changed_settings(manifest: Manifest, config: RunConfig) -> dict[str, str]:
    """Return what a configuration has otherwise than the run was made with, by dotted key.

    Labels do not count, and code that the manifest alone names is not loaded to find out.
    Manifests of versions that did not keep the configuration tell of the seed alone: their hashes
    do not outlive a new setting.
    """
    document = config.model_dump(mode="json")
    now = flatten(document)
    if "config" in manifest:
        kept = manifest["config"]
        if kept != document and _places(kept) <= _places(document):
            kept = load_mapping(kept, RunConfig, "manifest.json").model_dump(mode="json")
        then = flatten(kept)
    else:
        then = {**now, "seed": manifest.get("seeds", {}).get("run", config.seed)}
    return {
        key: f"{key}: {then.get(key, 'not set')} then, {now.get(key, 'not set')} now"
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key) and not key.startswith(_LABELS)
    }


def _places(document: Mapping[str, Any]) -> set[str]:
    """Return the places of code, ``package.module:object``, that a configuration names."""
    return set(re.findall(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", json.dumps(document)))


def flatten(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping as one of dotted keys."""
    found: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def record_resume(
    path: Path, config: RunConfig, env_steps: int, overrides: Sequence[str], notes: Sequence[str]
) -> list[str]:
    """Add one continuation to a manifest: when, where, with which settings and by which code.

    Args:
        path: of the manifest.
        config: that the run goes on with.
        env_steps: where it goes on.
        overrides: ``section.key=value`` each.
        notes: what else a reader of the run must know.

    Returns:
        Warnings: the code, a package or the device is another than before.
    """
    manifest = read_manifest(path)
    code, versions = CodeVersion.here(), _versions()
    warnings = []
    began = CodeVersion.of(manifest)
    if not code.same(began):
        warnings.append(f"the run began with other code ({began}, now {code}); compare will say so")
    then = manifest.get("versions", {})
    other = [f"{k} {then[k]}, now {v}" for k, v in versions.items() if k in then and then[k] != v]
    if other:
        warnings.append(f"the run began with other versions ({'; '.join(other)})")
    device = chosen_device("device", config.device)
    resumed = [manifest, *manifest.get("resumes", [])]
    before = next((r["device"] for r in reversed(resumed) if "device" in r), device)
    if device != before:
        warnings.append(f"the run goes on on {device} (before: {before}): numbers round otherwise")
    resume = {
        "device": device,
        "at": _now(),
        "env_steps": env_steps,
        "overrides": list(overrides),
        "versions": versions,
        "git": asdict(code),
        "notes": list(notes),
    }
    content = {
        **manifest,
        "config": config.model_dump(mode="json"),
        "config_hash": config_hash(config),
        "resumes": [*manifest.get("resumes", []), resume],
    }
    io.write_json(path, content)
    return warnings


def trained_by(manifest: Manifest, env_steps: float) -> list[CodeVersion]:
    """Return the versions of the code that trained a run to ``env_steps``, in order, each once; a
    continuation that trained nothing does not count.
    """
    parts = [(0, CodeVersion.of(manifest))]
    parts += [(r.get("env_steps", 0), CodeVersion.of(r)) for r in manifest.get("resumes", [])]
    ends = [start for start, _ in parts[1:]] + [env_steps]
    found: list[CodeVersion] = []
    for (start, code), end in zip(parts, ends, strict=True):
        # Continuations of older versions did not write down their code.
        known = code.commit is not None or code.source is not None
        if start < end and known and not any(code.same(other) for other in found):
            found.append(code)
    return found or [parts[0][1]]
