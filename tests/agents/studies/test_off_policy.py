"""Estimates from logs of the real pipeline, judged by the simulator's truth."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents.learners.config import MAPPOConfig
from agents.learners.policy import TrainedPolicy
from agents.learners.team import TeamSpec
from agents.studies.off_policy import errors_by_size, judge
from agents.studies.off_policy_logs import SLATE, record_logs
from marec_env.environment_config import EnvironmentConfig
from marec_env.evaluation.off_policy import effective_sample_size
from marec_env.evaluation.request_log import TARGET_DRAWS, estimates, fitted
from marec_env.simulator import Simulator
from marec_env.world import build_world
from tests.worlds import small_environment

SESSIONS, REQUESTS = 2048, 2
SMALL, LARGE, REPETITIONS = 16, 256, 25  # sixteen times the sessions: a fourth of the error
COMPONENTS = ("profile_0", "recall_0", "feature_0", "ranking_0")


@pytest.fixture(scope="module")
def world():
    config = EnvironmentConfig.model_validate(
        # clicks that can be predicted
        small_environment(users={"relevance": {"scale_factor": 2.0}})
    )
    return build_world(config)


def _team(world, seed, box, discrete):
    """A team that explores and whose decisions depend on what it sees, by so much."""
    spec = TeamSpec.of(Simulator(world, 1))
    config = MAPPOConfig.model_validate({"actor": {"hidden": [16], "normalise_inputs": False}})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        actors = {agent: spec.build_actor(config, agent).eval() for agent in spec.agents}
        for agent, actor in actors.items():
            gain = box if isinstance(spec.action_spaces[agent], spaces.Box) else discrete
            torch.nn.init.normal_(actor.head.weight, std=gain)
    return TrainedPolicy(spec, actors)


@pytest.fixture(scope="module")
def logs(world):
    logging, target = _team(world, 0, 0.05, 0.05), _team(world, 1, 0.12, 0.6)
    return record_logs(world, logging, target, SESSIONS, REQUESTS, seed=7)


@pytest.fixture(scope="module")
def errors(logs):
    return {name: errors_by_size(log, (SMALL, LARGE), REPETITIONS) for name, log in logs.items()}


def test_there_is_a_log_for_each_component_and_for_slates(logs):
    assert set(logs) == {*COMPONENTS, SLATE}
    for name, log in logs.items():
        positions = 5 if name == SLATE else 1
        requests = log.session.size
        assert log.reward.shape == (requests, positions)
        assert log.target_features.shape[:3] == (requests, TARGET_DRAWS, positions)
        assert 0.1 < effective_sample_size(log.ratio) / requests < 0.98  # neither alike nor apart
        assert log.ratio.mean() == pytest.approx(1.0, abs=0.08)


def test_estimates_hold_the_truth(logs):
    for name, log in logs.items():
        error = log.truth.std() / math.sqrt(log.truth.size)
        for estimator, found in estimates(log, fitted(log)).items():
            if estimator == "DM":
                continue  # as biased as its model
            gap = found.value - log.truth.mean()
            assert abs(gap) < 4 * math.hypot(error, found.standard_error), (name, estimator)


@pytest.mark.parametrize("name", [*COMPONENTS, SLATE])
def test_error_falls_with_the_logs_size(errors, name):
    small, large = errors[name]
    for estimator in small.good:
        if estimator != "DM":
            assert large.good[estimator] < 0.5 * small.good[estimator], estimator


def test_doubly_robust_beats_plain_where_the_model_is_good(errors):
    ratios = {name: large.good["DR"] / large.good["IPS"] for name, (_, large) in errors.items()}
    assert max(ratios.values()) < 1.05
    assert np.exp(np.log(list(ratios.values())).mean()) < 0.92
    slate = errors[SLATE][1].good
    assert slate["cascade DR"] < 1.02 * slate["cascade IPS"] < 1.02 * slate["IPS"]


@pytest.mark.parametrize("name", [*COMPONENTS, SLATE])
def test_doubly_robust_does_no_harm_where_the_model_is_poor(errors, name):
    _, large = errors[name]
    assert large.poor["DR"] <= 1.02 * large.poor["IPS"]
    assert large.poor["DR"] < 0.2 * large.poor["DM"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sequential": True, "messages": {"kind": "learned", "topology": "full"}},
        {"components": ("feature", "ranking")},
    ],
)
def test_a_target_equal_to_the_log_changes_nothing(world, changes):
    document = world.config.model_dump()
    document["pipeline"] |= changes
    world = build_world(EnvironmentConfig.model_validate(document))
    team = _team(world, 0, 0.05, 0.05)
    logs = record_logs(world, team, team, 64, 2, seed=1)
    assert len(logs) == len(team.team.agents) + 1
    for name in team.team.agents:
        assert np.allclose(logs[name].ratio, 1.0, atol=1e-5)


def test_a_log_is_judged(logs):
    log = logs["recall_0"].select(logs["recall_0"].session < 256)
    document, table = judge("recall_0", log)
    assert "recall_0: the target gets" in table.title
    assert [e["sessions"] for e in document["errors"]] == [4, 16, 64]
    assert set(document["estimates"]) == {"IPS", "SNIPS", "DM", "DR"}
    assert document["mean_ratio"] == pytest.approx(1.0, abs=0.2)
    cells = {row[0]: row[1] for row in table.rows}
    assert [name for name, cell in cells.items() if "±" not in cell] == ["DM"]
    assert document["estimates"]["DM"]["low"] is document["estimates"]["DM"]["high"] is None
    assert document["estimates"]["DR"]["low"] < document["estimates"]["DR"]["high"]
