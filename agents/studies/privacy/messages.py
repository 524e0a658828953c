"""What noise on messages costs a team in clicks, and what it keeps from who listens: over the ε of
one message under local differential privacy.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from pydantic import TypeAdapter

from agents.config import RunConfig
from agents.studies.privacy.attributes import groups_of, infer, views
from agents.studies.privacy.curve import Plan, clicks_of
from agents.studies.privacy.report import attributes_of, of_log_users
from agents.studies.privacy.teams import trained_in
from agents.studies.records import Cells, by_setting, spread
from marec_env.evaluation.statistics import mean_estimate
from marec_env.pipeline.config import MessageConfig
from marec_env.reporting.table import TextTable
from marec_env.world import build_world

SILENT = "none"
LEVELS: dict[str, float | None] = {"∞": None, "100": 100.0, "32": 32.0, "8": 8.0, "2": 2.0}
"""ε of one message by name."""
_KINDS = ("fixed", "learned")


def messages_cells(run: RunConfig, plan: Plan) -> Cells:
    """Return the study of a run's log, environment and learner: of each kind of messages, ε and
    seed clicks a session of the trained team, and by attribute the AUC with which its messages tell
    it. What the run says of messages beside kind and privacy stays.

    Raises:
        ConfigError: the environment is not marec's.
    """
    environment = of_log_users(run.recommender).model_copy(update={"device": "cpu"})
    pipeline = environment.pipeline
    rest = pipeline.messages.model_dump(exclude={"kind", "privacy"})
    attributes = attributes_of(environment)

    def measure(kind: str, epsilon: float | None, seed: int) -> dict[str, float]:
        told = {} if kind == SILENT else {**rest, "privacy": epsilon and {"epsilon": epsilon}}
        messages = TypeAdapter(MessageConfig).validate_python({"kind": kind, **told})
        changed = pipeline.model_copy(update={"messages": messages})
        world = build_world(environment.model_copy(update={"pipeline": changed}))
        policy = trained_in(run, world, seed, plan.train_steps)
        found = {"clicks": clicks_of(world, policy, plan.sessions, plan.cohort)}
        if kind != SILENT:
            met, seen = views(world, policy, plan.requests, seed)
            for name, group in groups_of(attributes, met).items():
                found[name] = infer(seen["messages"], group, seed)["auc"].value
        return found

    budgets = plan.only("seeds", "sessions", "cohort", "train_steps", "requests")
    rows = [(SILENT, "–", None)] + [(kind, *level) for kind in _KINDS for level in LEVELS.items()]
    cells = {
        f"{kind}, ε {level}, seed {seed}": partial(measure, kind, epsilon, seed)
        for seed in range(plan.seeds)
        for kind, level, epsilon in rows
    }
    return Cells({"config": run.model_dump(mode="json"), "plan": budgets}, cells)


def messages_table(report: Mapping[str, Any]) -> TextTable:
    """Return clicks, their paired differences from teams without messages, and what is told."""
    by_name = by_setting(report, ", seed ")
    base = next(iter(by_name.values()))
    attributes = sorted({key for cell in report["cells"].values() for key in cell} - {"clicks"})
    rows = []
    for name, found in by_name.items():
        kind, level = name.split(", ε ")
        clicks = [one["clicks"] for one in found.values()]
        more = [one["clicks"] - base[seed]["clicks"] for seed, one in found.items() if seed in base]
        told = [
            spread(mean_estimate([one[key] for one in found.values()])) if kind != SILENT else "–"
            for key in attributes
        ]
        apart = "–" if kind == SILENT else spread(mean_estimate(more), 1, sign="+")
        rows.append((kind, level, spread(mean_estimate(clicks), 1), apart, *told))
    plan = report["plan"]
    return TextTable(
        "Messages under local differential privacy",
        ("messages", "ε of one", "clicks", "more than without",
         *(f"{name} from messages, AUC" for name in attributes)),
        rows,
        notes=(
            f"Mean ± half of the 95 % interval over {len(base)} seeds of training; teams of "
            f"{plan['train_steps']:,} requests, clicks a session on {plan['sessions']} sessions, "
            f"attributes from {plan['requests']} requests of a session.",
        ),
    )  # fmt: skip
