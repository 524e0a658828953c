"""What text features are worth: ``python benchmarks/text_features.py [CONFIG]``.

The hand-set pipeline with the text channel and the text block, and without both, on the same
sessions with the same luck. A share of the catalog, drawn at random, is cold: the recommender's log
and the users' histories hold none of its interactions, so that collaborative factors, neighbours
and popularity know nothing of it; users like it as before. Printed: outcomes of all, known and new
users, and of the cold items, with paired 95 % intervals. The channel ``diverse`` is left out of
both, for it mixes text in. One channel less leaves its places to the others.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from agents.config import RunConfig
from marec_env import random
from marec_env.config.loader import load
from marec_env.data.recommender_log import learn
from marec_env.environment_config import EnvironmentConfig
from marec_env.evaluation.statistics import mean_estimate, paired_difference
from marec_env.pipeline import Knowledge
from marec_env.pipeline.knowledge import NEIGHBOURS
from marec_env.simulator import Simulator
from marec_env.world import World, build_world

COLD_SHARE = 0.2
SESSIONS = 2048
BATCH = 512
CHANNELS = ("cf", "text", "item_to_item", "popular", "fresh")


@dataclass
class Cohort:
    """Outcomes of one arm, float64 ``[n]`` each, session by session."""

    clicks: np.ndarray
    length: np.ndarray
    cold_shown: np.ndarray
    cold_clicks: np.ndarray
    new: np.ndarray

    @property
    def cold_rate(self) -> np.ndarray:
        """Click rate of the cold items shown; NaN where none was."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.cold_clicks / self.cold_shown


def with_cold_items(world: World, share: float, seed: int) -> tuple[World, torch.Tensor]:
    """Return a world whose recommender has never met a share of the items, and which."""
    count = world.knowledge.num_items
    keys = random.session_keys(seed, torch.arange(count))
    draws = random.uniform(keys, 0, "benchmark/cold", 1).squeeze(1)
    cold = torch.zeros(count, dtype=torch.bool)
    cold[draws.argsort()[: round(share * count)]] = True
    visible = world.visible_log.select(~cold[world.visible_log.item])
    learned = learn(visible, world.config.knowledge)
    catalog = replace(world.catalog, popularity=learned.popularity)
    cf = torch.nn.functional.normalize(learned.factors.item.to(torch.float32), dim=1)
    neighbours = learned.neighbours[:, :NEIGHBOURS]
    knowledge = Knowledge.of(catalog, cf, neighbours, f"{world.knowledge.version}-cold")
    history = world.population.history
    met = torch.where(cold[history.item], -1, history.item)
    population = replace(world.population, history=replace(history, item=met))
    changed = replace(
        world,
        visible_log=visible,
        catalog=catalog,
        learned=learned,
        knowledge=knowledge,
        population=population,
    )
    return changed, cold


def play(world: World, cold: torch.Tensor, sessions: int, seed: int) -> Cohort:
    """Run the hand-set pipeline on sessions ``0 ... sessions - 1``."""
    parts: dict[str, list[torch.Tensor]] = {}
    for first in range(0, sessions, BATCH):
        simulator = Simulator(world, min(BATCH, sessions - first), autoreset=False)
        numbers = torch.arange(first, first + simulator.num_envs)
        simulator.begin(numbers, seed)
        new = simulator.users.is_new.clone()
        alive = torch.ones(simulator.num_envs)
        measures = ("clicks", "length", "shown", "hit")
        sums = {name: torch.zeros(simulator.num_envs) for name in measures}
        while bool(alive.any()):
            step = simulator.step({})
            assert simulator.last is not None
            clicks, is_cold = simulator.last.feedback.clicks, cold[simulator.last.slate]
            sums["clicks"] += alive * clicks.sum(1)
            sums["length"] += alive
            sums["shown"] += alive * is_cold.sum(1)
            sums["hit"] += alive * (clicks * is_cold).sum(1)
            alive = alive * (~(step.terminated | step.truncated)).float()
        for name, value in {**sums, "new": new}.items():
            parts.setdefault(name, []).append(value)
    found = {name: torch.cat(values).double().numpy() for name, values in parts.items()}
    return Cohort(found["clicks"], found["length"], found["shown"], found["hit"], found["new"] > 0)


def arm(world: World, text: bool) -> World:
    """Return the world with a pipeline that has text features or not."""
    pipeline = world.config.pipeline
    channels = tuple(name for name in CHANNELS if text or name != "text")
    recall = pipeline.recall.model_copy(update={"channels": channels})
    left_out = {"affinity"} if text else {"affinity", "text"}
    blocks = {name: cost for name, cost in pipeline.blocks.items() if name not in left_out}
    changed = pipeline.model_copy(update={"recall": recall, "blocks": blocks})
    return replace(world, config=world.config.model_copy(update={"pipeline": changed}))


def print_comparison(with_text: Cohort, without: Cohort) -> None:
    """Print one line per measure and group of users."""
    everyone = np.ones_like(with_text.new)
    groups = (("all", everyone), ("known", ~with_text.new), ("new", with_text.new))
    print(f"{'':<28} {'with':>8} {'without':>8} {'difference':>11}  95 % interval")
    for measure in ("clicks", "length", "cold_shown", "cold_clicks", "cold_rate"):
        for name, chosen in groups:
            one, two = (getattr(c, measure)[chosen] for c in (with_text, without))
            gain = paired_difference(one, two)
            label = f"{measure.replace('_', ' ')}, {name} users"
            print(
                f"{label:<28} {mean_estimate(one).value:>8.3f} {mean_estimate(two).value:>8.3f} "
                f"{gain.value:>+11.3f}  [{gain.low:+.3f}, {gain.high:+.3f}]"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", nargs="?", type=Path, help="YAML of a run; default: the preset")
    parser.add_argument("--sessions", type=int, default=SESSIONS)
    parser.add_argument("--cold", type=float, default=COLD_SHARE, help="share of cold items")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    config = load(options.config, RunConfig).environment if options.config else EnvironmentConfig()
    world, cold = with_cold_items(build_world(config), options.cold, options.seed)
    print(
        f"{options.sessions} sessions, seed {options.seed}, C = {config.pipeline.candidates}, "
        f"{int(cold.sum())} of {len(cold)} items cold, encoder {config.embeddings.encoder}"
    )
    arms = [play(arm(world, text), cold, options.sessions, options.seed) for text in (True, False)]
    print_comparison(*arms)


if __name__ == "__main__":
    main()
