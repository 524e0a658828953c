"""Catalogs of ten thousand to a million items: ``python benchmarks/scale.py``.

For each size a log in the plain format is generated (as many users as items, five interactions a
user; items in clusters, popularity by rank as 1 / rank within a cluster), a world is built from its
files, and sessions are stepped with ``configs/large.yaml``. Each size is a process of its own,
whose peak memory (resident, Python and torch included) is the table's; times are processor time of
one thread. What is done stands in ``--output`` and is not done again. Texts are embedded by word
hashing (64 dimensions, reduced to 32): what a transformer costs a text is on docs/performance.md.
With ``--shards N`` the items' vectors and indexes lie in N Ray actors on this machine, whose memory
is measured too. ``--held`` prints what the process that steps holds an item.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import dataclasses
import gc
import itertools
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from marec_env.world import World

SIZES = (10_000, 100_000, 1_000_000)
PER_USER = 5  # interactions
CLUSTERS = 64
LIKED = 3  # clusters a user consumes from
START, SPAN = 1_700_000_000, 30 * 86_400  # seconds
REQUESTS = 30
MIB = 2**20


def write_log(folder: Path, size: int) -> None:
    """Write ``interactions.csv`` and ``items.csv``."""
    source = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "items.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("item_id", "title"))
        words = source.integers(0, 40, size)
        for item in range(size):
            cluster = item % CLUSTERS
            title = f"theme{cluster} kind{cluster}x{words[item]} style{words[item] % 7} no{item}"
            writer.writerow((f"i{item}", title))
    in_cluster = size // CLUSTERS
    with (folder / "interactions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("user_id", "item_id", "rating", "timestamp"))
        for first in range(0, size, 1 << 16):
            users = np.arange(first, min(first + (1 << 16), size)).repeat(PER_USER)
            liked = source.integers(0, CLUSTERS, (len(users) // PER_USER, LIKED))
            pick = source.integers(0, LIKED, len(users))
            cluster = liked[(users - first), pick]
            # The inverse of a distribution that falls as 1 / rank.
            rank = (in_cluster ** source.random(len(users)) - 1.0).astype(np.int64)
            rating = source.integers(2, 6, len(users))
            when = START + source.integers(0, SPAN, len(users))
            item = rank * CLUSTERS + cluster
            columns = (users.tolist(), item.tolist(), rating.tolist(), when.tolist())
            writer.writerows((f"u{u}", f"i{i}", r, t) for u, i, r, t in zip(*columns, strict=True))


def measure(size: int, folder: Path, sessions: int, shards: int) -> dict[str, Any]:
    """Return what a size costs: seconds, requests a second, MiB at the peak and when stepping."""
    import torch

    import marec_env
    from agents.config import RunConfig
    from marec_env.config.loader import load
    from marec_env.world import build_world

    torch.set_num_threads(1)
    settings = [
        f"environment.data.source={folder}",
        "environment.embeddings.encoder=hashing",
        "environment.pipeline.recall.index_above=0",
        f"environment.pipeline.recall.shards={shards}",
    ]
    config = load("configs/large.yaml", RunConfig, settings).environment
    bare = _peak()
    begin = time.process_time()
    world = build_world(config)
    built = time.process_time()
    after_build = _peak()
    env = marec_env.make_vec(config, num_sessions=sessions)
    actions = env.default_actions()
    env.step(actions)  # builds the indexes
    actors = _actors(world)
    ready, clock = time.process_time(), time.perf_counter()
    for _ in range(REQUESTS):
        env.step(actions)
    end, clock = time.process_time(), time.perf_counter() - clock
    requests, earlier, actors = REQUESTS * sessions, sum(x for x, _ in actors), _actors(world)
    return {
        "items": size,
        "shards": shards,
        "users": world.log.num_users,
        "interactions": world.log.num_interactions,
        "build_s": built - begin,
        "first_step_s": ready - built,
        "requests_per_s": requests / (end - ready),
        "clock_requests_per_s": requests / clock,
        "cpu_ms": 1e3 * (end - ready) / requests,
        "actors_cpu_ms": 1e3 * (sum(x for x, _ in actors) - earlier) / requests,
        "bare_mib": bare,
        "build_mib": after_build,
        "peak_mib": _peak(),
        "resident_mib": _resident(os.getpid()),
        "actors_mib": [resident for _, resident in actors],
        "held": _held(world),
    }


def _actors(world: World) -> list[tuple[float, float]]:
    """Return each item shard's seconds of processor time so far, and MiB resident."""
    if world.knowledge.shards is None:
        return []
    import ray

    from agents.learners.item_shards import RayShards

    host = world.knowledge.shards.host
    assert isinstance(host, RayShards)
    found = []
    for pid in ray.get([actor.__ray_call__.remote(_pid) for actor in host.actors]):
        spent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        seconds = (int(spent[11]) + int(spent[12])) / os.sysconf("SC_CLK_TCK")
        found.append((seconds, _resident(pid)))
    return found


def _pid(_: object) -> int:
    return os.getpid()


def _resident(pid: int) -> float:
    """Return the MiB that a process holds now, but for files and memory that it may share; this
    one gives back first what it has freed.
    """
    if pid == os.getpid():
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
    pages, shared = map(int, Path(f"/proc/{pid}/statm").read_text().split()[1:3])
    return (pages - shared) * os.sysconf("SC_PAGE_SIZE") / MIB


