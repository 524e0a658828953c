"""Private learning from a log: bounded contributions, counted noise, nothing that looks at all."""

import math

import numpy as np
import pytest
import torch

from agents.loop.private import (
    LearningPrivacy,
    baseline,
    contribution,
    learn_privately,
    learning_weights,
    noise_scales,
    require_private,
)
from agents.loop.rounds import LoopConfig
from agents.studies.privacy.audit import epsilon_proved
from marec_env.errors import ConfigError, DataError
from marec_env.privacy.accountant import Releases, epsilon_spent
from marec_env.privacy.mechanisms import KEY_VARIABLE, keyed_normal
from tests.agents.loop.conftest import BEST, bandit_log, bandit_team

ALGORITHM = {
    "kind": "mappo", "normalise_advantages": "none", "normalise_values": False,
    "learning_rate": 0.02, "gamma": 0.0, "entropy_coefficient": 0.0,
}  # fmt: skip


def settings(algorithm=(), critic_passes=0, **privacy):
    return LoopConfig.model_validate(
        {"algorithm": {**ALGORITHM, **dict(algorithm)}, "critic_passes": critic_passes,
         "privacy": privacy}
    )  # fmt: skip


def parts_of(log, policy, units, layers="all", longest=1e-3, scale=1.0):
    """Return each unit's contribution ``[units, d]``."""
    weights = learning_weights(policy.actors, layers)
    advantages = scale * (log.clicks.sum(2) - 0.9)
    algorithm = settings().algorithm
    found = [
        contribution(log.select(mine), advantages[mine], policy, weights, algorithm, longest)
        for mine in units
    ]
    return torch.stack(found)


@pytest.mark.parametrize("network", [None, {"hidden": [6], "recurrent_units": 5}])
def test_nobody_contributes_more_than_the_bound_however_much_he_did(network):
    policy = bandit_team(network=network)
    log = bandit_log(policy, sessions=12)
    units = [torch.arange(6), torch.tensor([6]), torch.tensor([7, 8]), torch.tensor([9, 10, 11])]
    wild = parts_of(log, policy, units, scale=1e6)
    torch.testing.assert_close(wild.norm(dim=1), torch.ones(4, dtype=torch.float64))
    mild = parts_of(log, policy, units, longest=1e3)
    assert (mild.norm(dim=1) < 1.0).all() and (mild.norm(dim=1) > 0).all()
    assert parts_of(log, policy, units, layers="last").shape[1] < wild.shape[1]


def test_what_one_contributes_does_not_depend_on_others():
    policy = bandit_team()
    log = bandit_log(policy, sessions=4)
    units = [torch.tensor([k]) for k in range(4)]
    alone = parts_of(log.select(torch.tensor([2])), policy, units[:1])
    torch.testing.assert_close(parts_of(log, policy, units)[2], alone[0], rtol=0, atol=0)


def test_the_baseline_is_the_mean_and_one_moves_it_by_a_bounded_part():
    policy = bandit_team()
    log = bandit_log(policy, sessions=50)
    gains, none = 0.1 * log.clicks.sum(2), torch.zeros(2, dtype=torch.float64)
    rows = [torch.tensor([k]) for k in range(50)]
    mean = float((gains.sum(1) / log.length).mean())
    assert baseline(log, gains, rows, 0.0, none) == pytest.approx(mean, rel=1e-5)
    discounted = baseline(log, gains, rows, 0.8, none)  # in units of reward, whatever the discount
    assert discounted == pytest.approx(mean, rel=1e-5)
    extreme = gains.clone()
    extreme[0] = 1e9
    assert abs(baseline(log, extreme, rows, 0.0, none) - mean) < 1.5 * math.sqrt(2.0) / 50
    assert baseline(log, gains, rows, 0.0, none + torch.tensor([1.0, 0.0])) > mean + 0.02


def test_noise_is_what_opacus_finds_for_the_schedule():
    opacus = pytest.importorskip("opacus.accountants.utils")
    privacy = LearningPrivacy(epsilon=3.0, sample_rate=0.1, steps=40)
    first, second = noise_scales(privacy)
    alone = opacus.get_noise_multiplier(
        target_epsilon=3.0, target_delta=1e-5, sample_rate=0.1, steps=40, accountant="rdp",
        epsilon_tolerance=1e-3,
    )  # fmt: skip
    assert 1.0 < second / alone < 1.1  # the baseline has its share
    schedule = [Releases(first), Releases(second, 0.1, 40)]
    spent = epsilon_spent("rdp", schedule, 1e-5)
    assert 2.98 < spent <= 3.0
    told = settings(epsilon=3.0, sample_rate=0.1, steps=2)
    policy = bandit_team()
    made = learn_privately(bandit_log(policy, sessions=20), policy, told)
    assert 2.97 < made.statement["epsilon"] <= 3.0
    assert "ε = 3" in made.line or "ε = 2.99" in made.line
    assert "known seed" in made.line


