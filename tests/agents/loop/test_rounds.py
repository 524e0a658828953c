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
    [(-3.0, 60, "roll back"), (0.0, 60, "promote"), (3.0, 60, "promote"), (-3.0, 20, "wait")],
)
def test_a_candidate_is_judged_by_those_it_met(shift, sessions, verdict):
    spread = torch.linspace(-2.0, 2.0, sessions)
    found, gain = judge(10.0 + torch.linspace(-2, 2, 80), 10.0 + shift + spread, LoopConfig())
    assert found == verdict
    assert (gain is None) == (verdict == "wait")
    if gain is not None:
        assert gain.value == pytest.approx(shift, abs=1e-4)
