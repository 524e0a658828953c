"""Factors that were learned over shards of users, beside those learned on all at once: recall, and
clicks of hand-set play.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from agents.config import RunConfig
from agents.studies.privacy.curve import Plan, hand_set_clicks, held_out, recall
from agents.studies.records import Cells, by_setting, spread
from marec_env.data.log import load_log
from marec_env.data.recommender_log import directions, learn
from marec_env.evaluation.statistics import mean_estimate
from marec_env.privacy.federated import FederatedConfig
from marec_env.reporting.table import TextTable
from marec_env.world import build_world

AT_ONCE = "all users at once"
SETTINGS: dict[str, dict[str, Any] | None] = {
    AT_ONCE: None,
    "1 shard": {"shards": 1},
    "5 shards": {"shards": 5},
    "20 shards": {"shards": 20},
    "20 shards, users sorted": {"shards": 20, "split": "sorted"},
    "20 shards, sorted, FedProx 30": {"shards": 20, "split": "sorted", "proximal": 30.0},
    "20 shards, half asked, a third of them lost": {
        "shards": 20, "client_share": 0.5, "dropout": 0.33, "rounds": 30,
    },
    "20 shards, noise 1": {"shards": 20, "noise": 1.0, "clip": 5.0},
}  # fmt: skip
"""By name; rounds as many as the sweeps at once where nothing else is said."""


def shards_cells(run: RunConfig, plan: Plan) -> Cells:
    """Return the study of a run's log, cut into shards: of each setting and seed recall@20 of
    held-out likes, clicks a session of hand-set play on vectors from the whole log, megabytes
    and ε.

    Raises:
        ConfigError: the environment is not marec's.
    """
    environment = run.recommender
    log = load_log(environment.data)

    def measure(own: dict[str, Any] | None, seed: int) -> dict[str, float | None]:
        train, rows, wanted = held_out(log, seed)
        likes = (rows == 1.0).to(torch.float32)
        config = environment.knowledge
        federated = own and FederatedConfig.model_validate({"rounds": config.sweeps, **own})
        config = config.model_copy(update={"federated": federated or None, "seed": seed})
        learned = learn(train, config)
        vectors = directions(learned.factors.item)
        profile = torch.nn.functional.normalize(likes @ vectors, dim=1)
        world = build_world(environment.model_copy(update={"knowledge": config}))
        found: dict[str, float | None] = {
            "recall": recall(profile @ vectors.T, rows, wanted),
            "static": hand_set_clicks(world, plan.sessions, plan.cohort),
        }
        if (report := learned.federated) is not None:
            found["megabytes"] = (report.bytes_down + report.bytes_up) / 1e6
            found["epsilon"] = report.epsilon
        return found

    cells = {
        f"{name}; seed {seed}": partial(measure, own, seed)
        for seed in range(plan.seeds)
        for name, own in SETTINGS.items()
    }
    budgets = plan.only("sessions", "cohort")
    return Cells({"environment": environment.model_dump(mode="json"), "plan": budgets}, cells)


def shards_table(report: Mapping[str, Any]) -> TextTable:
    """Return recalls and clicks, and their paired differences from the factors of all users at
    once.
    """
    by_name = by_setting(report)
    base = by_name[AT_ONCE]
    rows = []
    for name, found in by_name.items():
        cells = []
        for quantity, digits in (("recall", 3), ("static", 1)):
            values = [one[quantity] for one in found.values()]
            apart = [one[quantity] - base[seed][quantity] for seed, one in found.items()]
            cells += [
                spread(mean_estimate(values), digits),
                "–" if name == AT_ONCE else spread(mean_estimate(apart), digits, sign="+"),
            ]
        last = next(reversed(found.values()))
        sent = f"{last['megabytes']:.1f}" if "megabytes" in last else "–"
        rows.append((name, *cells, sent, f"{last['epsilon']:.3g}" if last.get("epsilon") else "–"))
    return TextTable(
        "Factors learned over shards of the users",
        (
            "learned on",
            "recall@20",
            "less at once",
            "clicks, hand-set",
            "less at once",
            "MB sent",
            "ε of a shard",
        ),
        rows,
        notes=(
            f"Mean ± half of the 95 % interval over {len(base)} seeds of shards, fits and held-out "
            f"likes; clicks a session on {report['plan']['sessions']} sessions.",
        ),
    )