def test_attacks_prove_no_more_than_is_stated():
    policy = bandit_team()
    log = bandit_log(policy, sessions=6)
    parts = parts_of(log, policy, [torch.tensor([k]) for k in range(6)], scale=1e6)
    privacy = LearningPrivacy(epsilon=4.0, delta=1e-3, sample_rate=1.0, steps=1)
    noise, target = noise_scales(privacy)[1], parts[5]

    def scores(total, told):
        drawn = [keyed_normal(b"test", f"{told} {k}", total.numel()) for k in range(1500)]
        return np.array([float((total + noise * one - parts[:5].sum(0)) @ target) for one in drawn])

    inside, outside = scores(parts.sum(0), "in"), scores(parts[:5].sum(0), "out")
    proved = epsilon_proved(inside, outside, 1e-3)
    assert 0.25 * privacy.epsilon < proved <= privacy.epsilon


def test_learning_finds_the_best_decision_under_noise():
    policy = bandit_team()
    log = bandit_log(policy, sessions=300)
    told = settings({"learning_rate": 0.05}, sample_rate=0.4, steps=12, gradient_norm=0.1)
    found = learn_privately(log, policy, told)
    seen = log.observations["picker_0"][log.live]

    @torch.no_grad()
    def chance(team):
        return float(torch.softmax(team.actors["picker_0"](seen)[0], -1)[:, BEST].mean())

    assert chance(found.policy) > chance(policy) + 0.05


def test_the_same_key_gives_the_same_team_and_a_secret_is_said(monkeypatch):
    policy = bandit_team()
    log = bandit_log(policy, sessions=30)
    told = settings(steps=2)

    def weights(found):
        return found.policy.actors["picker_0"].head.weight

    first, again = (learn_privately(log, policy, told) for _ in range(2))
    assert torch.equal(weights(first), weights(again))
    monkeypatch.setenv(KEY_VARIABLE, "0123456789abcdef0123")
    secret = learn_privately(log, policy, told)
    assert not torch.equal(weights(first), weights(secret)) and "known seed" not in secret.line
    other = bandit_log(policy, sessions=30)
    other.observations["picker_0"][0, 0, 0] += 1e-3
    apart = weights(learn_privately(other, policy, told)) - weights(secret)
    assert apart.abs().max() > 1e-3  # another log gets other noise
    untouched = bandit_team().actors["picker_0"].state_dict()
    assert all(
        torch.equal(v, untouched[k]) for k, v in policy.actors["picker_0"].state_dict().items()
    )


@pytest.mark.parametrize(
    ("algorithm", "critic_passes", "named"),
    [
        ({"normalise_advantages": "team"}, 0, "algorithm.normalise_advantages=none"),
        ({"normalise_values": True}, 0, "algorithm.normalise_values=false"),
        ({"target_kl": 0.1}, 0, "algorithm.target_kl=null"),
        ({}, 3, "critic_passes=0"),
        ({"kind": "happo"}, 0, "algorithm.kind=mappo"),
        ({"components": {"picker_0": {"clip": 0.1}}}, 0, "algorithm.components"),
    ],
)
def test_what_would_break_the_guarantee_is_refused_by_name(algorithm, critic_passes, named):
    policy = bandit_team()
    told = settings(algorithm, critic_passes)
    with pytest.raises(ConfigError) as error:
        learn_privately(bandit_log(policy, sessions=5), policy, told)
    assert named in str(error.value) and str(error.value).count("; ") == 1


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(ConfigError, match=r"normalise_advantages.*normalise_values.*critic_passes"):
        require_private(LoopConfig(privacy=LearningPrivacy()))
    require_private(settings())
    with pytest.raises(ConfigError, match=r"no noise brings the loss to ε = 0\.05"):
        noise_scales(LearningPrivacy(epsilon=0.05))
    log = bandit_log(bandit_team(), sessions=5)
    del log.observations["mover_0"]
    with pytest.raises(DataError, match="another team"):
        learn_privately(log, bandit_team(), settings())
    assert math.isfinite(noise_scales(LearningPrivacy())[1])
