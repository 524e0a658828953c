"""Data of one's own: a folder with interactions.csv and items.csv.

``python examples/own_data.py FOLDER`` opens a folder of yours; without one it first writes a small
invented shop's, to show the format (``docs/data.md`` has all columns). It then compares baselines
that have learned from these data alone. In YAML::

    environment:
      data: {source: path/to/folder, like_threshold: 4.0}
"""

import csv
import random
import sys
import tempfile
from pathlib import Path

from agents.baselines import build_baseline
from marec_env.environment_config import EnvironmentConfig
from marec_env.evaluation.rollout import rollout
from marec_env.simulator import Simulator
from marec_env.world import build_world

GENRES = {"tea": "green black oolong", "coffee": "filter espresso roast", "cups": "blue red glass"}


def write_shop(folder: Path, users: int = 80, items: int = 240) -> None:
    """Write an invented shop: every user prefers one genre and rates it higher."""
    draw = random.Random(0)
    genres = [list(GENRES)[item % len(GENRES)] for item in range(items)]
    with (folder / "items.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["item_id", "title", "genres"])
        for item, genre in enumerate(genres):
            kind = draw.choice(GENRES[genre].split())
            table.writerow([f"i{item}", f"{kind} {genre} no. {item}", genre])
    with (folder / "interactions.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["user_id", "item_id", "rating", "timestamp"])
        for user in range(users):
            favourite = list(GENRES)[user % len(GENRES)]
            for order, item in enumerate(draw.sample(range(items), 30)):
                rating = draw.choice([4, 5] if genres[item] == favourite else [1, 2, 3, 4])
                table.writerow([f"u{user}", f"i{item}", rating, 1_700_000_000 + 3600 * order])


def compare(folder: Path, encoder: str = "minilm", sessions: int = 64) -> dict[str, float]:
    """Print and return mean clicks a session of three baselines on the folder's data."""
    environment = EnvironmentConfig.model_validate(
        {
            "max_requests": 10,
            "data": {"source": str(folder)},
            "embeddings": {"encoder": encoder},
            "catalog": {"num_topics": 6},
            "population": {"history": 12},
            "pipeline": {"candidates": 40, "slate_size": 5},
        }
    )
    world = build_world(environment)
    found = {}
    for name in ("random_slates", "popularity", "item_knn"):
        policy = build_baseline(name, Simulator(world, 1))
        clicks = rollout(world, policy, sessions, seed=0).per_session["clicks"]
        found[name] = float(clicks.mean())
        print(f"{name:>14}: {found[name]:.1f} clicks a session")
    return found


if __name__ == "__main__":
    if len(sys.argv) > 1:
        compare(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as place:
            write_shop(Path(place))
            compare(Path(place))
