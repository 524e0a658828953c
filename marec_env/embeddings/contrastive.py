"""Contrastive fine-tuning of a text encoder on items that the same users consume.

InfoNCE (van den Oord et al., "Representation learning with contrastive predictive coding", 2018)
with in-batch negatives, both directions, as in sentence-transformers'
``MultipleNegativesRankingLoss``; full, or low-rank adapters (Hu et al., "LoRA", ICLR 2022).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from marec_env.config.base import ConfigModel
from marec_env.embeddings.assets import locate
from marec_env.embeddings.config import EmbeddingConfig
from marec_env.embeddings.pooling import pool_padded
from marec_env.embeddings.tokens import Ids, TextTokenizer
from marec_env.errors import AssetError, DataError

__all__ = ["FineTuneConfig", "fine_tune", "info_nce", "retrieval_recall"]

_COPIED = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
_WARM_UP = 0.1  # share of the steps in which the learning rate rises


class FineTuneConfig(ConfigModel):
    """Length and step size of the fine-tuning."""

    steps: int = Field(default=200, ge=1, description="gradient steps")
    batch_size: int = Field(
        default=64, ge=2, description="pairs in a batch; each sees the others as negatives"
    )
    learning_rate: float = Field(
        default=5e-5, gt=0.0, description="peak learning rate of AdamW; decays to 0"
    )
    temperature: float = Field(
        default=0.05, gt=0.0, description="divisor of the cosines in the loss"
    )
    popularity_correction: bool = Field(
        default=True,
        description="take the log of an item's frequency off its score as a negative, so that the "
        "cosines model what is consumed rather than what is consumed beyond its popularity",
    )
    lora_rank: int = Field(
        default=0, ge=0, description="rank of the adapters of all linear layers; 0: all weights"
    )
    seed: int = Field(default=0, ge=0, description="seed of batches and adapters")


def info_nce(
    left: Tensor,
    right: Tensor,
    items: Tensor,
    temperature: float,
    log_frequency: Tensor | None = None,
) -> Tensor:
    """Return the mean symmetric InfoNCE loss of a batch of pairs.

    Args:
        left: float32 ``[n, D]``, unit vectors.
        right: float32 ``[n, D]``, unit vectors; row i belongs to row i of ``left``.
        items: int64 ``[n, 2]``, the pairs' items; an item that equals the anchor or its partner is
            no negative.
        temperature: divisor of the cosines.
        log_frequency: float32 ``[n, 2]``, log of each item's share of all pairs; taken off the
            scores, it undoes the sampling of negatives by popularity (Yi et al., RecSys 2019).
    """
    scores = left @ right.T / temperature
    first, second = items.unbind(1)
    scores_left, scores_right = scores, scores.T
    if log_frequency is not None:
        scores_left = scores_left - log_frequency[:, 1]
        scores_right = scores_right - log_frequency[:, 0]
    for_left = (second == second[:, None]) | (second == first[:, None])
    for_right = (first == first[:, None]) | (first == second[:, None])
    own = torch.eye(len(items), dtype=torch.bool, device=items.device)
    labels = torch.arange(len(items), device=items.device)
    forward = functional.cross_entropy(scores_left.masked_fill(for_left & ~own, -torch.inf), labels)
    backward = functional.cross_entropy(
        scores_right.masked_fill(for_right & ~own, -torch.inf), labels
    )
    return (forward + backward) / 2


def retrieval_recall(vectors: Tensor, pairs: Tensor, k: int) -> float:
    """Return the share of pairs whose second item is among the k nearest to the first.

    Args:
        vectors: float32 ``[N, D]``, unit vectors of all items.
        pairs: int64 ``[P, 2]``; the first item itself is not among its neighbours.
        k: >= 1.

    Raises:
        DataError: no pairs.
    """
    if not len(pairs):
        raise DataError("there are no held-out pairs to measure recall on")
    scores = vectors[pairs[:, 0]] @ vectors.T
    own = scores.gather(1, pairs[:, 1:])
    scores.scatter_(1, pairs[:, :1], -torch.inf)
    return float(((scores > own).sum(dim=1) < k).float().mean())


def fine_tune(
    encoder: EmbeddingConfig,
    config: FineTuneConfig,
    texts: Sequence[str],
    pairs: Tensor,
    folder: Path,
    on_step: Callable[[int, float], None] | None = None,
    device: str | torch.device = "cpu",
) -> None:
    """Train the configured encoder and save it as a folder that ``encoder: FOLDER`` takes.

    Args:
        encoder: where the weights come from, pooling and length.
        config: steps and step size.
        texts: the items' texts, N of them.
        pairs: int64 ``[P, 2]``, items consumed by the same user.
        folder: receives ``model.safetensors``, ``config.json`` and the tokenizer.
        on_step: called with the step's number and loss.
        device: where to train.

    Raises:
        AssetError: the encoder is missing; or peft, for LoRA.
        DataError: fewer pairs than a batch.
    """
    if len(pairs) < config.batch_size:
        raise DataError(
            f"{len(pairs)} training pairs are fewer than one batch ({config.batch_size})"
        )
    from transformers import AutoModel

    files = locate(encoder)
    files.verify()
    torch.manual_seed(config.seed)  # dropout and adapters draw from torch's own generator
    model: Any = AutoModel.from_pretrained(
        str(files.folder), local_files_only=True, use_safetensors=True, dtype=torch.float32
    )
    if config.lora_rank:
        model = _with_adapters(model, config.lora_rank)
    model = model.to(device).train()
    tokens = TextTokenizer(files.folder, encoder.max_length)(texts)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=config.steps + 1, pct_start=_WARM_UP
    )
    counts = torch.bincount(pairs.flatten(), minlength=len(texts)).float()
    log_frequency = (counts / counts.sum()).log().to(device)
    generator = torch.Generator().manual_seed(config.seed)
    for step in range(config.steps):
        chosen = torch.randint(len(pairs), (config.batch_size,), generator=generator)
        batch = pairs[chosen].to(device)
        states = _embed(model, [tokens[item] for item in batch.T.flatten().tolist()], encoder)
        left, right = states.chunk(2)
        offset = log_frequency[batch] if config.popularity_correction else None
        loss = info_nce(left, right, batch, config.temperature, offset)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        if on_step is not None:
            on_step(step, float(loss.detach()))
    if config.lora_rank:
        model = model.merge_and_unload()
    model.eval().save_pretrained(folder)
    for name in _COPIED:
        if (files.folder / name).is_file():
            shutil.copyfile(files.folder / name, folder / name)


def _embed(model: Any, tokens: list[Ids], encoder: EmbeddingConfig) -> Tensor:
    """Return unit vectors with gradients, float32 ``[n, D]``."""
    longest = max(len(ids) for ids in tokens)
    ids = torch.full((len(tokens), longest), model.config.pad_token_id or 0)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(tokens):
        ids[row, : len(text)] = torch.from_numpy(text)
        mask[row, : len(text)] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    states = model(input_ids=ids, attention_mask=mask).last_hidden_state
    return pool_padded(states, mask, encoder.pooling)


def _with_adapters(model: Any, rank: int) -> Any:
    """Return the model with low-rank adapters beside every linear layer."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise AssetError("LoRA needs peft: pip install 'marec[lora]'") from error
    adapters = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    return get_peft_model(model, adapters)
