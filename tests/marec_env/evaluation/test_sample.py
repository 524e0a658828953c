"""The request of an evaluation that a run's page follows through the funnel."""

import json

import pytest
import torch

from marec_env.evaluation.comparison import Evaluation, compare_outcomes
from marec_env.evaluation.rollout import play_request, rollout
from marec_env.simulator import Simulator
from tests.marec_env.evaluation.test_rollout import Defaults, MostRelevant


@pytest.fixture(scope="module")
def sample(world):
    return rollout(world, Defaults(world, 4), sessions=4, seed=3).sample


def test_it_is_the_request_that_the_cohort_was_answered(world, sample):
    simulator, team = Simulator(world, 2, autoreset=False), Defaults(world, 2)
    simulator.begin(torch.tensor([0, 1]), seed=3)
    clicked = []
    for number in range(5):
        step = play_request(simulator, team)
        clicked.append(bool((simulator.last.feedback.clicks[0] > 0).any()))
        if number == sample.request:
            request, feedback = simulator.last.request, simulator.last.feedback
            titles = [world.catalog.titles[item] for item in simulator.last.slate[0].tolist()]
            assert [item.title for item in sample.slate] == titles
            assert [item.clicked for item in sample.slate] == (feedback.clicks[0] > 0).tolist()
            assert sample.reward == pytest.approx(float(step.metrics["team_reward"][0]))
            name = simulator.agents[1]
            own = float(step.metrics[f"objective/{name}"][0])
            assert sample.objectives[name] == pytest.approx(own)
            assert sample.candidates[0] == request.candidates.shape[1]
            decided = [*team.actions[name][0].flatten().tolist()]
            assert list(sample.decisions[name].values()) == pytest.approx(decided)
        if bool((step.terminated | step.truncated)[0]):
            break
    with_clicks = [number for number, found in enumerate(clicked) if found]
    assert sample.request == (with_clicks[-1] if with_clicks else len(clicked) - 1)


def test_its_parts_add_up(sample):
    brought, wanted = zip(*sample.channels.values(), strict=True)
    assert (sum(brought), sum(wanted)) == sample.candidates
    assert sum(item.relevant for item in sample.slate) <= sample.candidates[1] <= sample.relevant
    assert sample.relevant < sample.unseen
    assert sample.blocks and any(sample.blocks.values())
    for item in sample.slate:
        assert sample.channels[item.channel][0] > 0
        assert sum(item.parts.values()) == pytest.approx(item.score, abs=1e-3)


def test_only_teams_have_one_and_files_keep_it(world, sample):
    teams = {"team": rollout(world, Defaults(world, 4), sessions=4, seed=3)}
    slates = {"slates": rollout(world, MostRelevant(), sessions=4, seed=3)}
    written = json.dumps(compare_outcomes(teams | slates, ()).as_dict(), allow_nan=False)
    found = Evaluation.model_validate(json.loads(written))
    assert found.policies["team"].sample == sample
    assert found.policies["slates"].sample is None
