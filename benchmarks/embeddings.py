"""Text embedding throughput: what introductory articles do, sentence-transformers, and marec.

    python benchmarks/embeddings.py speed [--threads 1] [--rounds 5]
    python benchmarks/embeddings.py start
    python benchmarks/embeddings.py attention
    python benchmarks/embeddings.py tokenising

All run the same weights (all-MiniLM-L6-v2) on the same texts: MovieLens-100k titles with genres,
and texts of about 100 tokens made by joining them. Contestants take turns within each round;
medians over rounds are reported, and of bare matrix products the best. With one thread, time is CPU
time of the process, which a busy machine disturbs less; with more, it is wall-clock time.
"""

from __future__ import annotations

import os
import re
import statistics
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch.nn import functional

from marec_env import random
from marec_env.data.config import DataConfig
from marec_env.data.log import load_log
from marec_env.embeddings import EmbeddingConfig, TextEncoder, embed_texts
from marec_env.embeddings.assets import locate
from marec_env.embeddings.embed import CorpusCache
from marec_env.embeddings.packed_bert import BertShape, Linear, grouped_attention
from marec_env.embeddings.tokens import (
    TextTokenizer,
    pack,
)

ONE_BY_ONE_TEXTS = 12  # of the slow loop; its time a text hardly varies
BATCH_SIZES = (8, 16, 32, 64, 128)
DESCRIPTION_TOKENS = 100
GEMM_ROWS, GEMM_REPEATS = 1024, 40
FULL_PADDING = 512

app = typer.Typer(add_completion=False)


def seconds(function: Callable[[], object], threads: int) -> float:
    clock = time.process_time if threads == 1 else time.perf_counter
    start = clock()
    function()
    return clock() - start


def corpora(titles: int, descriptions: int) -> dict[str, list[str]]:
    texts = list(load_log(DataConfig()).texts)
    tokenizer = TextTokenizer(locate(EmbeddingConfig(encoder="minilm")).folder, FULL_PADDING)
    lengths = [len(ids) - 2 for ids in tokenizer(texts)]  # without the two special tokens
    joined, parts, total = [], [], 2
    for text, length in zip(texts * 20, lengths * 20, strict=True):
        if total + length > DESCRIPTION_TOKENS:
            joined.append(". ".join(parts))
            parts, total = [], 2
        if len(joined) == descriptions:
            break
        parts.append(text)
        total += length + 1
    return {"titles": texts[:titles], "descriptions": joined}


def one_by_one(folder: str) -> Callable[[list[str]], torch.Tensor]:
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()

    def embed(texts: list[str]) -> torch.Tensor:
        out = []
        for text in texts:
            inputs = tokenizer(
                text, padding="max_length", truncation=True, max_length=FULL_PADDING,
                return_tensors="pt",
            )  # fmt: skip
            with torch.no_grad():
                states = model(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1)
            out.append((states * mask).sum(1) / mask.sum(1))
        return functional.normalize(torch.cat(out), dim=1)

    return embed


def sorted_batches(config: EmbeddingConfig) -> Callable[[list[str]], object]:
    """Transformers' own model on batches sorted by length within the same token budget."""
    read = BertShape.read
    BertShape.read = staticmethod(lambda files: None)
    try:
        return TextEncoder(config, "cpu").encode
    finally:
        BertShape.read = staticmethod(read)


def batched(model: Any, size: int) -> Callable[[list[str]], object]:
    return lambda texts: model.encode(texts, batch_size=size)


def best_batch_size(model: Any, texts: list[str], threads: int) -> int:
    taken = {
        size: min(seconds(lambda size=size: model.encode(texts, batch_size=size), threads)
                  for _ in range(2))
        for size in BATCH_SIZES
    }  # fmt: skip
    return min(taken, key=lambda size: taken[size])


def gemm_peaks(dtype: torch.dtype, threads: int) -> dict[str, float]:
    """GFLOP/s of products of the encoder's shape, and of a large square one."""
    x, weight = torch.randn(GEMM_ROWS, 384).to(dtype), torch.randn(1536, 384).to(dtype)
    bias, square = torch.zeros(1536, dtype=dtype), torch.randn(2048, 2048).to(dtype)
    packed = Linear(weight, bias)
    layer = 2 * GEMM_ROWS * 384 * 1536
    trials = {
        "torch linear": (lambda: functional.linear(x, weight, bias), layer),
        "torch 2048 cubed": (lambda: square @ square, 2 * 2048**3),
        "oneDNN prepacked": (lambda: packed(x), layer),
    }
    rates = {}
    for name, (run, flop) in trials.items():
        run()
        taken = seconds(lambda run=run: [run() for _ in range(GEMM_REPEATS)], threads)
        rates[name] = flop * GEMM_REPEATS / taken / 1e9
    return rates


