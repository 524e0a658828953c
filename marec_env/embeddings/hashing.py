"""An encoder without weights, for tests that must not need any."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["HashingTestEncoder"]

_WORD = re.compile(r"\w+")


class HashingTestEncoder:
    """Signed feature hashing of words (Weinberger et al., ICML 2009); for tests only.

    Texts that share words are close; meaning plays no part, so no result should rest on it.
    """

    NAME = "hashing-test-encoder-v1"
    DIMENSION = 64

    dimension = DIMENSION

    def encode(self, inputs: Sequence[str]) -> Tensor:
        """Return unit vectors, float32 ``[N, 64]``; a text without words gives a fixed vector."""
        out = torch.zeros(len(inputs), self.DIMENSION)
        for row, text in enumerate(inputs):
            for word in _WORD.findall(text.lower()) or [""]:
                digest = hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest()
                sign = 1.0 if digest[0] & 1 else -1.0
                out[row, int.from_bytes(digest[1:], "little") % self.DIMENSION] += sign
            if not out[row].any():  # words that cancelled one another
                out[row, 0] = 1.0
        return functional.normalize(out, dim=1)
