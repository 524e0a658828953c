"""Simulated sessions to watch: what the simulator played, told as the service tells its own."""

import dataclasses

import numpy as np
import pytest
import torch

from agents.learners.policy import TrainedPolicy
from agents.service.bundle import Bundle, save_bundle
from agents.service.replays import played
from agents.service.teams import Teams, replays_of
from agents.service.worker import RefusedError
from marec_env.errors import RunError
from marec_env.io import write_json
from marec_env.simulator import Simulator
from tests.agents.service.conftest import small_team

SEED = 7


@pytest.mark.parametrize("rich", [False, True])
def test_a_replay_is_the_simulated_session(rich):
    world, policy = small_team(rich=rich)
    found = played(world, Bundle.of(world, policy), 3, SEED)
    simulator = Simulator(world, 6, autoreset=False)
    simulator.begin(torch.arange(6), SEED)
    fresh, ids = TrainedPolicy(policy.team, policy.actors), np.array(world.catalog.ids)
    over = torch.zeros(6, dtype=torch.bool)
    for number in range(max(len(one["requests"]) for one in found)):
        for turn in simulator.turns:
            simulator.act(fresh.act({agent: simulator.observe(agent) for agent in turn}))
        step = simulator.advance()
        outcome = simulator.last
        for row, one in enumerate(found):
            if over[row]:
                assert len(one["requests"]) == number
                continue
            told, slate = one["requests"][number], outcome.slate[row].numpy()
            assert [item["item"] for item in told["items"]] == ids[slate].tolist()
            clicks = outcome.feedback.clicks[row].numpy() > 0
            assert told["clicks"] == ids[slate[clicks]].tolist()
            assert told["team"] == float(step.metrics["team_reward"][row])
            assert list(told["objectives"]) == list(simulator.agents)
            for agent, value in told["objectives"].items():
                assert value == float(step.metrics[f"objective/{agent}"][row])
            share = float(clicks.mean())
            assert told["objectives"]["ranking_0"] == pytest.approx(share)
            assert [len(told["details"]["reasons"][name]) for name in ("en", "zh")] == [5, 5]
            assert told["memory"]["last_rate"] == pytest.approx(share)
        over |= step.terminated | step.truncated
    assert all(over[:3])


def test_another_bundle_than_the_worlds_is_refused():
    world, policy = small_team()
    bundle = Bundle.of(world, policy)
    known = dataclasses.replace(bundle.knowledge, popularity=bundle.knowledge.popularity.flip(0))
    turned = dataclasses.replace(bundle, knowledge=known)
    with pytest.raises(RunError, match="other slates than its team in the simulator"):
        played(world, turned, 2, SEED)


def test_only_replays_of_the_served_version_are_told(tmp_path):
    world, policy = small_team()
    save_bundle(Bundle.of(world, policy), tmp_path / "films")
    teams = Teams([tmp_path / "films"], tmp_path, explore=False)
    assert [one["replays"] for one in teams.told()] == [False, False]
    for name in ("films", "static", "nobody"):
        with pytest.raises(RefusedError, match=f"no replays of '{name}'"):
            teams.replays(name)
    document = {"version": teams.first.version, "sessions": []}
    write_json(replays_of(tmp_path / "films"), document)
    assert [one["replays"] for one in teams.told()] == [True, False]
    assert teams.replays("films") == document
    write_json(replays_of(tmp_path / "films"), {**document, "version": "0"})
    with pytest.raises(RefusedError, match="another version"):
        teams.replays("films")
