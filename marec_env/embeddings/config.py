"""What turns texts into vectors, and how far those vectors are reduced."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from marec_env.config import ConfigModel

__all__ = ["EmbeddingConfig", "ReductionConfig"]

Pooling = Literal["mean", "cls", "last"]
"""How the states of a text's tokens become one vector."""
Precision = Literal["auto", "fp32", "bf16"]


class ReductionConfig(ConfigModel):
    """How embeddings are reduced; fitted once on a catalog and saved with the run."""

    method: Literal["pca", "none"] = Field(
        default="pca",
        description="pca keeps the directions of largest variance; none keeps every dimension",
    )
    dimension: int = Field(default=32, ge=1, le=4096, description="dimensions after reduction")


class EmbeddingConfig(ConfigModel):
    """Encoder, pooling, precision, batches, cache and reduction."""

    encoder: str = Field(
        default="auto",
        min_length=1,
        description="'auto': the variable MAREC_ENCODER if set, else 'minilm'; 'minilm': the "
        "hash-checked asset package; 'multilingual': sixteen languages, Chinese among them (the "
        "extra 'multilingual'); a local folder; a hub name such as 'intfloat/e5-small-v2' (the "
        "only value that may use the network); 'hashing': the test encoder",
    )
    revision: str | None = Field(
        default=None, description="commit, tag or branch of a hub name; null: the default branch"
    )
    pooling: Literal["auto"] | Pooling = Field(
        default="auto",
        description="mean of the token states, first token (cls) or last token (decoders); auto: "
        "what the model's 1_Pooling/config.json says, else last for decoders, mean for encoders",
    )
    prefix: str = Field(
        default="",
        description="put before each text, as models such as E5 ('query: ') were trained",
    )
    max_length: int = Field(
        default=256, ge=2, le=131072, description="tokens kept of a text, special tokens included"
    )
    dtype: Precision = Field(
        default="fp32",
        description="precision of the encoder: bf16 is faster on processors that compute in it, "
        "which auto finds out; other precision makes other topics and users",
    )
    token_budget: Literal["auto"] | Annotated[int, Field(ge=16, le=1 << 22)] = Field(
        default="auto",
        description="tokens in a batch, 16 to 4194304; a longer text is a batch by itself; auto: "
        "4096 on a processor, up to 131072 on CUDA as its memory allows",
    )
    cache: bool = Field(default=True, description="keep embeddings on disk and read them back")
    cache_folder: str | None = Field(
        default=None, description="null: the variable MAREC_CACHE if set, else ~/.cache/marec"
    )
    cache_limit_gib: float = Field(
        default=8.0, gt=0, description="size in GiB beyond which the least recently used entries go"
    )
    refresh: bool = Field(
        default=False, description="embed again what the cache holds, and replace it"
    )
    reduction: ReductionConfig = Field(
        default=ReductionConfig(), description="how embeddings are reduced"
    )

    def cache_root(self) -> Path:
        """Return the folder of the cache; it need not exist yet."""
        chosen = self.cache_folder or os.environ.get("MAREC_CACHE") or "~/.cache/marec"
        return Path(chosen).expanduser()
