"""The worked examples run as they stand; own_{component,channel,reward} are in tests/marec_env."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import torch
from pettingzoo.test import parallel_api_test

import marec_env
from agents.config import RunConfig
from agents.runs.environment import build_trainer
from marec_env.config.loader import load
from marec_env.evaluation.reasons import reasons
from marec_env.pipeline.reasons import slate_facts
from marec_env.registry import load_object
from marec_env.simulator import Simulator
from marec_env.world import build_world
from tests.worlds import small_environment

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("[!_]*.py"))
SMALL = small_environment(60, 200)


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


def test_there_are_fourteen_and_each_is_short_and_listed():
    names = {path.stem for path in EXAMPLES}
    assert names == {
        "first_run", "own_reward", "own_component", "own_channel", "own_user_model", "own_data",
        "pictures", "compare_algorithms", "own_algorithm",
        "gymnasium_component", "stable_baselines", "torchrl_team", "benchmarl_team", "ray_serve",
    }  # fmt: skip
    readme = (ROOT / "README.md").read_text()
    for path in EXAMPLES:
        assert len(path.read_text().splitlines()) <= 90, path
        assert f"examples/{path.name}" in readme


@pytest.mark.ray
def test_first_run(capsys):
    config = RunConfig.model_validate(
        {
            "environment": {"kind": "marec", **SMALL},
            "algorithm": {"kind": "mappo", "actor": {"hidden": [16]}},
            "sampling": {"num_sessions": 32, "rollout_length": 4},
            "training": {"env_steps": 256},
        }
    )
    found = load_object("examples.first_run:first_run")(config, sessions=8)
    assert set(found) == {"trained team", "random", "popularity", "static"}
    printed = capsys.readouterr().out
    assert "256 requests: F" in printed
    assert "trained team:" in printed


def test_own_user_model():
    users = {"model": "examples.own_user_model:RestingUsers", "new_user_share": 0.3}
    parallel_api_test(marec_env.parallel_env({**SMALL, "users": users}), num_cycles=12)
    simulator = marec_env.make_vec({**SMALL, "users": users}, 256)
    fresh = simulator.users.click_probability().mean()
    clicked = simulator.step(simulator.default_actions()).metrics["clicks"] > 0
    stayed = clicked & ~simulator.last.feedback.left
    tired = simulator.users.click_probability()[stayed].mean()
    assert tired == pytest.approx(0.5 * float(fresh), rel=0.15)
    state = simulator.state_dict()
    first = simulator.step(simulator.default_actions()).metrics["clicks"]
    simulator.load_state_dict(state)
    assert torch.equal(simulator.step(simulator.default_actions()).metrics["clicks"], first)


def test_pictures(tmp_path):
    colours = load_object("examples.pictures:write_shop")(tmp_path)
    cache = f"environment.embeddings.cache_folder={tmp_path}/cache"
    budget = ["environment.embeddings.encoder=hashing", "sampling.num_sessions=16", cache]
    config = load(tmp_path / "run.yaml", RunConfig, budget)
    with closing(build_trainer(config)) as trainer:
        trainer.iterate()
    simulator = Simulator(build_world(config.environment), 16)
    simulator.reset(seed=0)
    recent = simulator.pipeline.memory.recent.clone()
    simulator.step(simulator.default_actions())
    request, colours = simulator.last.request, torch.tensor([*map(hash, colours)])
    place = config.environment.pipeline.recall.channels.index("pictures")
    same = [
        bool((colours[recent[row][recent[row] >= 0]] == colours[item]).any())
        for row in range(16)
        for item in request.candidates[row][request.candidate_channel[row] == place]
    ]
    assert len(same) > 50 and sum(same) > 0.8 * len(same)
    facts = [fact for row in slate_facts(request, 16) for fact in row if fact.channel == "pictures"]
    titles = simulator.world.catalog.titles
    told = reasons(facts, titles)
    assert told and set(told) == {
        f"“{titles[fact.item]}”: its picture is like those of what you liked." for fact in facts
    }
    assert all("图片" in reason for reason in reasons(facts, titles, "zh"))


def test_own_data(tmp_path, capsys):
    load_object("examples.own_data:write_shop")(tmp_path)
    assert (tmp_path / "interactions.csv").read_text().startswith("user_id,item_id,rating")
    found = load_object("examples.own_data:compare")(tmp_path, encoder="hashing")
    assert set(found) == {"random_slates", "popularity", "item_knn"}
    assert found["item_knn"] > found["random_slates"]
    assert "item_knn:" in capsys.readouterr().out


@pytest.mark.ray
def test_comparing_algorithms(tmp_path):
    place = tmp_path / "small.yaml"
    document = {
        "environment": SMALL,
        "sampling": {"num_sessions": 32, "rollout_length": 4},
        "training": {"env_steps": 128},
        "evaluation": {"sessions": 8, "baselines": ["random"]},
        "tracking": {"wandb": "offline"},
    }
    place.write_text(json.dumps(document))  # JSON is YAML
    algorithms = load_object("examples.compare_algorithms:ALGORITHMS")
    assert len(algorithms) == 5
    compared = load_object("examples.compare_algorithms:compare_algorithms")
    output = compared(tmp_path / "runs", algorithms, seeds=(0,), config=str(place))
    page = (output / "comparison.html").read_text()
    groups = set()
    for name in algorithms:
        assert name in page
        records = _wandb_records(tmp_path / "runs" / f"{name}-0")
        [run] = [record["run"] for record in records if record["type"] == "run"]
        groups.add(run["run_group"])
        history = [record["history"]["item"] for record in records if "history" in record]
        curve = [row["env_steps"] for row in history if "team_reward" in row]
        metrics = (tmp_path / "runs" / f"{name}-0" / "metrics.jsonl").read_text().splitlines()
        assert curve == [json.loads(line)["env_steps"] for line in metrics]
        assert [row["comparison.nrows"] for row in history if "comparison.nrows" in row] == [2]
        artifacts = {r["artifact"]["type"] for r in records if "artifact" in r}
        assert artifacts >= {"config", "report", "checkpoint"}
    assert len(groups) == 5
    assert {group.split("-")[0] for group in groups} == {"mappo", "ippo", "happo"}


def _wandb_records(run):
    [log] = (run / "wandb").glob("offline-run-*/*.wandb")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(log)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two iterations, made as a person would."""
    place = tmp_path_factory.mktemp("run")
    document = {
        "environment": SMALL,
        "algorithm": {"kind": "mappo", "epochs": 1},
        "sampling": {"num_sessions": 8, "rollout_length": 4},
        "training": {"env_steps": 64},
        "evaluation": {"sessions": 6, "baselines": ["random", "static"]},
        "output": str(place / "recorded"),
    }
    (place / "small.yaml").write_text(json.dumps(document))
    command = [sys.executable, "train.py", place / "small.yaml", "--run-dir", place / "run"]
    subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return place / "run"


