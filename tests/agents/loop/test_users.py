"""Simulated users fitted to a log click as those of the log did, and a team learns on them."""

import dataclasses

import pytest
import torch

from agents.learners.config import MAPPOConfig
from agents.learners.policy import TrainedPolicy
from agents.learners.team import TeamSpec
from agents.loop.exposure import play_log
from agents.loop.learning import keep_critics, kept_critics
from agents.loop.rounds import LoopConfig, consider
from agents.loop.users import learn_on_users, recalibrated
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError, DataError
from marec_env.simulator import Simulator
from marec_env.world import build_world
from tests.worlds import small_environment

SESSIONS = torch.arange(768)


def world_of(fashion=0.0, **pipeline):
    section = small_environment(
        population={"history": 12, "fashion": fashion},
        pipeline={"candidates": 20, "slate_size": 5, **pipeline},
    )
    return build_world(EnvironmentConfig.model_validate(section))


def team_of(world):
    team = TeamSpec.of(Simulator(world, 1))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        actors = {agent: team.build_actor(MAPPOConfig(), agent).eval() for agent in team.agents}
    return TrainedPolicy(team, actors)


def log_of(world, policy, seed=5):
    return play_log(Simulator(world, len(SESSIONS), autoreset=False), policy, SESSIONS, seed)


@pytest.fixture(scope="module")
def drifted():
    """The world as it was, the served team, and its log since everybody likes what is new."""
    world = world_of()
    policy = team_of(world)
    return world, policy, log_of(world_of(fashion=2.0), policy)


@pytest.fixture(scope="module")
def fitted(drifted):
    world, policy, log = drifted
    return recalibrated(world, log, policy, seed=9)


def logits(world):
    return world.population.quality + world.population.intercept


def test_users_like_what_those_of_the_log_like(drifted, fitted):
    world, *_ = drifted
    true = logits(world_of(fashion=2.0)) - logits(world)
    found = logits(fitted) - logits(world)
    together = torch.corrcoef(torch.stack([true, found.float()]))[0, 1]
    assert together > 0.8
    assert 0.5 < float(found.std() / true.std()) < 1.5


def test_the_served_team_gets_the_clicks_that_it_got(drifted, fitted):
    world, policy, log = drifted
    wanted = log.clicks_a_session().mean()
    before = (log_of(world, policy, 31).clicks_a_session().mean() - wanted).abs()
    after = (log_of(fitted, policy, 31).clicks_a_session().mean() - wanted).abs()
    assert before > 0.3  # there is something to fit
    assert after < 0.4 * before


def test_users_that_have_not_changed_stay_nearly_as_they_were(drifted):
    world, policy, _ = drifted
    found = recalibrated(world, log_of(world, policy), policy, seed=9)
    assert float((logits(found) - logits(world)).std()) < 0.5
    assert torch.equal(found.population.user_factors, world.population.user_factors)


def test_a_candidate_learns_on_them_and_is_valued_on_the_log(drifted, fitted):
    world, policy, log = drifted
    config = LoopConfig(env_steps=20_000, held_out=0.5, seed=9)
    before = {
        name: value.clone() for name, value in policy.actors["ranking_0"].state_dict().items()
    }
    found = consider(log, policy, config, world=world)
    assert found.valuation.requests == int(log.split(0.5, 9)[1].length.sum())
    assert {name.split("/")[0] for name in found.critics} == {"critic"}
    own = policy.actors["ranking_0"].state_dict()
    assert all(torch.equal(own[name], value) for name, value in before.items())
    truth = world_of(fashion=2.0)
    earned, served = (
        log_of(truth, TrainedPolicy(policy.team, one.actors), 77).clicks_a_session().mean()
        for one in (found.policy, policy)
    )
    assert earned > served + 0.3


def test_critics_are_kept_beside_the_team_and_gone_on_with(drifted, fitted, tmp_path):
    _, policy, _ = drifted
    still = MAPPOConfig(gamma=0.8, epochs=1, critic_learning_rate=1e-9, normalise_values=False)
    _, critics = learn_on_users(fitted, policy, still, 1, seed=1)
    keep_critics(tmp_path / "films-1", critics)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "films-1.critics.json", "films-1.critics.safetensors",
    ]  # fmt: skip
    assert kept_critics(tmp_path / "films-2") is None
    kept = kept_critics(tmp_path / "films-1")
    _, after = learn_on_users(fitted, policy, still, 1, seed=2, critics=kept)
    _, fresh = learn_on_users(fitted, policy, still, 1, seed=2)

    def weights(found):
        return torch.cat([v.flatten() for v in next(iter(found.values())).values() if v.dim() > 1])

    torch.testing.assert_close(weights(after), weights(critics), atol=1e-5, rtol=0)
    assert (weights(fresh) - weights(critics)).abs().mean() > 0.01


def test_critics_of_the_other_way_to_learn_are_left_out(drifted, fitted):
    """They see what components saw, not what the simulator tells: they are no use here."""
    world, policy, log = drifted
    quick = LoopConfig(passes=1, critic_passes=1, env_steps=1)
    looped = consider(log, policy, quick)
    alone = consider(log, policy, quick, world=world)
    after = consider(log, policy, quick, looped.critics, world=world)
    for name, actor in alone.policy.actors.items():
        state = after.policy.actors[name].state_dict()
        assert all(torch.equal(value, state[key]) for key, value in actor.state_dict().items())


def test_what_does_not_fit_is_refused(drifted):
    world, policy, log = drifted
    other = world_of(components=("profile", "recall", "ranking"))
    with pytest.raises(ConfigError, match="'feature_0' of the team sees"):
        learn_on_users(other, policy, MAPPOConfig(), 1)
    strange = dataclasses.replace(log, items=(*log.items[:-1], "nobody"))
    with pytest.raises(DataError, match="'nobody', which is not in the catalog here"):
        recalibrated(world, strange, policy)
