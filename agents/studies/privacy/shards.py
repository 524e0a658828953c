"""Recall of factors that were learned over shards of users, beside those learned on all at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from agents.studies.privacy.curve import held_out, recall
from agents.studies.records import spread
from marec_env.data.interactions import InteractionLog
from marec_env.data.recommender_log import KnowledgeConfig, directions, learn
from marec_env.evaluation.statistics import mean_estimate
from marec_env.privacy.federated import FederatedConfig
from marec_env.reporting.table import TextTable

__all__ = ["measure_shards", "shards_table"]

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


def measure_shards(
    log: InteractionLog, config: KnowledgeConfig, seeds: int, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Return, by setting, recall@20 of held-out likes of each seed, megabytes and ε."""
    found: dict[str, Any] = {}
    for seed in range(seeds):
        train, rows, wanted = held_out(log, seed)
        likes = (rows == 1.0).to(torch.float32)
        for name, settings in SETTINGS.items():
            tell(f"{name}, seed {seed}")
            federated = settings and FederatedConfig.model_validate(
                {"rounds": config.sweeps, **settings}
            )
            own = config.model_copy(update={"federated": federated or None, "seed": seed})
            learned = learn(train, own)
            vectors = directions(learned.factors.item)
            profile = torch.nn.functional.normalize(likes @ vectors, dim=1)
            row = found.setdefault(name, {"recall": []})
            row["recall"].append(recall(profile @ vectors.T, rows, wanted))
            if (report := learned.federated) is not None:
                row["megabytes"] = (report.bytes_down + report.bytes_up) / 1e6
                row["epsilon"] = report.epsilon
    return found


def shards_table(found: dict[str, Any]) -> TextTable:
    """Return recalls and their paired differences from the factors of all users at once."""
    base = found[AT_ONCE]["recall"]
    rows = []
    for name, row in found.items():
        apart = [one - other for one, other in zip(row["recall"], base, strict=True)]
        rows.append(
            (
                name,
                spread(mean_estimate(row["recall"])),
                "–" if name == AT_ONCE else spread(mean_estimate(apart), sign="+"),
                f"{row['megabytes']:.1f}" if "megabytes" in row else "–",
                f"{row['epsilon']:.3g}" if row.get("epsilon") else "–",
            )
        )
    return TextTable(
        "Factors learned over shards of the users",
        ("learned on", "recall@20", "less at once", "MB sent", "ε of a shard"),
        rows,
        notes=(f"Mean ± half of the 95 % interval over {len(base)} seeds.",),
    )
