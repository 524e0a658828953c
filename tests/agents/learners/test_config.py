import pytest
from pydantic import TypeAdapter, ValidationError

from agents.learners.config import (
    AlgorithmConfig,
    HAPPOConfig,
    IPPOConfig,
    MAPPOConfig,
    SamplingConfig,
)

ADAPTER = TypeAdapter(AlgorithmConfig)


def test_defaults_are_those_of_the_checklist():
    c = MAPPOConfig()
    assert 5 <= c.epochs <= 15
    assert c.minibatches == 1
    assert c.clip == 0.2
    assert (c.gamma, c.gae_lambda) == (0.99, 0.95)
    assert c.huber_delta == 10.0 and c.value_clip == 0.2
    assert c.entropy_coefficient == 0.01
    assert c.max_gradient_norm == 10.0
    assert c.adam_epsilon == 1e-5
    assert c.learning_rate == c.critic_learning_rate == 5e-4
    assert c.normalise_values and c.normalise_advantages == "team"
    assert c.critic_input == "state" and c.reward == "team_mean"


def test_ippo_uses_own_rewards_and_observations():
    c = IPPOConfig()
    assert (c.reward, c.critic_input, c.normalise_advantages) == ("own", "observation", "agent")


def test_kind_selects_the_algorithm():
    assert isinstance(ADAPTER.validate_python({"kind": "happo"}), HAPPOConfig)
    built = ADAPTER.validate_python({"kind": "mappo", "actor": {"hidden": [32]}})
    assert built.actor.hidden == (32,)


@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "ppo"},
        {"kind": "mappo", "clip": 0.0},
        {"kind": "mappo", "gama": 0.9},
        {"kind": "happo", "share_parameters": True},
        {"kind": "ippo", "critic_input": "state"},
        {"kind": "mappo", "share_parameters": True, "components": {"a": {}}},
        {"kind": "mappo", "agent_ids": False},
        {"kind": "mappo", "components": {"a": {"frozen": True, "clip": 0.1}}},
        {"kind": "vdn", "clip": 0.2},
        {"kind": "rllib", "gamma": 0.9},
        {"kind": "ippo", "kl_coeff": 0.2},
    ],
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(bad)


def test_env_steps_per_iteration_counts_runners():
    assert SamplingConfig(num_sessions=3, rollout_length=5).env_steps_per_iteration == 15
    c = SamplingConfig(num_sessions=3, rollout_length=5, num_env_runners=2)
    assert c.env_steps_per_iteration == 30
