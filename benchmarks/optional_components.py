"""What the optional components do: ``python benchmarks/optional_components.py [CONFIG]``.

Hand-set play on the same sessions with the same luck: without ``trainer`` and with one that never
refits, or refits as often as it may; without ``auditor`` and with ones of rising strictness, at the
configured limit on a topic's share and at half of it. Printed: clicks of all, known and new users,
requests, and the share of the slates within the limits, with paired 95 % intervals.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from agents.baselines.teams import StaticTeam, hand_set_actions
from agents.config import RunConfig
from marec_env.config.loader import load
from marec_env.environment_config import EnvironmentConfig
from marec_env.evaluation.rollout import RolloutResult, rollout
from marec_env.evaluation.statistics import mean_estimate, paired_difference
from marec_env.simulator import Simulator
from marec_env.vector import Action
from marec_env.world import World, build_world

SESSIONS = 1024
SEED = 1_000_003
RANKING = "ranking_0"
PERIODS = (1, 5, 10)  # requests between two decisions of the trainer
STRICTNESS = (-1.0, 0.0, 0.5, 0.9)  # of the auditor, about topics


def arm(world: World, components: tuple[str, ...], **sections: dict[str, float]) -> World:
    """Return the world with another team, and changed settings of some pipeline sections.

    The ranking is paid for staying within the limits, which changes no decision of hand-set play
    and so measures every arm alike.
    """
    config = world.config
    pipeline = config.pipeline.model_copy(
        update={"components": components}
        | {
            name: getattr(config.pipeline, name).model_copy(update=keys)
            for name, keys in sections.items()
        }
    )
    rewards = config.rewards.model_copy(update={"objectives": {"ranking": {"within_limits": 1.0}}})
    changed = config.model_copy(update={"pipeline": pipeline, "rewards": rewards})
    return replace(world, config=changed)


def play(world: World, sessions: int, **changed: Action) -> RolloutResult:
    """Play the hand-set actions, but for those given by agent."""
    actions = hand_set_actions(Simulator(world, 1))
    return rollout(world, StaticTeam(actions | changed), sessions, SEED)


def print_arm(label: str, found: RolloutResult, base: RolloutResult) -> None:
    """Print one line: what was reached, and the difference in clicks to the first arm."""
    clicks, before = (o.per_session["clicks"].double().numpy() for o in (found, base))
    new = found.is_new.numpy()
    cells = [f"{mean_estimate(clicks).value:7.2f}"]
    for group in (np.ones_like(new), ~new, new):
        gain = paired_difference(clicks[group], before[group])
        cells.append(f"{gain.value:+6.2f} [{gain.low:+.2f}, {gain.high:+.2f}]")
    means = found.means()
    cells.append(f"{means['length']:8.2f}")
    cells.append(f"{100 * means[f'objective/{RANKING}']:7.1f} %")
    print(f"{label:<42} " + "  ".join(f"{cell:>21}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", nargs="?", type=Path, help="YAML of a run; default: the preset")
    parser.add_argument("--sessions", type=int, default=SESSIONS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = load(options.config, RunConfig).environment if options.config else EnvironmentConfig()
    world = build_world(config)
    team = tuple(c for c in config.pipeline.components if c not in ("trainer", "auditor"))
    place = team.index("ranking")
    base = play(arm(world, team), options.sessions)
    heads = ("clicks", "all users", "known users", "new users", "requests", "within limits")
    print(f"{options.sessions} sessions; differences in clicks to the first line, 95 % intervals")
    print(f"{'':<42} " + "  ".join(f"{head:>21}" for head in heads))
    print_arm("neither", base, base)
    for every in PERIODS:
        trained = arm(world, ("trainer", *team), trainer={"every": every})
        for choice, name in ((0, "never refits"), (1, "refits")):
            if choice or every == PERIODS[0]:
                found = play(trained, options.sessions, trainer_0=torch.tensor(choice))
                print_arm(f"trainer {name}, may every {every}", found, base)
    limit = config.pipeline.audit.max_topic_share
    for share in (limit, limit / 2):
        audit = {"max_topic_share": share}
        print_arm(
            f"neither, limit {share:g}", play(arm(world, team, audit=audit), options.sessions), base
        )
        audited = arm(world, (*team[:place], "auditor", *team[place:]), audit=audit)
        for strictness in STRICTNESS:
            action = torch.tensor([strictness, 0.0])
            found = play(audited, options.sessions, auditor_0=action)
            print_arm(f"auditor, limit {share:g}, strictness {strictness:g}", found, base)


if __name__ == "__main__":
    main()
