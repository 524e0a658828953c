import json

import pytest

from agents.comparison.runs import TRAINED, Run, experiment_hash
from agents.config import RunConfig
from agents.runs.manifest import CodeVersion
from marec_env.config.yaml_source import dump
from marec_env.evaluation.comparison import Evaluation

ORACLE_CLICKS = 100.0


def numbers(mean, half=1.0):
    return {"mean": mean, "low": mean - half, "high": mean + half, "sessions": 64}


def policy(clicks, privileged=False, team=True):
    """A policy as evaluation.json has it, all numbers following from its clicks."""
    stages = {"relevant": 50.0, "candidates": 10.0, "scored": 4.0, "slate": 3.0, "clicked": 1.0}
    if not team:
        del stages["candidates"], stages["scored"]
    outcomes = {
        "return": numbers(clicks / 10),
        "clicks": numbers(clicks),
        "length": numbers(20.0 + clicks / 10),
        "satisfaction": numbers(0.2 + clicks / 1000),
        "ndcg": numbers(0.1),
        "precision": numbers(0.05),
        "diversity": numbers(0.9),
    }
    if team:
        outcomes["objective/recall_0"] = numbers(0.3)
    groups = {"F": numbers(clicks + 1), "M": numbers(clicks - 1)}
    return {
        "privileged": privileged,
        "outcomes": outcomes,
        "regret": {} if privileged else {"clicks": numbers(ORACLE_CLICKS - clicks)},
        "cohort": {"coverage": 0.5, "gini": 0.4},
        "groups": {"clicks": groups},
        "gaps": {"clicks": {"F - M": numbers(2.0)}},
        "exposure": {
            "provider": {
                "groups": 2,
                "gini": 0.2,
                "items": [0.5, 0.5],
                "impressions": [0.3, 0.7],
                "clicks": [0.2, 0.8],
            },
            "cold": {
                "groups": 2,
                "gini": 0.5,
                "items": [0.9, 0.1],
                "impressions": [0.98, 0.02],
                "clicks": [1 - clicks / 1000, clicks / 1000],
                "rates": [0.2, clicks / 2000 if team else None],
            },
            "popularity": {"groups": 1, "gini": 0.0, "items": [1.0], "impressions": [1.0]},
        },
        "funnel": stages,
    }


def evaluation(clicks, seed=7, sessions=64):
    return {
        "seed": seed,
        "sessions": sessions,
        "policies": {
            TRAINED: policy(clicks),
            "random": policy(10.0),
            "popularity": policy(5.0, team=False),
            "oracle": policy(ORACLE_CLICKS, privileged=True, team=False),
        },
    }


def config_of(**changes):
    """A configuration from dotted keys, for example ``algorithm__kind="ippo"``."""
    document = {"environment": {"kind": "marec"}, "algorithm": {"kind": "mappo"}}
    for key, value in changes.items():
        *sections, last = key.split("__")
        place = document
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return RunConfig.model_validate(document)


def metrics_of(clicks, steps=400_000):
    return [
        {
            "env_steps": float(steps * k // 4),
            "episode/clicks": clicks * k / 4,
            "episode/return": clicks * k / 40,
        }
        for k in (1, 2, 3, 4)
    ]


@pytest.fixture(name="evaluation")
def evaluation_fixture():
    """Return the function that makes an evaluation.json, from clicks a session."""
    return evaluation


@pytest.fixture
def make_run(tmp_path):
    """Return a sound run without files."""

    def make(
        clicks=30.0,
        seed=0,
        commit="a" * 40,
        dirty=False,
        codes=(),
        defects=(),
        found=None,
        **changes,
    ):
        config = config_of(seed=seed, **changes)
        return Run(
            path=tmp_path / f"{config.name}-{config.algorithm.kind}-{seed}",
            seed=seed,
            config=config.model_dump(mode="json"),
            experiment=experiment_hash(config),
            codes=codes or (CodeVersion(commit, dirty),),
            metrics=metrics_of(clicks),
            evaluation=Evaluation.model_validate(found or evaluation(clicks)),
            defects=defects,
        )

    return make


@pytest.fixture
def write_run(tmp_path):
    """Write a finished run's folder and return it."""

    def write(clicks=30.0, seed=0, **changes):
        config = config_of(seed=seed, **changes)
        folder = tmp_path / f"{config.name}-{config.algorithm.kind}-seed{seed}"
        folder.mkdir()
        (folder / "config.yaml").write_text(dump(config))
        manifest = {"git": {"commit": "b" * 40, "dirty": False}}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        lines = [json.dumps(row) + "\n" for row in metrics_of(clicks, config.training.env_steps)]
        (folder / "metrics.jsonl").write_text("".join(lines))
        (folder / "evaluation.json").write_text(json.dumps(evaluation(clicks)))
        return folder

    return write
