"""What privacy costs in recall and clicks and what it buys against attackers, over ε.

At each level and seed the recommender's knowledge comes from a release with noise of its own; the
play is judged on the log's own users. Trained teams learn on users drawn from the release, so what
they are is private as a whole; where nothing is released, on the log's users.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from agents.baselines import build_baseline
from agents.baselines.linear import EASE
from agents.baselines.scoring import training_log
from agents.config import RunConfig
from agents.runs.environment import build_trainer
from agents.studies.privacy.membership import ALL, knowledge_of, membership, rows_of
from agents.studies.records import Cells, spread
from marec_env import random
from marec_env.data.interactions import InteractionLog
from marec_env.data.log import load_log
from marec_env.environment_config import EnvironmentConfig
from marec_env.evaluation.policies import Policy
from marec_env.evaluation.rollout import rollout
from marec_env.evaluation.statistics import mean_estimate
from marec_env.privacy.config import PrivacyConfig
from marec_env.reporting.charts import Line, lines_figure
from marec_env.reporting.drawing import Figure
from marec_env.reporting.table import TextTable
from marec_env.simulator import Simulator
from marec_env.world import World, build_world

RAW, FREE = "log itself", "∞"
LEVELS: dict[str, float | None] = {
    RAW: None, FREE: None, "32": 32.0, "8": 8.0, "4": 4.0, "2": 2.0, "1": 1.0,
}  # fmt: skip
"""Levels by name: no release; a release without noise; and values of ε."""
HELD_OUT = 0.2
"""Share of each user's likes on which recall is measured."""
TOP = 20
_RECONSTRUCTION = "reconstruction from vectors, likelihood ratio"
_RELEASED = "released co-occurrence, likelihood ratio"
QUANTITIES = {
    "recall": f"recall@{TOP}, vectors",
    "recall_ease": f"recall@{TOP}, EASE",
    "static": "clicks, hand-set",
    "trained": "clicks, trained",
    "auc_vectors": "AUC, vectors",
    "auc_released": "AUC, co-occurrence",
    "auc": "AUC, all together",
    "tpr": "true positives at 1 %, all together",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """Budgets of the studies that are measured cell by cell; each saves those that it goes by."""

    seeds: int = 5
    models: int = 16
    """That are attacked; even."""
    sessions: int = 512
    """That clicks are measured on; the same for all cells."""
    cohort: int = 1_000_003
    """Their seed."""
    train_steps: int = 40_000
    """Requests that each team is trained on; 0: none is."""
    requests: int = 8
    """That attributes are inferred from."""
    seed: int = 0
    """Of the halves and the attacks on teams."""
    start: str | None = None
    """A run with whose newest networks federated teams begin."""

    def only(self, *names: str) -> dict[str, Any]:
        """Return some of them by name."""
        return {name: getattr(self, name) for name in names}


def curve_cells(run: RunConfig, plan: Plan) -> Cells:
    """Return the study of a run's log, environment and learner: of each part, level and seed its
    numbers.

    Raises:
        ConfigError: the run's environment is not marec's.
    """
    budgets = plan.only("seeds", "models", "sessions", "cohort", "train_steps")
    log = load_log(run.recommender.data)
    cells = {
        f"{part}, {level}, seed {seed}": partial(
            measure, run, log, _privacy(run.recommender, level, seed), seed, plan
        )
        for part, measure in _PARTS.items()
        if part != "trained" or plan.train_steps
        for seed in range(plan.seeds)
        for level in LEVELS
    }
    return Cells({"config": run.model_dump(mode="json"), "plan": budgets}, cells)


def _privacy(environment: EnvironmentConfig, level: str, seed: int) -> PrivacyConfig | None:
    if level == RAW:
        return None
    base = environment.data.privacy or PrivacyConfig()
    return base.model_copy(update={"epsilon": LEVELS[level], "seed": seed, "users": "log"})


def _world(run: RunConfig, privacy: PrivacyConfig | None) -> World:
    data = run.recommender.data.model_copy(update={"privacy": privacy})
    return build_world(run.recommender.model_copy(update={"data": data}))


def _factors(
    run: RunConfig, log: InteractionLog, privacy: PrivacyConfig | None, seed: int, plan: Plan
) -> dict[str, float]:
    """Return recall on held-out likes, of the vectors and of EASE, and of a constant order."""
    train, rows, wanted = held_out(log, seed)
    known = knowledge_of(train, run.recommender.knowledge, privacy)
    likes = (rows == 1.0).to(torch.float32)
    profile = torch.nn.functional.normalize(likes @ known.vectors, dim=1)
    visible = train if known.release is None else known.release.draw_log(train)
    ease = EASE(training_log(visible))
    return {
        "recall": recall(profile @ known.vectors.T, rows, wanted),
        "recall_ease": recall(likes @ ease.weights, rows, wanted),
        "recall_popular": recall(known.popularity.expand_as(rows), rows, wanted),
    }


def held_out(log: InteractionLog, seed: int) -> tuple[InteractionLog, Tensor, Tensor]:
    """Return a log without a share of each user's likes, its rows ``[U, N]`` and where likes are
    held out, bool ``[U, N]``.
    """
    keys = random.session_keys(seed, torch.arange(log.num_interactions))
    drawn = random.uniform(keys, 0, "privacy/held_out", 1).squeeze(1)
    held = (drawn < HELD_OUT) & log.liked
    train = replace(log.select(~held), fingerprint=f"{log.fingerprint}/held out {seed}")
    rows = rows_of(train)
    wanted = torch.zeros(rows.shape, dtype=torch.bool)
    wanted[log.user[held], log.item[held]] = True
    return train, rows, wanted & (rows == 0)


def recall(score: Tensor, rows: Tensor, wanted: Tensor) -> float:
    """Return the share of held-out likes among the best unseen, of at most as many as fit."""
    top = score.masked_fill(rows > 0, -torch.inf).topk(TOP, dim=1).indices
    there = wanted.sum(1)
    found = wanted.gather(1, top).sum(1)[there > 0] / there[there > 0].clamp(max=TOP)
    return float(found.mean())


def _attacks(
    run: RunConfig, log: InteractionLog, privacy: PrivacyConfig | None, seed: int, plan: Plan
) -> dict[str, float]:
    knowledge = run.recommender.knowledge
    found = membership(log, lambda part: knowledge_of(part, knowledge, privacy), plan.models, seed)
    results = {
        "auc_vectors": found[_RECONSTRUCTION]["auc"].value,
        "auc": found[ALL]["auc"].value,
        "tpr": found[ALL]["tpr"].value,
    }
    if _RELEASED in found:
        results["auc_released"] = found[_RELEASED]["auc"].value
    return results


def _static(
    run: RunConfig, log: InteractionLog, privacy: PrivacyConfig | None, seed: int, plan: Plan
) -> dict[str, float]:
    return {"static": hand_set_clicks(_world(run, privacy), plan.sessions, plan.cohort)}


def _trained(
    run: RunConfig, log: InteractionLog, privacy: PrivacyConfig | None, seed: int, plan: Plan
) -> dict[str, float]:
    """Return clicks from the log's users of a team trained on those drawn from the release."""
    taught = privacy and privacy.model_copy(update={"users": "release"})
    world = _world(run, taught)
    own = run.model_copy(update={"environment": world.config, "seed": seed})
    with closing(build_trainer(own)) as trainer:
        while trainer.env_steps < plan.train_steps:
            trainer.iterate()
        policy = trainer.policy()
        return {
            "trained": clicks_of(_world(run, privacy), policy, plan.sessions, plan.cohort),
            "trained_at_home": clicks_of(world, policy, plan.sessions, plan.cohort),
            "static_at_home": hand_set_clicks(world, plan.sessions, plan.cohort),
        }


def hand_set_clicks(world: World, sessions: int, cohort: int) -> float:
    """Return clicks a session of hand-set decisions, on a cohort's first ``sessions``."""
    return clicks_of(world, build_baseline("static", Simulator(world, 1)), sessions, cohort)


def clicks_of(world: World, policy: Policy, sessions: int, cohort: int) -> float:
    """Return clicks a session of a policy, on a cohort's first ``sessions``."""
    return float(rollout(world, policy, sessions, cohort).per_session["clicks"].mean())


_PARTS = {"factors": _factors, "attacks": _attacks, "static": _static, "trained": _trained}


def _values(report: Mapping[str, Any], level: str) -> dict[str, list[float]]:
    """Return each quantity's values over the seeds at a level."""
    found: dict[str, list[float]] = {}
    for name, cell in report["cells"].items():
        if name.split(", ")[1] == level:
            for quantity, value in cell.items():
                found.setdefault(quantity, []).append(value)
    return found


def _cell(values: list[float], digits: int, seeds: int) -> str:
    fewer = "" if len(values) == seeds else f" ({len(values)})"
    return spread(mean_estimate(values), digits) + fewer


def curve_table(report: Mapping[str, Any]) -> TextTable:
    """Return the levels' means over seeds."""
    rows = []
    for level in LEVELS:
        values = _values(report, level)
        cells = [
            _cell(values[name], 1 if "clicks" in label else 3, report["plan"]["seeds"])
            if name in values
            else "–"
            for name, label in QUANTITIES.items()
        ]
        rows.append((level, *cells))
    plan = report["plan"]
    return TextTable(
        "What privacy costs and buys, over ε",
        ("ε", *QUANTITIES.values()),
        rows,
        notes=(
            f"Mean ± half of the 95 % interval over {plan['seeds']} seeds of noise, held-out "
            f"likes, halves and training; clicks a session on {plan['sessions']} sessions of the "
            f"log's own users; teams trained on {plan['train_steps']:,} requests. {RAW}: no "
            f"release; {FREE}: bounded contributions without noise. In parentheses: seeds, where "
            "fewer are done.",
        ),
    )


def curve_figures(report: Mapping[str, Any]) -> list[Figure]:
    """Draw recall, clicks and attacks over the levels."""
    parts = (
        (("recall", "recall_ease", "recall_popular"), f"recall@{TOP} of held-out likes"),
        (("static", "trained"), "clicks a session, log's own users"),
        (("auc_vectors", "auc_released", "auc"), "membership inference, AUC"),
    )
    labels = QUANTITIES | {"recall_popular": f"recall@{TOP}, popularity"}
    figures = []
    for names, title in parts:
        lines = {}
        for name in names:
            found = {
                place: mean_estimate(values[name])
                for place, level in enumerate(LEVELS)
                if name in (values := _values(report, level))
            }
            if found:
                lines[labels[name]] = Line(
                    list(found),
                    [one.value for one in found.values()],
                    [one.low for one in found.values()],
                    [one.high for one in found.values()],
                )
        if lines:
            reference = 0.5 if "auc" in names else None
            figures.append(
                lines_figure(
                    lines,
                    ("privacy loss ε of a user", title),
                    f"Over ε: {title}; mean and 95 % interval over seeds.",
                    ticks=list(LEVELS),
                    band=False,
                    reference=reference,
                )
            )
    return figures
