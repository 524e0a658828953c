"""Pictures of items to vectors, by the image side of CLIP-like models or by any image model."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from marec_env.data.config import DataConfig
from marec_env.data.interactions import InteractionLog
from marec_env.data.pictures import picture_files, read_picture
from marec_env.embeddings.assets import EncoderFiles, in_folder
from marec_env.embeddings.config import EmbeddingConfig, PicturesConfig
from marec_env.embeddings.embed import embed_kept
from marec_env.embeddings.encoder import OnBatch, resolve_device, resolve_precision
from marec_env.embeddings.reduction import fit_reduction
from marec_env.embeddings.vectors import nearest
from marec_env.errors import AssetError, DataError
from marec_env.io import sha256_of

_LOG = logging.getLogger(__name__)
_LAYOUT = "1"  # raised when a change of the code changes vectors
_PART = 4096  # pictures in a file of the cache: minutes of work
_READERS = 4  # pictures decoded at once, whole, before they are cut to the model's size
_BLANK = (64, 64)


class PictureEncoder:
    """An image model in memory, with what it wants done to pictures."""

    def __init__(
        self,
        section: PicturesConfig,
        files: EncoderFiles,
        paths: Mapping[str, Path],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Load the weights and try them.

        Args:
            section: how many pictures are embedded at a time.
            files: of the model.
            paths: of the pictures by the names under which :meth:`encode` is given them.
            dtype: of the model.
            device: where it runs.

        Raises:
            AssetError: the folder holds no image model, or lacks parts of it.
        """
        from PIL import Image
        from transformers import AutoImageProcessor

        self._paths, self._batch, self._dtype, self._device = (
            paths, section.batch_size, dtype, device,
        )  # fmt: skip
        self._model = files.load_model(dtype).to(device)
        try:
            self._processor = AutoImageProcessor.from_pretrained(
                str(files.folder), local_files_only=True, trust_remote_code=False, backend="pil"
            )
            sizes = (_BLANK, (2 * _BLANK[0], _BLANK[1]))
            blank = [self._pixels(Image.new("RGB", size)) for size in sizes]
            self.dimension = self._vectors(blank).shape[1]
        except Exception as error:  # any architecture, and what it is no use for
            reason = str(error).strip().partition("\n")[0]
            raise AssetError(
                f"cannot embed pictures with '{files.name}': {reason}; it must be an image model "
                "of transformers (CLIP, SigLIP, ViT, DINOv2 ...) that makes pictures one size, "
                "saved with its preprocessor_config.json"
            ) from error

    def encode(self, inputs: Sequence[str], on_batch: OnBatch | None = None) -> Tensor:
        """Return unit vectors, float32 ``[N, D]`` on the CPU, in the order of the pictures; zeros
        where a file holds no picture. The next batch is read while one is embedded.
        """
        batches = [inputs[at : at + self._batch] for at in range(0, len(inputs), self._batch)]
        out = torch.zeros(len(inputs), self.dimension)
        with ThreadPoolExecutor(_READERS, thread_name_prefix="pictures") as readers:
            ahead = readers.map(self._read, batches[0])
            for number, batch in enumerate(batches):
                pixels = dict(enumerate(ahead, number * self._batch))
                if number + 1 < len(batches):
                    ahead = readers.map(self._read, batches[number + 1])
                known = {row: found for row, found in pixels.items() if found is not None}
                if known:
                    out[[*known]] = self._vectors([*known.values()])
                if on_batch is not None:
                    on_batch(len(batch))
        return out

    def _read(self, name: str) -> Tensor | None:
        found = read_picture(self._paths[name])
        return None if found is None else self._pixels(found)

    def _pixels(self, picture: object) -> Tensor:
        pixels: Tensor = self._processor(picture, return_tensors="pt")["pixel_values"][0]
        return pixels

    @torch.inference_mode()
    def _vectors(self, pixels: Sequence[Tensor]) -> Tensor:
        """Return unit vectors, float32 ``[n, D]`` on the CPU."""
        batch = torch.stack([*pixels]).to(self._device, self._dtype)
        if hasattr(self._model, "get_image_features"):  # into the space shared with texts
            found = self._model.get_image_features(pixel_values=batch)
        else:
            found = self._model(pixel_values=batch)
        if not isinstance(found, Tensor):
            pooled = found.pooler_output
            found = found.last_hidden_state[:, 0] if pooled is None else pooled
        return functional.normalize(found.flatten(1).float(), dim=1).cpu()


@dataclass(frozen=True, slots=True)
class ItemPictures:
    """What the pictures of ``N`` items look like."""

    vectors: Tensor
    """Float32 ``[N, dp]``, unit length: in a space of their own; zeros where there is none."""
    neighbours: Tensor
    """Int64 ``[N, M]``: the items of nearest pictures, nearest first, without the item itself; -1
    where no more have one, and of items that have none."""
    fingerprint: str
    """SHA-256 of the files and of the encoder."""
    stamp: str
    """See :attr:`marec_env.data.pictures.PictureFiles.stamp`."""
    line: str | None
    """How many items have none, and why; ``None`` where all have one."""


def item_pictures(
    config: EmbeddingConfig, data: DataConfig, log: InteractionLog, count: int, device: torch.device
) -> ItemPictures | None:
    """Read, embed and reduce the pictures of a log's items; ``None`` where they are not asked for.

    Args:
        config: encoder, cache, precision and reduction.
        data: where the log came from.
        log: names the files.
        count: neighbours kept of an item.
        device: where the encoder runs.

    Raises:
        AssetError: the encoder is missing or no image model.
        DataError: no item names a picture, none can be read, or one is not in the log's folder.
    """
    section = config.pictures
    if section is None:
        return None
    found = picture_files(data, log)
    digest_of = [None if path is None else sha256_of(path) for path in found.files]
    paths = {
        digest: path
        for digest, path in zip(digest_of, found.files, strict=True)
        if digest is not None and path is not None
    }
    files, place = in_folder(section.encoder, section.revision), resolve_device(device)
    dtype = resolve_precision(config, place)
    facts = {"layout": _LAYOUT, "modality": "picture", **files.hashes(), "dtype": str(dtype)}
    given = [row for row, digest in enumerate(digest_of) if digest is not None]
    names = [digest for digest in digest_of if digest is not None]
    unreadable: list[Path] = []
    if names:
        full = embed_kept(
            config, names, facts,
            lambda: PictureEncoder(section, files, paths, dtype, place), _PART,
        ).whole()  # fmt: skip
        shown = full.any(dim=1).tolist()
        some = zip(given, shown, strict=True)
        unreadable = [path for row, seen in some if not seen and (path := found.files[row])]
    line = found.told(unreadable)
    if len(unreadable) == len(names):
        raise DataError(f"embeddings.pictures: {data.source}: {line}; mend the files")
    if line is not None:
        line = f"{line}; they are masked: no score by 'pictures', and not brought by it"
        _LOG.warning("warning: %s: %s", data.source, line)
    reduced = fit_reduction(config, full).apply(full)
    vectors = reduced.new_zeros(log.num_items, reduced.shape[1])
    vectors[given] = reduced
    told = "\0".join((*facts.values(), *(digest or "" for digest in digest_of)))
    return ItemPictures(
        vectors=vectors,
        neighbours=nearest(vectors, vectors, count, torch.arange(len(vectors))),
        fingerprint=hashlib.sha256(told.encode()).hexdigest(),
        stamp=found.stamp,
        line=line,
    )
