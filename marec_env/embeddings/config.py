"""What turns texts and pictures into vectors, and how far those vectors are reduced."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from marec_env.config import ConfigModel

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


class FineTuneConfig(ConfigModel):
    """How the encoder is fitted to what the recommender may see, before a run."""

    method: Literal["full", "lora"] = Field(
        default="lora", description="all weights, or low-rank adapters (extra `lora`)"
    )
    rank: int = Field(default=8, ge=1, le=1024, description="of the adapters")
    objective: Literal["co_click", "contrastive", "from_reward"] = Field(
        default="co_click",
        description="what is brought together: items that the same users liked in succession; or "
        "an item's text with itself under other dropout (contrastive; needs no likes); or what a "
        "user liked and what he then clicked, rather than passed, in simulated sessions of "
        "hand-set play (from_reward)",
    )
    sessions: int = Field(
        default=256, ge=1, description="from_reward: sessions played before the run"
    )
    steps: int = Field(default=200, ge=1, description="gradient steps")
    batch_size: int = Field(default=64, ge=2, description="pairs in a batch")
    learning_rate: float = Field(default=5e-4, gt=0, description="peak learning rate")
    popularity_correction: bool = Field(
        default=True, description="co_click: undo the sampling of negatives by popularity"
    )
    seed: int = Field(default=0, ge=0, description="of adapters, dropout, batches and sessions")


class PicturesConfig(ConfigModel):
    """What embeds the items' pictures; cache, precision and reduction are those of texts."""

    encoder: str = Field(
        min_length=1,
        description="a local folder of a transformers image model (CLIP, SigLIP, ViT, DINOv2 ...) "
        "with preprocessor_config.json, or a hub name such as 'openai/clip-vit-base-patch32' (the "
        "only value that may use the network)",
    )
    revision: str | None = Field(
        default=None, description="commit, tag or branch of a hub name; null: the default branch"
    )
    batch_size: int = Field(
        default=32, ge=1, le=4096, description="pictures embedded, and held in memory, at a time"
    )


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
    finetune: FineTuneConfig | None = Field(
        default=None,
        description="fit the encoder before the run, once for all runs with the same log, weights "
        "and settings; null: as it is",
    )
    pictures: PicturesConfig | None = Field(
        default=None,
        description="embed the pictures that items.csv names, for the recall channel and the block "
        "'pictures'; null: they are not read",
    )
    reduction: ReductionConfig = Field(
        default=ReductionConfig(), description="how embeddings are reduced"
    )

    def cache_root(self) -> Path:
        """Return the folder of the cache; it need not exist yet."""
        chosen = self.cache_folder or os.environ.get("MAREC_CACHE") or "~/.cache/marec"
        return Path(chosen).expanduser()
