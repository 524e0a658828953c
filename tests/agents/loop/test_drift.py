"""Drift is told where clicks are less probable than before, not where decisions have changed."""

import dataclasses

import pytest
import torch

from agents.loop.drift import ClickModel
from marec_env.errors import DataError
from tests.agents.loop.conftest import bandit_log, bandit_team


@pytest.fixture(scope="module")
def model():
    return ClickModel.of(bandit_log(bandit_team(), sessions=600))


def test_other_sessions_of_the_same_users_are_no_drift(model):
    told = [model.calibration(bandit_log(bandit_team(), seed=seed)) for seed in range(20, 60)]
    assert sum(one.drift for one in told) <= 6  # of 40 at 95 %: more with probability 0.014
    for one in told:
        assert one.gap.low < one.observed - one.predicted < one.gap.high
        assert (one.sessions, one.requests) == (300, 600)


def test_clicks_that_have_become_rarer_are_told(model):
    log = bandit_log(bandit_team(), seed=7)
    rarer = log.clicks * (torch.arange(300) % 5 > 0).view(-1, 1, 1)
    found = model.calibration(dataclasses.replace(log, clicks=rarer))
    assert found.drift and found.gap.high < 0
    assert found.gap.value == pytest.approx(-0.2 * found.predicted, rel=0.3)
    assert "drift: clicks are less probable than before" in str(found)
    assert found.as_json()["drift"] is True


def test_a_team_that_decides_better_is_no_drift(model):
    better = bandit_team()
    better.actors["mover_0"].head.bias.data += 0.5
    found = model.calibration(bandit_log(better, seed=7))
    plain = model.calibration(bandit_log(bandit_team(), seed=7))
    assert found.observed > plain.observed + 0.05
    assert abs(found.gap.value) < 0.4 * (found.observed - plain.observed)


def test_it_comes_back_from_json_and_refuses_another_teams_sessions(model):
    log = bandit_log(bandit_team(), seed=7)
    again = ClickModel.model_validate_json(model.model_dump_json())
    assert again.calibration(log) == model.calibration(log)
    wide = {a: torch.cat([seen, seen], dim=2) for a, seen in log.observations.items()}
    with pytest.raises(DataError, match="another team serves"):
        model.calibration(dataclasses.replace(log, observations=wide))
