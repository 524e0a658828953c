"""The house's rules on logged slates are those by which the simulator judges the same slates."""

import dataclasses

import pytest
import torch

from agents.learners.config import MAPPOConfig
from agents.learners.policy import TrainedPolicy
from agents.learners.team import TeamSpec
from agents.loop.exposure import play_log
from agents.loop.limits import broken_shares
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import DataError
from marec_env.rewards import terms
from marec_env.simulator import Simulator
from marec_env.world import build_world
from tests.worlds import small_environment

SESSIONS = 30
RULES = ["suitability", "max_topic_share", "max_provider_share"]


@pytest.fixture(scope="module")
def played():
    """A world with all rules, a log, and what the simulator found of each of its requests."""
    source = {"source": "synthetic/finance", "synthetic": {"num_users": 120, "num_items": 300}}
    audit = {"max_topic_share": 0.2, "max_provider_share": 0.15}
    section = small_environment(
        data=source,
        pipeline={"candidates": 20, "slate_size": 5, "audit": audit},
        rewards={"team": {"within_limits": 1.0}},
    )
    world = build_world(EnvironmentConfig.model_validate(section))
    team = TeamSpec.of(Simulator(world, 1))
    actors = {agent: team.build_actor(MAPPOConfig(), agent).eval() for agent in team.agents}
    found = []
    with pytest.MonkeyPatch.context() as patch:
        rules = terms.broken_rules
        patch.setattr(terms, "broken_rules", lambda *args: found.append(rules(*args)) or found[-1])
        simulator = Simulator(world, SESSIONS, autoreset=False)
        log = play_log(simulator, TrainedPolicy(team, actors), torch.arange(SESSIONS), seed=3)
    return world, log, found


def test_logged_slates_are_judged_as_they_were_in_the_simulator(played):
    world, log, found = played
    told = broken_shares(log, world.config.pipeline, world.knowledge, world.catalog.ids)
    assert list(told) == RULES
    assert len(found) == log.slate.shape[1]
    for rule, shares in told.items():
        expected = torch.stack([one[rule].float().mean(1) for one in found], dim=1)
        assert torch.equal(shares[log.live], expected[log.live]), rule
        assert 0 < float(shares[log.live].mean()) < 1, rule


def test_items_go_by_their_names(played):
    world, log, _ = played
    config, knowledge, ids = world.config.pipeline, world.knowledge, world.catalog.ids
    turned = dataclasses.replace(log, items=log.items[::-1], slate=len(log.items) - 1 - log.slate)
    live = log.live
    for rule, shares in broken_shares(log, config, knowledge, ids).items():
        again = broken_shares(turned, config, knowledge, ids)[rule]
        assert torch.equal(again[live], shares[live])
    with pytest.raises(DataError, match="'nobody', which is not in the catalog"):
        broken_shares(
            dataclasses.replace(log, items=(*log.items, "nobody")), config, knowledge, ids
        )
