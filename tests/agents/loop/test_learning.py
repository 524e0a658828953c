"""Learning and estimates from a log whose best decisions are known."""

import dataclasses

import numpy as np
import pytest
import torch

from agents.learners.config import MAPPOConfig
from agents.learners.policy import TrainedPolicy
from agents.loop.learning import learn_from_log
from agents.loop.valuation import TEAM, request_logs, value
from marec_env.errors import DataError
from marec_env.rewards.config import RewardConfig
from tests.agents.loop.conftest import BEST, bandit_log, bandit_team

ALGORITHM = MAPPOConfig.model_validate(
    {"actor": {"hidden": [8], "normalise_inputs": False}, "learning_rate": 5e-3, "epochs": 5}
)


@torch.no_grad()
def chances(policy, log):
    """Return how likely the better decision of each component is in a log's states."""
    live = log.live
    inputs, _ = policy.actors["picker_0"](log.observations["picker_0"][live])
    best = torch.full((int(live.sum()), 1), float(BEST))
    picked, _ = policy.actors["picker_0"].distribution.evaluate(inputs, best)
    moved, _ = policy.actors["mover_0"](log.observations["mover_0"][live])
    return float(picked.exp().mean()), float(moved[:, 0].mean())


@pytest.fixture(scope="module")
def learned():
    policy = bandit_team()
    log = bandit_log(policy)
    before = {name: actor.state_dict() for name, actor in policy.actors.items()}
    before = {n: {k: v.clone() for k, v in state.items()} for n, state in before.items()}
    told = []
    actors, critics = learn_from_log(
        log, policy, ALGORITHM, RewardConfig(), passes=6, critic_passes=2, seed=1, say=told.append
    )
    return policy, before, TrainedPolicy(policy.team, actors), critics, told


def test_all_components_learn_from_a_log_what_was_clicked(learned):
    policy, before, found, _, told = learned
    held = bandit_log(policy, seed=9)
    assert chances(found, held)[0] > chances(policy, held)[0] + 0.05
    assert chances(found, held)[1] > chances(policy, held)[1] + 0.05
    for name, actor in policy.actors.items():  # who began is left as it was
        assert all(torch.equal(v, before[name][k]) for k, v in actor.state_dict().items())
    assert len(told) == 8
    assert not any(name.startswith("policy_loss") for name in told[0])  # critics first
    assert {"policy_loss/picker_0", "policy_loss/mover_0"} <= told[2].keys()


def test_learning_repeats_itself_to_the_bit_and_goes_on_with_its_critics(learned):
    policy, _, found, critics, _ = learned
    log = bandit_log(policy)
    again, _ = learn_from_log(
        log, policy, ALGORITHM, RewardConfig(), passes=6, critic_passes=2, seed=1
    )
    for name, actor in again.items():
        ours = found.actors[name].state_dict()
        assert all(torch.equal(v, ours[k]) for k, v in actor.state_dict().items())
    told = []
    learn_from_log(
        log, policy, ALGORITHM, RewardConfig(), passes=1, critics=critics, say=told.append
    )
    assert len(told) == 1


def test_the_clip_keeps_the_team_where_the_log_can_tell(learned):
    policy, _, found, _, _ = learned
    ratio = request_logs(bandit_log(policy, seed=9), found, clip=1e9)["picker_0"].ratio
    assert ratio.min() > 0.4 and ratio.max() < 2.5
    assert ratio.std() > 0.05


def test_a_candidate_is_valued_as_what_it_then_earns(learned):
    policy, _, found, _, _ = learned
    log = bandit_log(policy, sessions=1500, seed=11)
    told = value(log, found, discount=0.5)
    own = bandit_log(found, sessions=1500, seed=12)
    live = own.live
    truth = float(own.clicks.sum(dim=2)[live].mean())
    assert told.gain.low > 0
    assert told.served + told.gain.low - 0.04 < truth < told.served + told.gain.high + 0.04
    assert 500 < told.effective < told.requests == int(log.length.sum())
    # Decisions bring nothing but their own clicks here: what follows adds noise alone.
    assert told.gain_to_go.standard_error > told.gain.standard_error
    assert abs(told.gain_to_go.value - told.gain.value) < 4 * told.gain_to_go.standard_error


