"""What pictures gain: ``PYTHONPATH=. python benchmarks/pictures.py [LOG ...]``.

Clicks a session of hand-set play, ten cohorts, on the shop of ``examples/pictures.py`` (titles say
nothing, pictures are of six colours, each user looks mostly at one of them), by what is used of the
pictures; differences are paired by cohort. Logs: ``dense``, 40 ratings a user; ``share``, the same,
of which the recommender knows a tenth; ``sparse``, 6 ratings a user.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import mean

import torch

from agents.baselines import build_baseline
from agents.config import RunConfig
from examples.pictures import write_shop
from marec_env.config.loader import load
from marec_env.evaluation.rollout import rollout
from marec_env.evaluation.statistics import paired_difference
from marec_env.simulator import Simulator
from marec_env.world import build_world

SESSIONS, COHORTS, USERS = 256, 10, 300
KNOWN = ["knowledge.interaction_share=0.1"]
LOGS: dict[str, tuple[int, list[str]]] = {
    "dense": (40, []),
    "share": (40, KNOWN),
    "sparse": (6, []),
}
"""Ratings of a user, and what is set beside the arm."""
WITHOUT = ["pipeline.recall.channels=[cf,text,item_to_item,popular,fresh]"]
PLAIN = ["pipeline.blocks={cf: 0.02, text: 0.03, popularity: 0.005, exposure: 0.01}"]
ARMS = {"none": WITHOUT + PLAIN, "channel": PLAIN, "block": WITHOUT, "both": []}


def main() -> None:
    """Print clicks by arm, and the differences to no pictures."""
    for log in sys.argv[1:] or LOGS:
        ratings, known = LOGS[log]
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            colours = write_shop(folder, users=USERS, ratings=ratings)
            found: dict[str, dict[str, list[float]]] = {}
            for arm, less in ARMS.items():
                sets = [f"environment.{change}" for change in less + known]
                world = build_world(load(folder / "run.yaml", RunConfig, sets).environment)
                policy = build_baseline("static", Simulator(world, 1))
                played = [rollout(world, policy, SESSIONS, seed) for seed in range(COHORTS)]
                clicks = [one.per_session["clicks"] for one in played]
                new = [one.is_new for one in played]
                found[arm] = {
                    "all": [float(c.mean()) for c in clicks],
                    "new users": [float(c[n].mean()) for c, n in zip(clicks, new, strict=True)],
                }
                told = ", ".join(f"{who} {mean(values):.2f}" for who, values in found[arm].items())
                print(f"{log}, {arm}: {told}", flush=True)
                for who, values in found[arm].items() if arm != "none" else ():
                    print(f"  {who}, less none: {paired_difference(values, found['none'][who])}")
            names = torch.tensor([sorted(set(colours)).index(colour) for colour in colours])
            for what, near in (
                ("pictures", world.knowledge.picture_neighbours),
                ("consumed together", world.knowledge.neighbours),
            ):
                same = (names[near] == names[:, None]).float().mean()
                print(f"  neighbours of the same colour, by {what}: {same:.2f}")


if __name__ == "__main__":
    sys.exit(main())