def flops(lengths: list[int], shape: BertShape) -> float:
    """Multiplications and additions of the matrix products for texts of these lengths."""
    token = 24 * shape.width**2  # queries, keys, values, output, two products of the MLP
    return shape.layers * sum(n * token + 4 * n * n * shape.width for n in lengths)


@app.command()
@torch.inference_mode()
def speed(
    threads: Annotated[int, typer.Option(help="threads of torch; 0: all cores")] = 1,
    rounds: Annotated[int, typer.Option(help="rounds of turns")] = 5,
    titles: Annotated[int, typer.Option(help="titles a round")] = 800,
    descriptions: Annotated[int, typer.Option(help="descriptions a round")] = 160,
) -> None:
    """Texts a second of all contestants, ratios, and shares of the matrix-product peak."""
    from sentence_transformers import SentenceTransformer

    threads = threads or os.cpu_count() or 1
    torch.set_num_threads(threads)
    config = EmbeddingConfig(encoder="minilm", cache=False, max_length=256)
    folder = locate(config).folder
    shape = BertShape.read(locate(config))
    assert shape is not None
    slow = one_by_one(str(folder))
    theirs = SentenceTransformer(str(folder), device="cpu")
    theirs_bf16 = SentenceTransformer(
        str(folder), device="cpu", model_kwargs={"dtype": torch.bfloat16}
    )
    ours = {
        name: TextEncoder(config.model_copy(update={"dtype": name}), "cpu")
        for name in ("fp32", "bf16")
    }
    plain = sorted_batches(config.model_copy(update={"dtype": "fp32"}))
    print(
        f"torch {torch.__version__}, {threads} thread(s), {torch.backends.cpu.get_cpu_capability()}"
    )
    for corpus, texts in corpora(titles, descriptions).items():
        lengths = [len(ids) for ids in TextTokenizer(folder, config.max_length)(texts)]
        best = best_batch_size(theirs, texts, threads)
        contestants: dict[str, tuple[Callable[[list[str]], object], list[str]]] = {
            "one at a time, padded": (slow, texts[:ONE_BY_ONE_TEXTS]),
            "sentence-transformers fp32": (batched(theirs, best), texts),
            "sentence-transformers bf16": (batched(theirs_bf16, best), texts),
            "transformers, sorted batches": (plain, texts),
            "marec fp32": (ours["fp32"].encode, texts),
            "marec bf16": (ours["bf16"].encode, texts),
        }
        rates: dict[str, list[float]] = {name: [] for name in contestants}
        peaks: dict[str, list[float]] = {}
        for _ in range(rounds):
            for name, (run, chosen) in contestants.items():
                taken = seconds(lambda run=run, chosen=chosen: run(chosen), threads)
                rates[name].append(len(chosen) / taken)
            for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
                for kind, rate in gemm_peaks(dtype, threads).items():
                    peaks.setdefault(f"{name} {kind}", []).append(rate)
        medians = {name: statistics.median(values) for name, values in rates.items()}
        base = medians["sentence-transformers fp32"]
        loop = medians["one at a time, padded"]
        mean = sum(lengths) / len(lengths)
        print(f"\n{corpus}: {len(texts)} texts, {mean:.1f} tokens each, batch size {best}")
        print(f"{'':<28}{'texts/s':>9}{'vs s.-t.':>9}{'vs loop':>9}")
        for name, rate in medians.items():
            print(f"{name:<28}{rate:>9.1f}{rate / base:>9.2f}{rate / loop:>9.1f}")
        work = flops(lengths, shape) / len(texts) / 1e9
        for name in ("fp32", "bf16"):
            achieved = medians[f"marec {name}"] * work
            found = {k: max(v) for k, v in peaks.items() if k.startswith(name)}
            print(f"{name}: {achieved:.0f} GFLOP/s in the encoder; best of the bare products:")
            for kind, rate in found.items():
                print(f"  {kind:<26}{rate:>7.0f} GFLOP/s, share {achieved / rate:.2f}")
        sample = texts[: len(texts) // 4]
        exact = torch.from_numpy(theirs.encode(sample, batch_size=best))
        difference = (ours["fp32"].encode(sample) - exact).abs().max()
        cosine = functional.cosine_similarity(ours["bf16"].encode(sample), exact).min()
        print(
            f"largest difference to s.-t. in fp32 {difference:.1e}; least cosine bf16 {cosine:.5f}"
        )


@app.command()
def start(items: int = 100_000, rounds: int = 7) -> None:
    """Seconds until a catalog that is cached is in memory."""
    torch.set_num_threads(1)
    texts = [f"item {number} of a catalog, with a title of usual length" for number in range(items)]
    vectors = functional.normalize(torch.randn(items, 384), dim=1)
    with tempfile.TemporaryDirectory() as folder:
        config = EmbeddingConfig(encoder="minilm", cache_folder=folder)
        facts = CorpusCache.facts(config, torch.device("cpu"))
        CorpusCache(config, texts, facts).write(vectors)
        taken = []
        for _ in range(rounds):
            begin = time.perf_counter()
            embed_texts(config, texts, device="cpu")
            taken.append(time.perf_counter() - begin)
        print(f"{items} cached items: median {statistics.median(taken):.3f} s")


@app.command()
@torch.inference_mode()
def attention(tokens: int = 4096, rounds: int = 7) -> None:
    """Milliseconds of attention over texts of one length: marec's choice and the fused kernel."""
    torch.set_num_threads(1)
    print(f"{'dtype':<16}{'length':>7}{'fused':>9}{'marec':>9}")
    for dtype in (torch.float32, torch.bfloat16):
        for length in (8, 12, 16, 24, 48, 64, 95, 128, 180, 250):
            count = tokens // length
            qkv = torch.randn(count * length, 3 * 384).to(dtype)
            batch = pack([torch.zeros(length, dtype=torch.int64).numpy()] * count)
            chosen = grouped_attention(batch, 12)

            def fused(qkv=qkv, count=count, length=length) -> torch.Tensor:
                query, key, value = qkv.view(count, length, 3, 12, 32).permute(2, 0, 3, 1, 4)
                mixed = functional.scaled_dot_product_attention(query, key, value)
                return mixed.transpose(1, 2).reshape(qkv.shape[0], -1)

            times: dict[str, list[float]] = {"fused": [], "marec": []}
            for _ in range(rounds):
                times["fused"].append(seconds(fused, 1))
                times["marec"].append(seconds(lambda q=qkv, c=chosen: c(q), 1))
            found = [statistics.median(values) * 1e3 for values in times.values()]
            print(f"{dtype!s:<16}{length:>7}{found[0]:>9.2f}{found[1]:>9.2f}")


def prose(count: int, words: int = 45) -> list[str]:
    """The standard library's documentation, cut into texts of so many words."""
    found: list[str] = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for part in re.findall(r'"""(.*?)"""', path.read_text("utf-8", "replace"), re.DOTALL):
            found += part.split()
    return [" ".join(found[place : place + words]) for place in range(0, len(found), words)][:count]


@app.command()
def tokenising(rounds: int = 5, count: int = 8192) -> None:
    """Tokens a second of processor time, all threads together: whole texts, and marec's words.

    As it begins on a corpus (cold) and as it goes on (warm).
    """
    from tokenizers import Tokenizer

    folder = locate(EmbeddingConfig(encoder="minilm")).folder
    theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
    theirs.no_padding()
    theirs.enable_truncation(256)
    keys = random.session_keys(0, torch.arange(count))
    letters = (random.integers(keys, 0, "letters", 20 * 7, 26) + ord("a")).view(count, 20, 7)
    texts = corpora(1600, 330)
    cases = {name: [f"{text} {n}" for n, text in enumerate(texts[name] * 50)] for name in texts}
    cases["documentation"] = prose(count)
    cases["no word twice"] = [
        " ".join(bytes(word).decode() for word in row) for row in letters.tolist()
    ]
    print(f"{'':<16}{'tokens':>9}{'whole':>9}{'cold':>9}{'ratio':>7}{'warm':>9}{'ratio':>7}")
    for name, given in cases.items():
        given = given[:count]
        taken: dict[str, list[float]] = {"whole": [], "cold": [], "warm": []}
        for _ in range(rounds):
            ours = TextTokenizer(folder, 256)
            for kind in taken:
                run = theirs.encode_batch_fast if kind == "whole" else ours
                taken[kind].append(seconds(lambda run=run, given=given: list(run(given)), 1))
        tokens = sum(map(len, ours(given)))
        whole, cold, warm = (tokens / statistics.median(values) / 1e6 for values in taken.values())
        print(
            f"{name:<16}{tokens:>9}{whole:>8.2f}M{cold:>8.2f}M{cold / whole:>7.1f}"
            f"{warm:>8.2f}M{warm / whole:>7.1f}"
        )


if __name__ == "__main__":
    app()
