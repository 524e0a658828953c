"""Throughput and memory of users alone, beside public simulators: ``python benchmarks/users.py``.

One thread, process CPU time, medians of repeated blocks that are interleaved over the cases, so
that a slow spell of the machine meets all of them alike. Slates are drawn beforehand; episodes that
end are reset within the measured time. ``--peers PYTHON`` adds simulators installed for another
interpreter (see ``benchmarks/users_peers.py``) and compares the return of random slates in interest
evolution.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from marec_env import random
from marec_env.classic import get_preset
from marec_env.classic.populations import synthetic_population
from marec_env.classic.rollout import play
from marec_env.users import ORACLES

BLOCKS = 7
SLATE = 10
SLATES = 16  # different slates that take turns
ROWS = 1 << 18  # requests a block aims at
TARGETS = {64: 150_000, 1024: 300_000}  # requests a second


def users_case(preset: str, sessions: int, items: int | None = None) -> Callable[[], tuple]:
    """Return a function that runs one block and returns (requests, CPU seconds)."""
    task = get_preset(preset)
    people = synthetic_population(0, items=items) if items else task.population(0)
    users = task.users(sessions, population=people)
    keys = random.session_keys(0, torch.arange(sessions))
    source = torch.Generator().manual_seed(0)
    size = task.slate_size
    slates = torch.randint(people.num_items, (SLATES, sessions, size), generator=source)
    requests = min(max(ROWS // sessions, 20), 1500)
    users.reset(keys)
    state = {"episode": 0}

    def block() -> tuple[int, float]:
        begin = time.process_time()
        for step in range(requests):
            state["episode"] += 1
            feedback = users.respond(slates[step % SLATES])
            users.reset(keys + state["episode"], feedback.left)
        return requests * sessions, time.process_time() - begin

    return block


def medians(cases: dict[str, Callable[[], tuple]]) -> dict[str, float]:
    """Return each case's median requests per second over interleaved blocks."""
    found: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(BLOCKS + 1):
        for name, block in cases.items():
            requests, seconds = block()
            if number:  # the first warms up
                found[name].append(requests / seconds)
    return {name: sorted(values)[BLOCKS // 2] for name, values in found.items()}


def show(title: str, rows: dict[str, float]) -> None:
    print(f"\n{title}")
    for name, value in rows.items():
        print(f"  {name:<58}{value:>14,.0f} requests/s")


def memory(preset: str) -> int:
    """Return the bytes of state a session."""
    users = get_preset(preset).users(64)
    return sum(value.nbytes for value in users.state_dict().values()) // 64


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", metavar="PYTHON", help="interpreter that has recsim, recogym")
    chosen = parser.parse_args()
    torch.set_num_threads(1)

    batches = (1, 64, 256, 1024, 8192)
    by_batch = medians({f"B = {b}": users_case("marec", b) for b in batches})
    show("preset marec, slate 10 of 1,000 items, by sessions side by side", by_batch)
    missed = False
    for sessions, target in TARGETS.items():
        rate = by_batch[f"B = {sessions}"]
        missed |= rate < target
        verdict = "met" if rate >= target else "MISSED"
        print(f"  target at B = {sessions}: {target:,}: {verdict} ({rate / target:.1f} times)")
    flat = [1e9 / by_batch[f"B = {b}"] for b in batches if b >= 256]
    print("  ns a request at B = 256, 1024, 8192: " + ", ".join(f"{one:.0f}" for one in flat))

    sizes = (1000, 10_000, 100_000)
    cases = {f"{n:,} items": users_case("marec", 1024, n) for n in sizes}
    show("preset marec, B = 1,024, by items in the catalog", medians(cases))

    names = (
        "marec",
        "sardine/SlateTopK-Static",
        "sardine/SlateTopK-BoredInf",
        "recsim/interest_evolution",
        "recsim/long_term_satisfaction",
        "recsim/interest_exploration",
        "kuaisim/session",
    )
    show("presets, B = 1,024", medians({name: users_case(name, 1024) for name in names}))
    print("\nstate a session: " + ", ".join(f"{name} {memory(name):,} bytes" for name in names))

    if chosen.peers:
        script = Path(__file__).with_name("users_peers.py")
        ran = subprocess.run([chosen.peers, str(script)], capture_output=True, text=True)
        if ran.returncode:
            print(f"\npeers did not run: {ran.stderr.strip().splitlines()[-1]}")
            return 1
        peers = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
        show("public simulators, one session", {one["name"]: one["per_second"] for one in peers})
        task = get_preset("recsim/interest_evolution")
        keys = random.session_keys(1, torch.arange(2000))
        ours = play(
            task.users(2000),
            keys,
            ORACLES["random"],
            task.slate_size,
            10_000,
            candidates=task.candidates,
            reward=task.reward,
        ).reward
        theirs, error = peers[0]["return_mean"], peers[0]["return_error"]
        mine, own = float(ours.mean()), float(ours.std() / len(ours) ** 0.5)
        apart = abs(mine - theirs) / (error**2 + own**2) ** 0.5
        print(
            f"\ninterest evolution, random slates, minutes watched: recsim {theirs:.1f} ± "
            f"{error:.1f}, marec {mine:.1f} ± {own:.1f}: {apart:.1f} standard errors apart"
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
