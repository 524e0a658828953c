"""A round's hurdles: enough sessions, the gate, and the comparison of who met the candidate."""

import pytest
import torch

from agents.loop.rounds import LoopConfig, consider, judge
from marec_env.errors import DataError
from tests.agents.loop.conftest import bandit_log, bandit_team

QUICK = {
    "algorithm": {
        "kind": "mappo", "gamma": 0.5, "learning_rate": 5e-3, "epochs": 5,
        "actor": {"hidden": [8], "normalise_inputs": False},
    },
    "passes": 3,
    "critic_passes": 1,
    "held_out": 0.5,
}  # fmt: skip


def test_a_round_makes_a_candidate_and_values_it_on_other_sessions():
    policy = bandit_team()
    log = bandit_log(policy, sessions=800)
    found = consider(log, policy, LoopConfig.model_validate(QUICK))
    held = log.split(0.5, 0)[1]
    assert found.valuation.requests == int(held.length.sum())
    assert found.valuation.served == pytest.approx(
        float(held.clicks.sum()) / found.valuation.requests
    )
    assert found.passed and found.valuation.gain_to_go.low > 0
    assert found.as_json()["passed"] is True
    again = consider(log, policy, LoopConfig.model_validate({**QUICK, "gate": 0.9}), found.critics)
    assert again.failed == ("gain",)


def test_the_gate_is_a_share_of_what_was_served():
    policy = bandit_team()
    log = bandit_log(policy, sessions=120)
    strict = {**QUICK, "passes": 1, "critic_passes": 0}
    low = consider(log, policy, LoopConfig.model_validate(strict)).valuation
    assert low.served_to_go > low.served
    share = low.gain_to_go.low / low.served_to_go
    for gate, passed in ((share - 0.01, True), (share + 0.01, False)):
        found = consider(log, policy, LoopConfig.model_validate({**strict, "gate": gate}))
        assert found.passed == passed


def test_a_candidate_that_breaks_a_rule_of_the_house_does_not_pass():
    """What is clicked as the first item is what the first rule forbids: to learn is to break it."""
    policy = bandit_team()
    log = bandit_log(policy, sessions=800)
    config = LoopConfig.model_validate({**QUICK, "passes": 6})

    def rules(held):
        return {"max_topic_share": held.clicks[:, :, 0], "suitability": 0 * held.clicks[:, :, 0]}

    found = consider(log, policy, config, rules=rules)
    one = found.valuation.broken["max_topic_share"]
    held = log.split(0.5, 0)[1]
    assert one.served == pytest.approx(float(held.clicks[:, :, 0].sum() / held.length.sum()))
    assert one.more.low > 0 and one.more.high > 0.05
    assert found.valuation.broken["suitability"].more.high == pytest.approx(0.0)
    assert found.failed == ("max_topic_share",) and not found.passed
    assert str(found).startswith("does not pass (max_topic_share)")
    assert found.as_json()["failed"] == ["max_topic_share"]
    lenient = LoopConfig.model_validate({**QUICK, "passes": 6, "limits": 0.9})
    assert consider(log, policy, lenient, rules=rules).passed


def test_too_small_a_log_is_refused(log, policy):
    with pytest.raises(DataError, match=r"300 sessions; at least 301"):
        consider(log, policy, LoopConfig(fewest_sessions=301))


@pytest.mark.parametrize(
    ("shift", "sessions", "verdict"),
    [
        (-3.0, 60, "roll back"),  # worse beyond doubt
        (0.0, 60, "promote"),  # the bound, -0.43, lies above the tolerable -0.5
        (3.0, 60, "promote"),
        (-0.3, 60, "wait"),  # [-0.73, +0.13] tells neither
        (-3.0, 20, "wait"),
        (-0.3, 90, "roll back"),  # the most that is waited for: the estimate decides
    ],
)
def test_a_candidate_is_judged_by_those_it_met(shift, sessions, verdict):
    config = LoopConfig(canary_most=90)
    spread = torch.linspace(-2.0, 2.0, sessions)
    found, gain = judge(10.0 + torch.linspace(-2, 2, 80), 10.0 + shift + spread, config)
    assert found == verdict
    assert (gain is None) == (sessions < 50)
    if gain is not None:
        assert gain.value == pytest.approx(shift, abs=1e-4)


@pytest.mark.parametrize(("shift", "verdict"), [(0.01, "promote"), (-0.01, "roll back")])
def test_where_nothing_is_sure_the_estimate_decides_at_last(shift, verdict):
    wide = torch.linspace(-50.0, 50.0, 60)
    waits, gain = judge(10.0 + wide, 10.0 + shift + wide, LoopConfig(canary_most=61))
    assert waits == "wait" and gain is not None and gain.low < -10.0
    assert judge(10.0 + wide, 10.0 + shift + wide, LoopConfig(canary_most=60))[0] == verdict


def test_what_loss_is_tolerable_is_configured():
    spread = torch.linspace(-2.0, 2.0, 60)
    for loss, verdict in ((0.08, "promote"), (0.06, "wait")):  # the bound is -0.72 of 10
        config = LoopConfig(canary_loss=loss)
        assert judge(10.0 + spread, 9.7 + spread, config)[0] == verdict