@pytest.mark.parametrize(
    ("name", "algorithm", "weights", "short"),
    [
        ("own_algorithm", "cross-entropy", None, {"budget": 100, "sessions": 8}),
        ("gymnasium_component", "reinforce", "WEIGHTS", {"iterations": 1, "sessions": 8}),
        ("stable_baselines", "sb3-ppo", "MODEL", {"requests": 32, "sessions": 8, "length": 4}),
        ("torchrl_team", "torchrl-ppo", "WEIGHTS", {"iterations": 1, "sessions": 8, "length": 4}),
        ("benchmarl_team", "benchmarl-mappo", None, {"requests": 32, "sessions": 8, "length": 4}),
    ],
)
def test_what_is_learned_elsewhere_is_compared_with_ours(
    run, tmp_path, monkeypatch, capsys, name, algorithm, weights, short
):
    """It trains one iteration, and stands in the table of a comparison on the run's users."""
    if name == "benchmarl_team":
        pytest.importorskip("benchmarl", reason="see test_adapters", exc_type=ImportError)
        monkeypatch.setattr("examples.benchmarl_team.SCRATCH", tmp_path)
    if weights:
        monkeypatch.setattr(f"examples.{name}.{weights}", tmp_path / "model.zip")
    folder = load_object(f"examples.{name}:main")(str(run), **short)
    assert weights is None or (tmp_path / "model.zip").exists()
    found = json.loads((folder / "comparison" / "comparison.json").read_text())
    assert list(found["experiments"]) == ["mappo", algorithm]
    assert list(found["policies"]) == ["random", "static"]
    assert algorithm in capsys.readouterr().out
    assert algorithm in (folder / "comparison" / "comparison.html").read_text()
    if weights:
        other = load_object("agents.commands.evaluate:command")
        metric = "examples.own_reward:tail_clicks"
        other([run], baselines=f"examples.{name}:trained,random", metrics=metric)
        assert f"examples.{name}:trained" in capsys.readouterr().out
        [place] = [f for f in run.glob("evaluation-*.json") if name in f.name]
        policies = json.loads(place.read_text())["policies"]
        assert all(f"term/{metric}" in found["outcomes"] for found in policies.values())