def _held(world: World) -> dict[str, float]:
    """Return the bytes an item of what the stepping process holds of the items, by part of the
    world; a tensor held twice is counted where it is met first.
    """
    count, met = world.knowledge.num_items, set()
    held: dict[str, float] = {}
    for part in ("knowledge", "catalog", "learned", "population", "log"):
        record = getattr(world, part)
        for item in dataclasses.fields(record):
            value, name = getattr(record, item.name), f"{part}.{item.name}"
            for tensor in _tensors(value):
                place = tensor.untyped_storage().data_ptr()
                if not tensor.is_meta and count in tensor.shape and place not in met:
                    met.add(place)
                    held[name] = held.get(name, 0.0) + tensor.untyped_storage().nbytes() / count
            if isinstance(value, tuple | list) and len(value) == count and id(value) not in met:
                met.add(id(value))
                held[name] = 8 + sum(map(sys.getsizeof, value)) / count
    held["indexes"] = sum(4.0 * index.d + 8 for index in world.knowledge.indexes.values())
    return held


def _tensors(value: object) -> list[Tensor]:
    """Return the tensors in a value, a mapping's values or a record's fields."""
    import torch

    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [found for one in value.values() for found in _tensors(one)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [
            found
            for item in dataclasses.fields(value)
            for found in _tensors(getattr(value, item.name))
        ]
    return []


def held_table(rows: list[dict[str, Any]]) -> str:
    """Return how many bytes an item the stepping process holds, as a Markdown table."""
    heads = " | ".join(f"{row['items']:,} items, shards: {row['shards']}" for row in rows)
    lines = [f"| bytes an item | {heads} |", "|---" * (len(rows) + 1) + "|"]
    for name in dict.fromkeys(name for row in rows for name in row["held"]):
        cells = [row["held"].get(name, 0.0) for row in rows]
        if max(cells) >= 1:
            lines.append(f"| {name} | " + " | ".join(f"{cell:.0f}" for cell in cells) + " |")
    return "\n".join(lines)


def write_bundle(size: int, folder: Path, place: Path) -> None:
    """Write a bundle of ``configs/large.yaml`` on such a log, of a team that was not trained."""
    import torch

    import marec_env
    from agents.config import RunConfig
    from agents.learners.config import MAPPOConfig
    from agents.learners.policy import TrainedPolicy
    from agents.learners.team import TeamSpec
    from agents.service.bundle import Bundle, save_bundle
    from marec_env.config.loader import load

    torch.manual_seed(0)
    write_log(folder, size)
    settings = [f"environment.data.source={folder}", "environment.embeddings.encoder=hashing"]
    config = load("configs/large.yaml", RunConfig, settings).environment
    simulator = marec_env.make_vec(config, num_sessions=1)
    team = TeamSpec.of(simulator)
    actors = {agent: team.build_actor(MAPPOConfig(), agent).eval() for agent in team.agents}
    save_bundle(Bundle.of(simulator.world, TrainedPolicy(team, actors)), place)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB


def table(rows: list[dict[str, Any]]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| items = users | shards | interactions | world built, s | … a thousand items, ms "
        "| first step (indexes), s | requests/s | peak memory, MiB "
        "| … beyond the libraries, kB an item | when stepping, MiB | each actor, MiB "
        "| processor time a request, ms: here + actors "
        "| requests/s by the clock |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        own = (row["peak_mib"] - row["bare_mib"]) * MIB / row["items"] / 1e3
        lines.append(
            f"| {row['items']:,} | {row['shards']} | {row['interactions']:,} "
            f"| {row['build_s']:.1f} "
            f"| {1e6 * row['build_s'] / row['items']:.0f} | {row['first_step_s']:.1f} "
            f"| {row['requests_per_s']:.0f} | {row['peak_mib']:,.0f} | {own:.1f} "
            f"| {row['resident_mib']:,.0f} | {', '.join(f'{x:,.0f}' for x in row['actors_mib'])} "
            f"| {row['cpu_ms']:.2f} + {row['actors_cpu_ms']:.2f} "
            f"| {row['clock_requests_per_s']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--shards", type=int, nargs="+", default=[1])
    parser.add_argument("--held", action="store_true", help="also what is held of an item")
    parser.add_argument("--output", type=Path, default=Path("runs/scale"))
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--bundle", type=Path, help="only write one of 100,000 items, to serve")
    options = parser.parse_args()
    if options.bundle:
        write_bundle(100_000, options.output / "log-100000", options.bundle)
        return
    if options.one:
        folder = options.output / f"log-{options.one}"
        if not (folder / "done").exists():
            write_log(folder, options.one)
            (folder / "done").touch()
        found = measure(options.one, folder, options.sessions, options.shards[0])
        _result(options.output, options.one, options.shards[0]).write_text(
            json.dumps(found, indent=1)
        )
        return
    rows = []
    for size, shards in itertools.product(options.sizes, options.shards):
        result = _result(options.output, size, shards)
        if not result.exists():
            command = [sys.executable, __file__, "--one", str(size)]
            command += [
                "--shards",
                str(shards),
                "--sessions",
                str(options.sessions),
                "--output",
                str(options.output),
            ]
            subprocess.run(command, check=True)
        rows.append(json.loads(result.read_text()))
    print(table(rows))
    if options.held:
        print(held_table(rows))


def _result(output: Path, size: int, shards: int) -> Path:
    return output / (f"{size}-{shards}-shards.json" if shards > 1 else f"{size}.json")


if __name__ == "__main__":
    main()
