"""``python -m marec_env.embeddings.finetune --out FOLDER``: fit the text encoder to a log.

Held-out retrieval recall is printed before and after, for pairs of users that were held out, and
among them for items that training never saw. The folder serves as ``embeddings.encoder``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from marec_env.data.config import DataConfig
from marec_env.data.log import load_log
from marec_env.embeddings.config import EmbeddingConfig
from marec_env.embeddings.contrastive import FineTuneConfig, fine_tune, retrieval_recall
from marec_env.embeddings.embed import embed_texts
from marec_env.embeddings.pairs import PairSplit, co_consumed_pairs, split_pairs
from marec_env.errors import MarecError
from marec_env.io import write_json

__all__ = ["main", "recalls"]

_CUTOFFS = (10, 50)
_REPORT = "finetune.json"


def recalls(encoder: EmbeddingConfig, texts: tuple[str, ...], split: PairSplit) -> dict[str, float]:
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
    lora_rank: Annotated[int, typer.Option(help="rank of LoRA adapters; 0: all weights")] = 0,
    popularity_correction: Annotated[
        bool, typer.Option(help="undo the sampling of negatives by popularity")
    ] = True,
    steps: Annotated[int, typer.Option(help="gradient steps")] = 200,
    batch_size: Annotated[int, typer.Option(help="pairs in a batch")] = 64,
    learning_rate: Annotated[float, typer.Option(help="peak learning rate")] = 5e-5,
    max_length: Annotated[int, typer.Option(help="tokens kept of a text")] = 64,
    seed: Annotated[int, typer.Option(help="seed of split and training")] = 0,
) -> None:
    """Fine-tune the text encoder on pairs of items that the same users liked."""
    try:
        report = _run(
            out,
            DataConfig(source=source),
            EmbeddingConfig(encoder=encoder, max_length=max_length),
            FineTuneConfig(
                steps=steps,
                batch_size=batch_size,
                learning_rate=learning_rate,
                lora_rank=lora_rank,
                popularity_correction=popularity_correction,
                seed=seed,
            ),
        )
    except MarecError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error
    print(f"{'held-out recall':<16}{'before':>8}{'after':>8}")
    for name, before in report["before"].items():
        print(f"{name:<16}{before:>8.4f}{report['after'][name]:>8.4f}")


def _run(
    out: Path, data: DataConfig, encoder: EmbeddingConfig, config: FineTuneConfig
) -> Mapping[str, dict[str, float]]:
    if out.exists():
        raise MarecError(f"{out} exists already; give --out a new folder")
    log = load_log(data)
    liked = log.select(log.liked)
    split = split_pairs(*co_consumed_pairs(liked.user, liked.item), seed=config.seed)
    before = recalls(encoder, log.texts, split)

    def show(step: int, loss: float) -> None:
        if (step + 1) % 20 == 0:
            print(f"step {step + 1}/{config.steps}: loss {loss:.3f}", file=sys.stderr)

    fine_tune(encoder, config, log.texts, split.train, out, show)
    after = recalls(encoder.model_copy(update={"encoder": str(out)}), log.texts, split)
    write_json(
        out / _REPORT,
        {
            "data": log.fingerprint,
            "pairs": {"train": len(split.train), "warm": len(split.warm), "cold": len(split.cold)},
            "settings": config.model_dump(),
            "before": before,
            "after": after,
        },
    )
    return {"before": before, "after": after}


if __name__ == "__main__":
    typer.run(main)
