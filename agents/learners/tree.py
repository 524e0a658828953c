"""The state of training as files: nested tensors (safetensors) and JSON; nothing is unpickled."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from marec_env.errors import RunError
from marec_env.io import read_json, write_json

FORMAT = 1
"""Version of a checkpoint's layout; a change that old code cannot read raises it."""


def check_format(path: Path, document: Mapping[str, Any]) -> None:
    """Refuse a file that a newer version wrote.

    Raises:
        RunError: it is, or does not say.
    """
    found = document.get("format")
    if not isinstance(found, int) or found > FORMAT:
        raise RunError(
            f"{path} has format {found}; this version reads up to {FORMAT}: update marec"
        )


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
    write_json(folder / f"{name}.json", {"format": FORMAT, "tree": encoded})


def load_tree(folder: Path, name: str) -> Any:
    """Return what :func:`save_tree` wrote; numpy arrays come back as such.

    Raises:
        RunError: a file is missing, cut short, or of a newer format.
    """
    description, weights = folder / f"{name}.json", folder / f"{name}.safetensors"
    try:
        document = read_json(description, dict[str, Any])
        check_format(description, document)
        return _decode(document["tree"], load_file(weights))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
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
