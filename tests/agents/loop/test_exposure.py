"""The exposure log: what is kept, what learners are told of it, and what simulated users leave."""

import dataclasses

import pytest
import torch

from agents.learners.config import MAPPOConfig
from agents.learners.policy import TrainedPolicy
from agents.learners.team import TeamSpec
from agents.loop.exposure import ExposureLog, as_rollout, play_log
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import DataError
from marec_env.rewards.config import RewardConfig
from marec_env.simulator import Simulator
from marec_env.world import build_world
from tests.agents.loop.conftest import bandit_log, bandit_team
from tests.worlds import small_environment


def same(one, two):
    for name in ("key", "length", "left", "clicks", "slate"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name
    assert one.items == two.items
    for name in ("observations", "actions", "log_probabilities", "attributes"):
        ours, theirs = getattr(one, name), getattr(two, name)
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[agent], theirs[agent]) for agent in ours), name


def test_a_log_comes_back_from_its_file(log, tmp_path):
    limits = torch.linspace(0, 1, len(log.key))
    log = dataclasses.replace(log, attributes={"risk_limit": limits})
    log.save(tmp_path / "log.safetensors")
    same(ExposureLog.load(tmp_path / "log.safetensors"), log)


@pytest.mark.parametrize("content", [b"", b"no tensors at all", b"\x10" + b"\0" * 7 + b"{" * 16])
def test_a_file_that_is_no_log_is_refused_by_name(content, tmp_path):
    path = tmp_path / "other.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"other\.safetensors"):
        ExposureLog.load(path)


def test_a_session_is_held_out_whatever_else_is_in_the_log(log):
    learned, held = log.split(0.3)
    assert 0.2 < len(held.key) / len(log.key) < 0.4
    assert set(learned.key.tolist()).isdisjoint(held.key.tolist())
    assert len(learned.key) + len(held.key) == len(log.key)
    few = log.select(torch.arange(50))
    expected = [key for key in few.key.tolist() if key in set(held.key.tolist())]
    assert few.split(0.3)[1].key.tolist() == expected


def test_logs_of_different_lengths_are_joined(policy):
    short, long = bandit_log(policy, 4, 2, seed=1), bandit_log(policy, 6, 3, seed=2)
    both = ExposureLog.joined([short, long])
    assert both.clicks.shape == (10, 3, 2)
    assert torch.equal(both.clicks_a_session()[:4], short.clicks_a_session())
    same(both.select(torch.arange(4, 10)), long)


def test_learners_are_told_of_clicks_of_staying_and_of_ends(log):
    rewards = RewardConfig(weights={"ranking": 0.5}, team={"retention": 0.25})
    rollout = as_rollout(log, rewards)
    gone = next(k for k in range(300) if log.length[k] == 2 and log.left[k])
    cut = next(k for k in range(300) if log.length[k] == 2 and not log.left[k])
    paid = rollout.agents["picker_0"]["rewards"]
    shares = log.clicks.mean(dim=2).tolist()
    for session, last in ((gone, 0.0), (cut, 0.25)):
        first, second, _ = shares[session]
        expected = [0.5 * first + 0.25, 0.5 * second + last, 0.0]
        assert paid[session].tolist() == pytest.approx(expected)
    team = rollout.team
    assert team["ended"][gone].tolist() == team["ended"][cut].tolist() == [False, True, True]
    assert team["terminated"][gone].tolist() == [False, True, True]
    assert team["terminated"][cut].tolist() == [False, False, True]
    assert rollout.agents["mover_0"]["active"][cut].tolist() == [True, True, False]
    assert torch.equal(team["next_state"][cut, 0], team["state"][cut, 1])
    assert torch.equal(team["next_state"][cut, 1], team["state"][cut, 1])
    assert team["state"].shape[2] == 6


def test_another_teams_log_is_refused(log):
    team = bandit_team().team
    other = {**log.observations, "mover_0": log.observations["mover_0"][..., :2]}
    with pytest.raises(DataError, match="another team"):
        dataclasses.replace(log, observations=other).require_team(team)
    log.require_team(team)


def test_simulated_sessions_are_logged_as_they_went():
    world = build_world(EnvironmentConfig.model_validate(small_environment()))
    team = TeamSpec.of(Simulator(world, 1))
    actors = {agent: team.build_actor(MAPPOConfig(), agent).eval() for agent in team.agents}
    policy = TrainedPolicy(team, actors)
    made = play_log(Simulator(world, 24, autoreset=False), policy, torch.arange(24), seed=3)
    other = play_log(Simulator(world, 8, autoreset=False), policy, torch.arange(8, 16), seed=3)
    same(made.select(torch.arange(8, 16)), ExposureLog.joined([other]))
    assert made.left.any() and not made.left.all()
    assert int(made.length.max()) == world.config.max_requests
    live = made.live
    for agent, seen in made.observations.items():
        actor = policy.actors[agent]
        inputs, _ = actor(seen[live])
        log_p, _ = actor.distribution.evaluate(inputs, made.actions[agent][live])
        torch.testing.assert_close(log_p, made.log_probabilities[agent][live])
        assert not made.actions[agent][~live].any()
    assert made.items == world.catalog.ids
    for slates in made.slate[:3]:  # nobody is shown an item twice
        shown = slates[slates.sum(dim=1) > 0]
        assert len(shown.unique()) == shown.numel()
    # What the components are shown of the first slate is what was clicked of it.
    rate = made.clicks[:, 0].mean(dim=1)
    going = made.length > 1
    last_rate = made.observations["profile_0"][going, 1, 3]
    torch.testing.assert_close(last_rate, 2.0 * rate[going])
