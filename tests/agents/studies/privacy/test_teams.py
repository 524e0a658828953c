"""Attacks on teams with known answers: one that memorises its users is caught, chance is not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.config import RunConfig
from agents.learners.config import MAPPOConfig
from agents.learners.policy import TrainedPolicy
from agents.learners.team import TeamSpec
from agents.studies.privacy import teams
from agents.studies.privacy.curve import Plan
from agents.studies.privacy.membership import attacked, halves
from agents.studies.privacy.teams import (
    Probe,
    among,
    membership_of,
    signs_of,
    teams_cells,
    teams_tables,
)
from marec_env.environment_config import EnvironmentConfig
from marec_env.evaluation.rollout import rollout
from marec_env.simulator import Simulator
from marec_env.world import World, build_world
from tests.worlds import small_environment

USERS, MODELS = 50, 10
SAMPLING = {"num_sessions": 16, "rollout_length": 4}


def run_config(**pipeline: Any) -> RunConfig:
    section = small_environment(USERS, 120)
    section["pipeline"] |= pipeline
    environment = {"kind": "marec", **section}
    return RunConfig.model_validate({"environment": environment, "sampling": SAMPLING})


@pytest.fixture(scope="module")
def world() -> World:
    environment = run_config().environment
    assert isinstance(environment, EnvironmentConfig)
    return build_world(environment)


def untrained(world: World, seed: int) -> TrainedPolicy:
    team = TeamSpec.of(Simulator(world, 2))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        actors = {name: team.build_actor(MAPPOConfig(), name) for name in team.actors}
    return TrainedPolicy(team, actors)


@pytest.fixture(scope="module")
def probe(world: World) -> Probe:
    return Probe.of(world, untrained(world, 99), 3)


def found_of(
    probe: Probe, make: Callable[[int, Tensor], TrainedPolicy]
) -> dict[str, dict[str, Any]]:
    """Attack teams made for halves of the users (bool by place among those met)."""
    member = halves(USERS, MODELS, 0)[:, probe.met]
    return attacked([signs_of(make(k, member[k]), probe) for k in range(MODELS)], member)


def test_a_team_that_memorises_its_users_is_caught(world: World, probe: Probe) -> None:
    log, live = probe.log, probe.log.live

    gain = log.clicks.sum(2) - log.clicks.sum(2)[live].mean()

    def memorised(number: int, inside: Tensor) -> TrainedPolicy:
        policy, wanted = untrained(world, number), live & inside[probe.user].unsqueeze(1)
        for agent in log.agents:
            actor = policy.actors[agent]
            seen, done = log.observations[agent][wanted], log.actions[agent][wanted]
            assert actor.trunk.normaliser is not None
            actor.trunk.normaliser.update(seen)
            optimiser = torch.optim.Adam(actor.parameters(), lr=3e-3)
            for _ in range(80):
                optimiser.zero_grad()
                log_p, _ = actor.distribution.evaluate(actor(seen)[0], done)
                (-(gain[wanted] * log_p.clamp(-60.0, 3.0)).mean()).backward()
                optimiser.step()
        return policy

    found = found_of(probe, memorised)
    assert found["decisions that paid, calibrated"]["auc"].value > 0.9
    assert found["decisions that paid, calibrated"]["tpr"].value > 0.4
    assert found["mean of inputs, calibrated"]["auc"].low > 0.6
    assert found["all together"]["auc"].value > 0.85


def test_teams_that_never_met_anybody_tell_nothing(world: World, probe: Probe) -> None:
    found = found_of(probe, lambda number, inside: untrained(world, number))
    for name, one in found.items():
        assert one["auc"].low <= 0.5 <= one["auc"].high, name


def test_clicks_earned_are_those_of_the_users_own_sessions(world: World, probe: Probe) -> None:
    policy = untrained(world, 5)
    earned = signs_of(policy, probe)["clicks earned"]
    sessions = len(probe.sessions)
    played = rollout(world, policy, sessions, probe.seed)
    mine = [played.per_session["clicks"][played.user == user].mean() for user in probe.met]
    wanted = torch.stack(mine).double()
    torch.testing.assert_close(earned, wanted - wanted.mean(), rtol=1e-5, atol=1e-5)
    assert earned.std() > 0


def test_among_some_users_nobody_else_comes(world: World) -> None:
    users = torch.tensor([7, 3, 41])
    friends = torch.tensor([[7, 3], [3, 7], [7, 8], [41, 3]])
    whole = replace(world, population=replace(world.population, friends=friends))
    few = among(whole, users)
    assert few.knowledge is world.knowledge and few.population.num_users == 3
    for ours, theirs in zip(
        few.population.history.of(torch.arange(3)), world.population.history.of(users), strict=True
    ):
        assert torch.equal(ours, theirs)
    assert few.population.friends is not None
    assert few.population.friends.tolist() == [[0, 1], [1, 0], [2, 1]]
    probe = Probe.of(few, untrained(few, 0), 0)
    assert probe.met.tolist() == [0, 1, 2] and len(probe.sessions) >= 9


def test_teams_are_measured_once_and_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teams, "FEW", (10, 160))
    run = run_config(messages={"kind": "learned"})
    plan, told = Plan(models=4, train_steps=64, requests=2, seed=0), list[str]()
    kept = lambda report: None  # noqa: E731
    report = teams_cells(run, plan).measured(kept, told.append)
    assert len(told) == 8  # of all users and of ten; there are no 160
    part = teams_cells(run, plan).measured(kept, told.append, only="10 users, team [01]")
    assert part["cells"] == {name: report["cells"][name] for name in told[4:6]}
    cut = copy.deepcopy(report)
    del cut["cells"][told[7]]
    assert len(membership_of(cut)) == 1  # a setting counts when all its teams are there
    again = teams_cells(run, plan).measured(lambda report: None, lambda line: None, cut)
    assert again == report
    found = membership_of(report)
    assert all(
        len(one["signs"]["confidence"]) == len(one["met"]) for one in report["cells"].values()
    )
    assert "mean of inputs, threshold" in found[teams.EVERYBODY]
    *_, told_of = teams_tables(report)
    sources = ("observations", "decisions", "profile vectors", "messages")
    assert {row[0] for row in told_of.rows} >= {f"age from {source}" for source in sources}
