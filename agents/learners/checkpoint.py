"""Training state on disk: tensors as safetensors, the rest as JSON; nothing is unpickled."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from marec_env.errors import RunError
from marec_env.io import sha256_of, write_json

__all__ = ["FORMAT", "atomic_folder", "load_tree", "save_tree"]

FORMAT = 1
"""Version of the layout; a change that old code cannot read raises it."""


@contextmanager
def atomic_folder(target: str | Path) -> Iterator[Path]:
    """Give a temporary folder to fill, which becomes ``target`` when all is written.

    An existing folder is replaced only after the new one is complete.

    Raises:
        RunError: it cannot be written; ``target`` keeps what it held.
    """
    final = Path(target)
    temporary: Path | None = None
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}."))
        yield temporary
        if final.exists():
            old = temporary.with_name(temporary.name + ".old")
            os.replace(final, old)
            os.replace(temporary, final)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(temporary, final)
    except (OSError, SafetensorError) as error:
        raise RunError(f"cannot write {final}: {error}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def save_tree(folder: Path, name: str, tree: Any) -> None:
    """Write a nested structure as ``name.json`` and ``name.safetensors``.

    Args:
        folder: existing folder.
        name: stem of both files.
        tree: dicts, lists, tuples, numbers, strings, booleans, None, tensors and numpy arrays.

    Raises:
        RunError: a leaf is of another kind, or a file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    encoded = _encode(tree, tensors, name)
    weights = folder / f"{name}.safetensors"
    try:
        save_file(tensors, weights)
        with open(weights, "rb") as stream:
            os.fsync(stream.fileno())
    except (OSError, SafetensorError) as error:
        raise RunError(f"cannot write {weights}: {error}") from error
    write_json(
        folder / f"{name}.json",
        {"format": FORMAT, "sha256": sha256_of(weights), "tree": encoded},
    )


def load_tree(folder: Path, name: str) -> Any:
    """Return what :func:`save_tree` wrote; numpy arrays come back as such.

    Raises:
        RunError: a file is missing, damaged, or of a newer format.
    """
    description, weights = folder / f"{name}.json", folder / f"{name}.safetensors"
    try:
        document = json.loads(description.read_text())
        if document["format"] > FORMAT:
            raise RunError(
                f"{description} has format {document['format']}; this version reads up to"
                f" {FORMAT}: update marec"
            )
        if sha256_of(weights) != document["sha256"]:
            raise RunError(f"{weights} is damaged (its hash differs); use an earlier checkpoint")
        return _decode(document["tree"], load_file(weights))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise RunError(
            f"cannot read the checkpoint {folder} ({description.name}): {error};"
            " use an earlier checkpoint"
        ) from error


def _encode(value: Any, tensors: dict[str, Tensor], path: str) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        # JSON lacks infinities and NaN, and floats must come back to the bit.
        return {"float": value.hex()}
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().contiguous().clone()
        return {"tensor": path}
    if isinstance(value, np.ndarray):
        tensors[path] = torch.from_numpy(np.array(value))
        return {"array": path}
    if isinstance(value, np.generic):
        return _encode(value.item(), tensors, path)
    if isinstance(value, Mapping):
        items = [
            [_encode(key, tensors, f"{path}.key"), _encode(item, tensors, f"{path}.{key}")]
            for key, item in value.items()
        ]
        return {"dict": items}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_encode(item, tensors, f"{path}.{i}") for i, item in enumerate(value)]}
    raise RunError(f"cannot save '{path}': values of type {type(value).__name__} are not supported")


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "float":
        return float.fromhex(content)
    if kind == "tensor":
        return tensors[content]
    if kind == "array":
        return tensors[content].numpy()
    if kind == "dict":
        return {_decode(k, tensors): _decode(v, tensors) for k, v in content}
    items = [_decode(item, tensors) for item in content]
    return items if kind == "list" else tuple(items)