def test_the_served_team_gains_nothing_on_itself(learned):
    policy, *_ = learned
    told = value(bandit_log(policy, seed=9), policy, discount=0.5)
    assert told.effective == pytest.approx(told.requests)
    assert abs(told.gain.value) < 0.05
    assert told.by_estimator[TEAM]["IPS"].value == pytest.approx(told.served, rel=1e-4)


def test_the_teams_ratio_is_the_product_of_its_components_and_is_clipped(learned):
    policy, _, found, _, _ = learned
    log = bandit_log(policy, sessions=40, seed=13)
    logs = request_logs(log, found, clip=1e9)
    product = logs["picker_0"].ratio * logs["mover_0"].ratio
    np.testing.assert_allclose(logs[TEAM].ratio, product, rtol=1e-4)
    clipped = request_logs(log, found, clip=1.05)[TEAM].ratio
    np.testing.assert_allclose(clipped, np.minimum(product, 1.05), rtol=1e-4)
    assert (product > 1.05).any()


def test_what_is_seen_is_scaled_as_before(learned):
    changes = {"actor": {"hidden": [8], "normalise_inputs": True}}
    algorithm = MAPPOConfig.model_validate({**ALGORITHM.model_dump(), **changes}, strict=False)
    policy = bandit_team(normalise=True)
    log = bandit_log(policy, sessions=60)
    for actor in policy.actors.values():
        actor.trunk.normaliser.update(torch.randn(50, 3) + 4.0)
    actors, _ = learn_from_log(log, policy, algorithm, RewardConfig(), passes=1, critic_passes=0)
    for name, actor in actors.items():
        before = policy.actors[name].trunk.normaliser.state_dict()
        after = actor.trunk.normaliser.state_dict()
        assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.fixture(scope="module")
def remembering():
    """A log of a team with memory, whose networks are none that the learner's settings name."""
    policy = bandit_team(normalise=True, network={"hidden": [6], "recurrent_units": 5})
    for actor in policy.actors.values():  # decisions that depend on what was seen before
        torch.nn.init.normal_(actor.trunk.cell.weight_hh, std=0.5)
        actor.trunk.normaliser.update(torch.randn(50, 3) + 1.0)
    return policy, bandit_log(policy, sessions=600)


def test_a_team_that_remembers_is_valued_by_all_that_it_saw_in_a_session(remembering):
    policy, log = remembering
    for one in request_logs(log, policy).values():
        np.testing.assert_allclose(one.ratio, 1.0, atol=1e-4)  # it did what was done
    turned = {agent: seen.clone() for agent, seen in log.observations.items()}
    for seen in turned.values():
        seen[:, 0] += 2.0
    other = request_logs(dataclasses.replace(log, observations=turned), policy)["picker_0"]
    second = other.session[1:] == other.session[:-1]  # a first request stands before it
    assert np.abs(other.ratio[1:][second] - 1.0).max() > 0.01


def test_a_team_that_remembers_learns_from_a_log(remembering):
    policy, log = remembering
    actors, _ = learn_from_log(log, policy, ALGORITHM, RewardConfig(), passes=6, critic_passes=2)
    found = TrainedPolicy(policy.team, actors)
    assert {actor.memory_size for actor in actors.values()} == {5}
    told = value(bandit_log(policy, sessions=1500, seed=11), found, discount=0.5)
    assert told.gain.low > 0


def test_squashed_actions_stay_squashed():
    policy = bandit_team(boxes="squashed")
    actors, _ = learn_from_log(
        bandit_log(policy, 40), policy, ALGORITHM, RewardConfig(), passes=1, critic_passes=0
    )
    assert actors["mover_0"].squashed


def test_a_team_of_which_the_log_tells_nothing_is_refused(learned):
    policy = bandit_team()
    log = bandit_log(policy, sessions=20)
    far = log.select(log.actions["picker_0"][:, 0, 0] < 0.5)
    with pytest.raises(DataError, match="says nothing of this team"):
        value(far.select(far.length == 1), _certain(policy), discount=0.5)


def _certain(policy):
    """A team that always picks what the log never holds."""
    actor = policy.actors["picker_0"]
    actor.head.weight.data.zero_()
    actor.head.bias.data.copy_(torch.tensor([-1e4, 0.0, 0.0, 0.0]))
    return policy
