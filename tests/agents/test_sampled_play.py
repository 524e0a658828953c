"""``evaluation.play: sampled``: trained teams that draw their actions where they are evaluated."""

from dataclasses import replace

import pytest
import torch

from agents.commands.cohort import EvaluationCohort
from agents.commands.evaluate import _suffix
from agents.comparison.grouping import Group, _difference_notes
from agents.comparison.runs import Run
from agents.config import RunConfig
from agents.learners.config import MAPPOConfig, NetworkConfig
from agents.learners.policy import TrainedPolicy
from agents.learners.team import TeamSpec
from agents.studies.headroom import others_field
from marec_env.config.loader import load_mapping
from marec_env.errors import ConfigError
from marec_env.evaluation.comparison import Evaluation
from marec_env.evaluation.rollout import rollout
from marec_env.io import write_json
from marec_env.simulator import Simulator
from marec_env.world import build_world
from tests.worlds import small_environment


def config(**sections):
    return load_mapping({"environment": small_environment(), **sections}, RunConfig, "test")


@pytest.fixture(scope="module")
def world():
    return build_world(config().environment)


@pytest.fixture(scope="module")
def team(world):
    """Untrained, with memory, of numbers and of choices."""
    torch.manual_seed(0)
    spec = TeamSpec.of(Simulator(world, 1))
    algorithm = MAPPOConfig(actor=NetworkConfig(hidden=(8,), recurrent_units=4))
    actors = {name: spec.build_actor(algorithm, name) for name in spec.actors}
    return TrainedPolicy(spec, actors)


def outcomes(found):
    return {name: found.per_session[name].tolist() for name in ("clicks", "return")}


def test_draws_are_a_sessions_own_whatever_the_batch(world, team):
    drawn = rollout(world, team.playing(sampled=True), 10, seed=7, batch=10).per_session
    apart = rollout(world, team.playing(sampled=True), 10, seed=7, batch=3).per_session
    assert torch.equal(drawn["clicks"], apart["clicks"])
    torch.testing.assert_close(drawn["return"], apart["return"])
    first, second = (
        rollout(world, team.playing(sampled=True), 10, seed=7).impressions for _ in range(2)
    )
    assert torch.equal(first, second)
    greedy = rollout(world, team, 10, seed=7).impressions
    assert not torch.equal(first, greedy)
    assert torch.equal(greedy, rollout(world, team.playing(sampled=False), 10, seed=7).impressions)


def test_sessions_with_equal_observations_draw_apart(team):
    spaces = team.team.observation_spaces
    seen = {agent: torch.zeros(6, space.shape[0]) for agent, space in spaces.items()}
    policy = team.playing(sampled=True)
    policy.begin(torch.tensor([5, 6, 7, 5, 8, 9]))
    recall = policy.act(seen)["recall_0"]
    assert torch.equal(recall[0], recall[3])
    assert len({tuple(row) for row in recall.tolist()}) == 5
    assert len({tuple(row) for row in team.act(seen)["recall_0"].tolist()}) == 1
    assert not torch.equal(policy.act(seen)["recall_0"], recall)  # the next request's


def test_an_evaluation_plays_as_it_is_told(world, team):
    for play in ("greedy", "sampled"):
        settings = config(evaluation={"sessions": 6, "baselines": [], "play": play}).evaluation
        found = EvaluationCohort(world, settings).play(team)
        expected = rollout(world, team.playing(play == "sampled"), 6, settings.seed)
        assert outcomes(found) == outcomes(expected)


def test_under_a_control_a_team_draws_as_without_it(world, team):
    found = [
        outcomes(others_field(world, team.playing(sampled=True), "channel_hits", 6, 3))
        for _ in range(2)
    ]
    assert found[0] == found[1]
    assert found[0] != outcomes(others_field(world, team, "channel_hits", 6, 3))


def test_only_distributions_can_be_drawn_from():
    with pytest.raises(ConfigError, match=r"evaluation.play 'sampled'.*'vdn'.*choose 'greedy'"):
        config(
            algorithm={"kind": "vdn"}, evaluation={"play": "sampled"},
        )  # fmt: skip
    assert config(algorithm={"kind": "ippo"}, evaluation={"play": "sampled"})


def test_another_play_is_told_in_files_and_notes(tmp_path):
    before = {"policies": {"trained": {}}, "sessions": 4, "seed": 1}  # of a version without `play`
    write_json(tmp_path / "evaluation.json", before)
    assert _suffix({**before, "play": "greedy"}, tmp_path / "evaluation.json") == ""
    assert _suffix({**before, "play": "sampled"}, tmp_path / "evaluation.json") == "-sampled"

    evaluation = Evaluation(sessions=4, seed=1, policies={})
    one = Run(None, 0, config().model_dump(mode="json"), "", (), evaluation=evaluation)
    other = replace(one, evaluation=evaluation.model_copy(update={"play": "sampled"}))
    assert _difference_notes([Group("a", (one,)), Group("b", (one,))]) == []
    [note] = _difference_notes([Group("a", (one,)), Group("b", (other,))])
    assert note == "not all teams took their most probable actions (a: greedy, b: sampled)"
