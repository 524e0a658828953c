"""Fit the text encoder to a log: ``embeddings.finetune`` of a run, or by hand
``python -m marec_env.embeddings.finetune --out FOLDER``.

InfoNCE (van den Oord et al., "Representation learning with contrastive predictive coding", 2018)
with in-batch negatives, both directions, on items that the same users liked; or, for clicks of
simulated sessions, the clicked item against one that was passed in the same slate (negatives of
one's own impression: Wu et al., "NPA: neural news recommendation with personalized attention", KDD
2019). All weights, or low-rank adapters (Hu et al., "LoRA", ICLR 2022).

By hand, held-out retrieval recall is printed before and after, for pairs of users that were held
out, and among them for items that training never saw. The folder serves as ``embeddings.encoder``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from marec_env.data.config import DataConfig
from marec_env.data.log import load_log
from marec_env.embeddings.assets import HASHING, MULTILINGUAL, locate, requested
from marec_env.embeddings.config import EmbeddingConfig, FineTuneConfig
from marec_env.embeddings.embed import embed_texts
from marec_env.embeddings.pairs import (
    PairSplit,
    clicked_over_passed,
    co_consumed_pairs,
    info_nce,
    retrieval_recall,
    split_pairs,
)
from marec_env.embeddings.tokens import TextTokenizer, embed_padded
from marec_env.errors import AssetError, ConfigError, DataError, MarecError
from marec_env.io import write_json

_CUTOFFS = (10, 50)  # of the recall
_COPIED = ("tokenizer.json", "tokenizer_json", "special_tokens_map.json", "vocab.txt")
_WARM_UP = 0.1  # share of the steps in which the learning rate rises
_TOLD_EVERY = 20  # steps
_REPORT = "finetune.json"


def fine_tune(
    encoder: EmbeddingConfig,
    texts: Sequence[str],
    pairs: Tensor,
    folder: Path,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    popularity_correction: bool = True,
    lora_rank: int = 0,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Iterator[float]:
    """Train the configured encoder and save it as a folder that ``encoder: FOLDER`` takes.

    Args:
        encoder: where the weights come from, pooling and length.
        texts: the items' texts.
        pairs: int64 ``[P, 2]``, items consumed by the same user; or ``[P, 3]``, an item that a user
            liked, one that he then clicked and one that he passed.
        folder: receives ``model.safetensors``, ``json`` and the tokenizer.
        steps, batch_size, learning_rate, lora_rank, seed: as :func:`main`'s; each pair of a batch
            sees the others as negatives (of three items: the third alone).
        device: where it trains.
        popularity_correction: take the log of an item's frequency off its score as a negative, so
            that cosines model what is consumed rather than what is consumed beyond its popularity
            (Yi et al., RecSys 2019).

    Yields:
        The loss of each step; the folder is written after the last.

    Raises:
        AssetError: the encoder is missing; or peft, for LoRA.
        DataError: fewer pairs than a batch.
    """
    if len(pairs) < batch_size:
        raise DataError(
            f"{len(pairs)} training pairs are fewer than one batch ({batch_size}); lower batch_size"
        )
    files = locate(encoder)
    files.verify()
    model = files.load_model(torch.float32)
    torch.manual_seed(seed)  # dropout and adapters draw from torch's own generator
    if lora_rank:
        model = _with_adapters(model, lora_rank)
    model.to(device).train()
    pairs = pairs.to(device)
    pooling = files.pooling(encoder)
    tokens = TextTokenizer(files.folder, encoder.max_length)(
        [encoder.prefix + text for text in texts]
    )
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, learning_rate, total_steps=steps + 1, pct_start=_WARM_UP
    )
    counts = torch.bincount(pairs.cpu().flatten(), minlength=len(texts)).float().to(device)
    log_frequency = (counts / counts.sum()).log()
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        drawn = torch.randint(len(pairs), (batch_size,), generator=generator)
        batch = pairs[drawn.to(device)]
        texts_of_batch = [tokens[item] for item in batch.T.flatten()]
        vectors = embed_padded(model, texts_of_batch, pooling)
        left, right, *passed = vectors.chunk(batch.shape[1])
        if passed:
            loss = clicked_over_passed(left, right, passed[0])
        else:
            offset = log_frequency[batch] if popularity_correction else None
            loss = info_nce(left, right, batch, log_frequency=offset)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        yield float(loss.detach())
    if lora_rank:
        model = model.merge_and_unload()
    model.cpu().eval().save_pretrained(folder)
    for name in _COPIED:
        if (files.folder / name).is_file():
            shutil.copyfile(files.folder / name, folder / name)


def fine_tuned(
    config: EmbeddingConfig,
    texts: Sequence[str],
    make_pairs: Callable[[], Tensor],
    device: torch.device,
) -> EmbeddingConfig:
    """Return the configuration of the encoder that ``config.finetune`` asks for, trained or from
    the cache; without the section, ``config`` as it is.

    Args:
        config: encoder, cache and the section.
        texts: the items' texts.
        make_pairs: returns what it is fitted to, as :func:`fine_tune` takes it.
        device: where it trains.

    Raises:
        ConfigError: the encoder cannot be trained.
        AssetError, DataError: as :func:`fine_tune`.
    """
    section = config.finetune
    if section is None:
        return config
    name = requested(config)
    if name in (HASHING, MULTILINGUAL):
        raise ConfigError(
            f"environment.embeddings.finetune: encoder '{name}' cannot be trained; use minilm, a "
            "transformers folder or a hub name, or set finetune: null"
        )
    files = locate(config)
    pairs = make_pairs()
    facts = {
        **files.hashes(),
        **section.model_dump(mode="json"),
        "pooling": files.pooling(config),
        "prefix": config.prefix,
        "max_length": config.max_length,
        "texts": hashlib.sha256("\0".join(texts).encode()).hexdigest(),
        "pairs": hashlib.sha256(pairs.numpy().tobytes()).hexdigest(),
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    folder = config.cache_root() / "finetuned" / key
    if not (folder / _REPORT).is_file():
        _train_into(folder, config, section, texts, pairs, facts, device)
    chosen = {"encoder": str(folder), "pooling": facts["pooling"], "finetune": None}
    return config.model_copy(update=chosen)


def _train_into(
    folder: Path,
    config: EmbeddingConfig,
    section: FineTuneConfig,
    texts: Sequence[str],
    pairs: Tensor,
    facts: Mapping[str, Any],
    device: torch.device,
) -> None:
    """Train beside the folder and name it when it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    losses: list[float] = []
    with tempfile.TemporaryDirectory(dir=folder.parent) as place, torch.random.fork_rng():
        training = fine_tune(
            config,
            texts,
            pairs,
            Path(place),
            steps=section.steps,
            batch_size=section.batch_size,
            learning_rate=section.learning_rate,
            popularity_correction=section.popularity_correction and section.objective == "co_click",
            lora_rank=section.rank if section.method == "lora" else 0,
            seed=section.seed,
            device=device,
        )
        for step, loss in enumerate(training, 1):
            losses.append(loss)
            if step % _TOLD_EVERY == 0 or step == section.steps:
                line = f"fine-tuning the encoder: step {step}/{section.steps}, loss {loss:.3f}"
                print(line, file=sys.stderr)
        write_json(Path(place) / _REPORT, {**facts, "losses": losses})
        with suppress(OSError):  # another process was quicker: its folder is the same
            os.rename(place, folder)
        Path(place).mkdir(exist_ok=True)  # for its own removal


