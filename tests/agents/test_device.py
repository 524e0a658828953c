"""One key says where a run is computed; a run is looked at on any device."""

from __future__ import annotations

import csv
import json

import pytest
import torch

from agents.commands.evaluate import command as evaluate
from agents.commands.train import continue_run, start_run
from agents.config import RunConfig, config_hash, moved, placed
from agents.recommender import Recommender
from agents.runs.environment import run_world
from agents.runs.trained import load_run
from marec_env.errors import ConfigError
from tests.worlds import small_environment


def devices(config):
    return config.environment.device, config.sampling.device


def test_one_key_decides_and_auto_is_cuda_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices(placed(RunConfig())) == ("cuda", "cuda")
    assert devices(placed(RunConfig(device="cuda:1"))) == ("cuda:1", "cuda:1")
    split = RunConfig.model_validate({"device": "cuda:1", "sampling": {"device": "cpu"}})
    assert devices(placed(split)) == ("cuda:1", "cpu")
    assert devices(placed(moved(split, "cuda:0"))) == ("cuda:0", "cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices(placed(RunConfig())) == ("cpu", "cpu")


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"device": "cuda:0"}, "device"),
        ({"environment": {"kind": "marec", "device": "cuda"}}, r"environment\.device"),
        ({"sampling": {"device": "cuda"}}, r"sampling\.device"),
    ],
)
def test_a_device_that_is_not_here_is_told_by_its_key(values, key, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=rf"^{key}: PyTorch finds no GPU"):
        placed(RunConfig.model_validate(values))


def test_runs_on_two_devices_are_of_one_configuration():
    assert config_hash(RunConfig(device="cpu")) == config_hash(RunConfig(device="cuda"))


SETTINGS = {
    "environment": small_environment(60, 200, max_requests=4),
    "sampling": {"num_sessions": 16, "rollout_length": 4},
    "training": {"env_steps": 128, "checkpoint_every": 64},
    "evaluation": {"sessions": 16, "baselines": ["static", "popularity"]},
}


@pytest.fixture
def trained(tmp_path):
    """Trains on a device; returns the run's folder."""

    def run(device):
        path = tmp_path / "run.yaml"
        path.write_text(json.dumps({**SETTINGS, "device": device}))
        folder = tmp_path / "run"
        assert start_run(str(path), [], folder) == 0
        return folder

    return run


def _clicks(folder, name="evaluation.csv"):
    with open(folder / name) as file:
        return {row["policy"]: row for row in csv.DictReader(file)}


def test_the_manifest_says_where_a_run_was_computed(trained):
    folder = trained("cpu")
    assert json.loads((folder / "manifest.json").read_text())["device"] == "cpu"


def test_a_run_of_a_machine_with_a_gpu_is_looked_at_without_one(trained, monkeypatch):
    folder = trained("cpu")
    for name in ("config.yaml", "manifest.json"):
        path = folder / name
        text = path.read_text().replace("device: cpu", "device: cuda")
        path.write_text(text.replace('"device": "cpu"', '"device": "cuda"'))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    told = []
    run = load_run(folder, told.append)
    assert run.environment.device == "cpu"
    assert "device: PyTorch finds no GPU for 'cuda'" in told[0]


@pytest.mark.gpu
def test_trained_on_cuda_evaluated_on_the_cpu_and_continued_there(trained):
    folder = trained("cuda")
    assert set(_clicks(folder)) >= {"trained team", "static", "popularity"}
    evaluate([folder], device="cpu", replace=True)
    assert continue_run(folder, ["training.env_steps=192", "device=cpu"]) == 0
    assert continue_run(folder, ["training.env_steps=256", "device=cuda"]) == 0
    resumes = json.loads((folder / "manifest.json").read_text())["resumes"]
    assert [one["device"] for one in resumes] == ["cpu", "cuda"]


@pytest.mark.gpu
def test_trained_on_the_cpu_used_on_cuda(trained):
    folder = trained("cpu")
    evaluate([folder], device="cuda", replace=True)
    items = run_world(load_run(folder).config).catalog.ids[:4]
    here = Recommender.load(folder, device="cpu").recommend(items, k=5)
    there = Recommender.load(folder, device="cuda").recommend(items, k=5)
    assert [one.item for one in here] == [one.item for one in there]


def test_studies_of_a_team_play_where_the_environment_is(tmp_path):
    """Explanations and logged play off the CPU; policies are read on the CPU."""
    from agents.learners.config import MAPPOConfig
    from agents.learners.policy import TrainedPolicy
    from agents.learners.team import TeamSpec
    from agents.studies.explain.request import find_request
    from agents.studies.off_policy_logs import record_logs
    from marec_env.environment_config import EnvironmentConfig
    from marec_env.simulator import Simulator
    from marec_env.world import build_world
    from tests.marec_env.users.other_device import other_device, world_there

    world = build_world(EnvironmentConfig.model_validate(small_environment()))
    team = TeamSpec.of(Simulator(world, 1))

    def policy():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            actors = {agent: team.build_actor(MAPPOConfig(), agent).eval() for agent in team.agents}
        return TrainedPolicy(team, actors)

    here = record_logs(world, policy(), policy(), 6, 3, 5)
    request = find_request(world, policy(), 1, 0, None)[0]
    with other_device():
        moved = world_there(world)
        there = record_logs(moved, policy(), policy(), 6, 3, 5)
        assert find_request(moved, policy(), 1, 0, None)[0] == request
    assert here.keys() == there.keys()
    for agent, log in here.items():
        assert (log.reward == there[agent].reward).all()
