"""Five algorithms on equal terms: the same environment, budget and evaluation sessions.

``python examples/compare_algorithms.py FOLDER`` trains two short seeds of each (some minutes) and
writes FOLDER/comparison: table, JSON, CSV and a page. With two seeds and this budget it shows how a
comparison is made, not which algorithm is best: take the budget of configs/default.yaml and
``--seeds 0-9`` of train.py for that.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from agents.commands.compare import command as compare
from agents.commands.train import start_run

ROOT = Path(__file__).parents[1]
ALGORITHMS = {
    "mappo": ["algorithm.kind=mappo"],
    "mappo-gru": ["algorithm.kind=mappo", "algorithm.actor.recurrent_units=32"],
    "mappo-observing": ["algorithm.kind=mappo", "algorithm.critic_input=state_and_observation"],
    "ippo": ["algorithm.kind=ippo"],
    "happo": ["algorithm.kind=happo"],
}
"""What each is called, and what it changes in the configuration."""


def compare_algorithms(
    folder: Path,
    algorithms: Mapping[str, Sequence[str]],
    seeds: Sequence[int],
    overrides: Sequence[str] = (),
    config: str = str(ROOT / "configs" / "quick.yaml"),
) -> Path:
    """Train every algorithm with every seed, compare them, and return the comparison's folder."""
    runs = []
    for name, changes in algorithms.items():
        for seed in seeds:
            place = folder / f"{name}-{seed}"
            settings = [f"name={name}", f"seed={seed}", *changes, *overrides]
            if start_run(config, settings, place) != 0:
                sys.exit(f"{place} was stopped")
            runs.append(place)
    output = folder / "comparison"
    compare(runs, output=output, title=f"{len(algorithms)} algorithms")
    return output


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/five-algorithms")
    print(compare_algorithms(target, ALGORITHMS, seeds=(0, 1)))
