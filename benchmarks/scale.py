"""Catalogs of ten thousand to a million items: ``python benchmarks/scale.py``.

For each size a log in the plain format is generated (as many users as items, five interactions a
user; items in clusters, popularity by rank as 1 / rank within a cluster), a world is built from its
files, and sessions are stepped with ``configs/large.yaml``. Each size is a process of its own,
whose peak memory (resident, Python and torch included) is the table's; times are processor time of
one thread. What is done stands in ``--output`` and is not done again. Texts are embedded by word
hashing (64 dimensions, reduced to 32): what a transformer costs a text is on docs/performance.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

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


def measure(size: int, folder: Path, sessions: int) -> dict[str, float]:
    """Return what a size costs: seconds, requests a second, MiB at the peak."""
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
    ready = time.process_time()
    for _ in range(REQUESTS):
        env.step(actions)
    end = time.process_time()
    return {
        "items": size,
        "users": world.log.num_users,
        "interactions": world.log.num_interactions,
        "build_s": built - begin,
        "first_step_s": ready - built,
        "requests_per_s": REQUESTS * sessions / (end - ready),
        "bare_mib": bare,
        "build_mib": after_build,
        "peak_mib": _peak(),
    }


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


def table(rows: list[dict[str, float]]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| items = users | interactions | world built, s | … a thousand items, ms | first step "
        "(indexes), s | requests/s | peak memory, MiB | … beyond the libraries, kB an item |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        own = (row["peak_mib"] - row["bare_mib"]) * MIB / row["items"] / 1e3
        lines.append(
            f"| {row['items']:,} | {row['interactions']:,} | {row['build_s']:.1f} "
            f"| {1e6 * row['build_s'] / row['items']:.0f} | {row['first_step_s']:.1f} "
            f"| {row['requests_per_s']:.0f} | {row['peak_mib']:,.0f} | {own:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--sessions", type=int, default=64)
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
        found = measure(options.one, folder, options.sessions)
        (options.output / f"{options.one}.json").write_text(json.dumps(found, indent=1))
        return
    rows = []
    for size in options.sizes:
        result = options.output / f"{size}.json"
        if not result.exists():
            command = [sys.executable, __file__, "--one", str(size)]
            command += ["--sessions", str(options.sessions), "--output", str(options.output)]
            subprocess.run(command, check=True)
        rows.append(json.loads(result.read_text()))
    print(table(rows))


if __name__ == "__main__":
    main()
