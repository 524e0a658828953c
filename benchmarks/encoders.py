"""What fitting the text encoder gains: ``python benchmarks/encoders.py play [ARM ...] | train
FOLDER [most]``, on the default task, the users the same whatever the recommender's encoder.

``play``: hand-set play by arm over ten cohorts. ``train``: teams, seed by seed, into folders called
ARM-SEED; at most ``most`` now, and none that is there already; their table is ``python
benchmarks/text.py runs FOLDER``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from agents.baselines import build_baseline
from agents.commands.train import start_run
from benchmarks.text import train_arms
from marec_env.environment_config import EnvironmentConfig
from marec_env.evaluation.rollout import RolloutResult, rollout
from marec_env.evaluation.statistics import paired_difference
from marec_env.simulator import Simulator
from marec_env.world import build_world

SESSIONS, COHORTS = 512, 10
FIT = {"method": "lora", "steps": 60, "batch_size": 32}
ARMS: dict[str, dict[str, object] | None] = {
    "base": None,
    "co_click": FIT | {"objective": "co_click"},
    "from_reward": FIT | {"objective": "from_reward"},
}


def play(arms: Sequence[str]) -> None:
    """Print outcomes of hand-set play by arm, and paired differences to the first."""
    found: dict[str, list[dict[str, float]]] = {}
    for arm in arms:
        section = {"embeddings": {"finetune": ARMS[arm]}}
        world = build_world(EnvironmentConfig.model_validate(section))
        policy = build_baseline("static", Simulator(world, 1))
        cohorts = (rollout(world, policy, SESSIONS, seed) for seed in range(COHORTS))
        found[arm] = [_outcomes(result) for result in cohorts]
        for name in found[arm][0]:
            values, first = ([cohort[name] for cohort in found[one]] for one in (arm, arms[0]))
            gap = "" if arm == arms[0] else f"; less {arms[0]} {paired_difference(values, first)}"
            print(f"{arm:>11} {name}: {mean(values):.2f}{gap}", flush=True)


def _outcomes(result: RolloutResult) -> dict[str, float]:
    clicks, new, cold = result.per_session["clicks"], result.is_new, result.item_groups["cold"] == 1
    shown, clicked = result.impressions[cold].sum(), result.clicks[cold].sum()
    found = {
        "clicks": clicks.mean(),
        "known users": clicks[~new].mean(),
        "new users": clicks[new].mean(),
        "of what was shown, cold items, %": 100 * shown / result.impressions.sum(),
        "clicks on cold items, %": 100 * clicked / result.clicks.sum(),
        "clicks a cold item shown, %": 100 * clicked / shown,
    }
    return {name: float(value) for name, value in found.items()}


def train(folder: Path, most: int) -> None:
    """Train teams for 100,000 env steps by seed and arm."""
    budget = ["training.env_steps=100000", "evaluation.every=null", "evaluation.baselines=[]"]

    def run(arm: str, seed: int, place: Path) -> int:
        fit = f"environment.embeddings.finetune={json.dumps(ARMS[arm])}"
        return start_run("configs/default.yaml", [fit, *budget, f"seed={seed}"], place)

    train_arms(folder, most, ARMS, run)


if __name__ == "__main__":
    part, *rest = sys.argv[1:]
    if part == "play":
        play(rest or list(ARMS))
    else:
        train(Path(rest[0]), int(rest[1]) if len(rest) > 1 else -1)