def _with_adapters(model: Any, rank: int) -> Any:
    """Return the model with low-rank adapters beside every linear layer."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise AssetError("LoRA needs peft: pip install 'marec[lora]'") from error
    adapters = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    return get_peft_model(model, adapters)


def _recalls(encoder: EmbeddingConfig, texts: Sequence[str], split: PairSplit) -> dict[str, float]:
    """Return recall by ``warm@10`` and so on; vectors are computed anew, in float32."""
    exact = encoder.model_copy(update={"cache": False, "dtype": "fp32"})
    vectors = embed_texts(exact, texts)
    return {
        f"{name}@{k}": retrieval_recall(vectors, pairs, k)
        for name, pairs in (("warm", split.warm), ("cold", split.cold))
        for k in _CUTOFFS
    }


def main(
    out: Annotated[Path, typer.Option(help="folder to save the encoder in; must not exist")],
    source: Annotated[str, typer.Option(help="as data.source")] = "movielens-100k",
    encoder: Annotated[str, typer.Option(help="as embeddings.encoder")] = "auto",
    lora_rank: Annotated[int, typer.Option(min=0, help="rank of LoRA; 0: all weights")] = 0,
    popularity_correction: Annotated[
        bool, typer.Option(help="undo the sampling of negatives by popularity")
    ] = True,
    steps: Annotated[int, typer.Option(min=1, help="gradient steps")] = 200,
    batch_size: Annotated[int, typer.Option(min=2, help="pairs in a batch")] = 64,
    learning_rate: Annotated[float, typer.Option(help="peak learning rate")] = 5e-5,
    max_length: Annotated[int, typer.Option(min=2, help="tokens kept of a text")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="seed of split and training")] = 0,
) -> None:
    """Fine-tune the text encoder on pairs of items that the same users liked."""
    settings: dict[str, Any] = {
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "popularity_correction": popularity_correction,
        "lora_rank": lora_rank,
        "seed": seed,
    }
    try:
        if out.exists():
            raise MarecError(f"{out} exists already; give --out a new folder")
        log = load_log(DataConfig(source=source))
        liked = log.select(log.liked)
        split = split_pairs(*co_consumed_pairs(liked.user, liked.item), seed=seed)
        config = EmbeddingConfig(encoder=encoder, max_length=max_length)
        before = _recalls(config, log.texts, split)
        for step, loss in enumerate(fine_tune(config, log.texts, split.train, out, **settings), 1):
            if step % _TOLD_EVERY == 0:
                print(f"step {step}/{steps}: loss {loss:.3f}", file=sys.stderr)
        after = _recalls(config.model_copy(update={"encoder": str(out)}), log.texts, split)
        pairs = {"train": len(split.train), "warm": len(split.warm), "cold": len(split.cold)}
        report = {"data": log.fingerprint, "pairs": pairs, "settings": settings}
        write_json(out / _REPORT, {**report, "before": before, "after": after})
    except MarecError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error
    print(f"{'held-out recall':<16}{'before':>8}{'after':>8}")
    for name, value in before.items():
        print(f"{name:<16}{value:>8.4f}{after[name]:>8.4f}")


if __name__ == "__main__":
    typer.run(main)
