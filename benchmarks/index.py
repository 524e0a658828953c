"""Exact search of a large catalog against the faiss index: ``python benchmarks/index.py``.

Items in clusters, close ones and ones so wide that hardly any are left (32 dimensions in each
space); sessions whose history lies in one cluster; C = 100, one thread. Process CPU time per
request of the channel ``cf`` and of a whole pipeline without dense channels (profile, recall by cf,
text, item_to_item, popular and fresh, blocks, ranking); medians of interleaved rounds. recall@100
is the share of the exact search's items that the index finds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import faiss
import torch
from torch.nn.functional import normalize

from marec_env import random
from marec_env.pipeline import Knowledge, Pipeline, PipelineConfig
from marec_env.pipeline.recall import CHANNELS
from marec_env.vector import Rows

SIZES = (100_000, 300_000)
DIMENSION = 32
PER_CLUSTER = 200  # items
NOISES = (0.3, 3.0)  # standard deviations of items about their centres, which have unit spread
SESSIONS = 64
HISTORY = 20
LENGTH = 100
ROUNDS = 7
CHANNEL_NAMES = ("cf", "text", "item_to_item", "popular", "fresh")


def make_knowledge(items: int, noise: float) -> Knowledge:
    source = torch.Generator().manual_seed(0)
    cluster = torch.arange(items) // PER_CLUSTER

    def space() -> torch.Tensor:
        centres = torch.randn(int(cluster[-1]) + 1, DIMENSION, generator=source)
        about = torch.randn(items, DIMENSION, generator=source)
        return normalize(centres[cluster] + noise * about, dim=1)

    return Knowledge(
        text=space(),
        cf=space(),
        neighbours=torch.randint(0, items, (items, 16), generator=source),
        popularity=torch.rand(items, generator=source),
        age=torch.rand(items, generator=source),
        topics=cluster % 16,
        num_topics=16,
        version="benchmark",
        providers=torch.zeros(items, dtype=torch.int64),
    )


def make_pipeline(knowledge: Knowledge, index: str) -> Pipeline:
    config = PipelineConfig(
        candidates=LENGTH,
        recall={"channels": CHANNEL_NAMES, "index": index, "index_above": min(SIZES) - 1},
    )
    pipeline = Pipeline(
        config, knowledge, SESSIONS, history_length=HISTORY, max_requests=10, groups=1
    )
    source = torch.Generator().manual_seed(1)
    clusters = torch.randint(0, knowledge.num_items // PER_CLUSTER, (SESSIONS,), generator=source)
    history = (clusters * PER_CLUSTER).unsqueeze(1) + torch.arange(HISTORY)
    everyone = torch.arange(SESSIONS)
    pipeline.reset(Rows(), history, torch.ones_like(history, dtype=torch.bool), 0 * everyone)
    return pipeline


def request_of(pipeline: Pipeline):
    request = pipeline.begin(random.session_keys(0, torch.arange(SESSIONS)))
    pipeline.act(request, "profile_0", pipeline.default_actions()["profile_0"])
    return request


def timed(call: Callable[[], object]) -> float:
    """Return milliseconds of CPU time per session."""
    begin = time.process_time()
    call()
    return 1e3 * (time.process_time() - begin) / SESSIONS


def whole(pipeline: Pipeline) -> None:
    request = request_of(pipeline)
    pipeline.finish(request)


def compare(items: int, noise: float) -> None:
    knowledge = make_knowledge(items, noise)
    pipelines = {name: make_pipeline(knowledge, name) for name in ("exact", "faiss")}
    begin = time.process_time()
    CHANNELS.get("cf")(request_of(pipelines["faiss"]), LENGTH)
    built = time.process_time() - begin
    found = {
        name: CHANNELS.get("cf")(request_of(pipeline), LENGTH).tolist()
        for name, pipeline in pipelines.items()
    }
    for pipeline in pipelines.values():
        whole(pipeline)
    shares = [len(set(a) & set(b)) / LENGTH for a, b in zip(*found.values(), strict=True)]
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(ROUNDS):
        for name, pipeline in pipelines.items():
            request = request_of(pipeline)
            channel = timed(lambda request=request: CHANNELS.get("cf")(request, LENGTH))
            times.setdefault((name, "cf"), []).append(channel)
            total = timed(lambda pipeline=pipeline: whole(pipeline))
            times.setdefault((name, "pipeline"), []).append(total)
    medians = "  ".join(
        f"{part} {name} {statistics.median(values):.3f} ms"
        for (name, part), values in sorted(times.items(), key=lambda entry: entry[0][1])
    )
    print(
        f"{items:>8} items, noise {noise}: {medians}  "
        f"recall@{LENGTH} {statistics.mean(shares):.3f}  built in {built:.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="*", default=SIZES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    print(f"CPU time per request, {SESSIONS} sessions at once")
    for items in options.items:
        for noise in NOISES:
            compare(items, noise)


if __name__ == "__main__":
    main()
