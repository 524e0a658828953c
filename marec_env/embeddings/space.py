"""Which vectors may stand for one another: the key of a cache's space."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from marec_env.embeddings.assets import EncoderFiles, combined_hash, locate
from marec_env.embeddings.config import EmbeddingConfig
from marec_env.embeddings.encoder import resolve_precision
from marec_env.embeddings.hashes import HashMemo
from marec_env.embeddings.housekeeping import enforce_limit
from marec_env.embeddings.store import Store
from marec_env.errors import AssetError, RunError
from marec_env.io import write_json

__all__ = ["close_store", "open_store"]

_LAYOUT = 1  # raised when a change of the code changes vectors
_FOLDER = "embeddings"
_DESCRIPTION = "space.json"


def open_store(config: EmbeddingConfig, device: torch.device) -> Store:
    """Return the store of the configured encoder.

    Raises:
        AssetError: the encoder is missing or a pinned file has changed.
    """
    root = config.cache_root()
    files = locate(config)
    memo = HashMemo(root / "hashes.json")
    _check_pins(files, memo)
    space = {
        "layout": _LAYOUT,
        "weights": combined_hash([memo(path) for path in files.weight_files()]),
        "interface": combined_hash([memo(path) for path in files.interface_files()]),
        "modality": config.modality,
        "pooling": config.pooling,
        "max_length": config.max_length,
        "dtype": str(resolve_precision(config, device)),
    }
    name = hashlib.sha256(json.dumps(space, sort_keys=True).encode()).hexdigest()[:32]
    folder = root / _FOLDER / name
    if not (folder / _DESCRIPTION).exists():
        try:
            write_json(folder / _DESCRIPTION, space)  # for people; nothing reads it back
        except RunError:
            return Store(folder)
    return Store(folder)


def close_store(config: EmbeddingConfig, store: Store) -> None:
    """Finish writing, note the use, and keep the cache within its limit."""
    store.touch()
    store.close()
    root: Path = config.cache_root() / _FOLDER
    if root.is_dir():
        enforce_limit(root, int(config.cache_limit_gib * 2**30))


def _check_pins(files: EncoderFiles, memo: HashMemo) -> None:
    for name, expected in (files.expected or {}).items():
        path = files.folder / name
        if not path.is_file() or memo(path) != expected:
            files.verify()
            raise AssetError(f"{path} changed while it was read; start again")
