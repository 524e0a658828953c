import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents.learners import trainer as trainer_module
from agents.learners.config import (
    CloningConfig,
    HAPPOConfig,
    IPPOConfig,
    MAPPOConfig,
    NetworkConfig,
    SamplingConfig,
)
from agents.learners.policy import load_actor, load_policy
from agents.learners.trainer import Trainer
from agents.learners.tree import load_tree, save_tree
from marec_env.errors import ConfigError, RunError
from tests.games import two_step

RECURRENT = NetworkConfig(hidden=(8,), recurrent_units=4)


def numbers(metrics):
    return {k: v for k, v in metrics.items() if not k.startswith("time/")}


@pytest.mark.parametrize(
    "config",
    [
        MAPPOConfig(),
        MAPPOConfig(minibatches=3, reward="own", decay_env_steps=4000),
        MAPPOConfig(actor=RECURRENT, critic=RECURRENT),
        IPPOConfig(),
        HAPPOConfig(),
    ],
)
def test_a_restored_run_continues_exactly(config, mixed_team, small_sampling, tmp_path):
    one = Trainer(config, small_sampling, 3, mixed_team)
    for _ in range(3):
        one.iterate()
    one.save(tmp_path / "checkpoint")
    expected = [numbers(one.iterate()) for _ in range(3)]
    other = Trainer(config, small_sampling, 3, mixed_team)
    other.restore(tmp_path / "checkpoint")
    assert [numbers(other.iterate()) for _ in range(3)] == expected
    assert expected[-1]["env_steps"] == 480 and expected[-1]["iterations"] == 6


def test_runners_that_gather_nothing_end_the_run(mixed_team, small_sampling, monkeypatch):
    trainer = Trainer(MAPPOConfig(), small_sampling, 0, mixed_team)
    nothing = {"env_steps": 0.0, "agent_steps": 0.0}
    monkeypatch.setattr(trainer._engine, "iterate", lambda done: nothing)
    assert trainer.iterate()["env_steps"] == 0.0
    monkeypatch.setattr(trainer_module, "_PATIENCE", -1.0)
    with pytest.raises(RunError, match="no runner has gathered anything"):
        trainer.iterate()


def test_runs_repeat_and_seeds_differ(mixed_team, small_sampling):
    def run(seed):
        trainer = Trainer(MAPPOConfig(), small_sampling, seed, mixed_team)
        return [numbers(trainer.iterate()) for _ in range(2)][-1]

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_saving_changes_nothing(mixed_team, small_sampling, tmp_path):
    one, two = (Trainer(MAPPOConfig(), small_sampling, 0, mixed_team) for _ in range(2))
    one.iterate(), two.iterate()
    one.save(tmp_path / "c")
    one.save(tmp_path / "c")
    assert numbers(one.iterate()) == numbers(two.iterate())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c"]


def test_nothing_is_pickled(mixed_team, small_sampling, tmp_path):
    trainer = Trainer(MAPPOConfig(), small_sampling, 0, mixed_team)
    trainer.save(tmp_path / "c")
    suffixes = {p.suffix for p in (tmp_path / "c").rglob("*") if p.is_file()}
    assert suffixes == {".json", ".safetensors"}


@pytest.mark.parametrize("damage", ["truncate", "missing", "newer", "garbage"])
def test_damaged_checkpoints_are_named(damage, mixed_team, small_sampling, tmp_path):
    trainer = Trainer(MAPPOConfig(), small_sampling, 0, mixed_team)
    folder = tmp_path / "c"
    trainer.save(folder)
    weights, text = folder / "trainer.safetensors", folder / "trainer.json"
    if damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "missing":
        weights.unlink()
    elif damage == "garbage":
        text.write_text("{")
    else:
        text.write_text(json.dumps({**json.loads(text.read_text()), "format": 99}))
    with pytest.raises(RunError, match=r"trainer|format 99"):
        trainer.restore(folder)


@pytest.mark.parametrize(
    "harm",
    [
        lambda d: [],
        lambda d: {**d, "format": "x"},
        lambda d: {**d, "agents": 3},
        lambda d: {**d, "actors": []},
        lambda d: {**d, "turns": [1]},
        lambda d: {**d, "observation_sizes": {}},
        lambda d: {**d, "action_spaces": {"a": {"kind": "box"}, "b": {}, "c": {}}},
        lambda d: {**d, "actors": {"a": {"agents": ["a"], "network": {"hidden": "x"}}}},
    ],
)
def test_policies_of_another_shape_are_named(harm, mixed_team, small_sampling, tmp_path):
    Trainer(MAPPOConfig(), small_sampling, 0, mixed_team).save(tmp_path / "c")
    place = tmp_path / "c" / "policy.json"
    place.write_text(json.dumps(harm(json.loads(place.read_text()))))
    with pytest.raises(RunError, match=r"policy\.json") as caught:
        load_policy(tmp_path / "c")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["[]", "3", '{"format": 1}', '{"format": 1, "tree": {"x": 3}}'])
def test_states_of_another_shape_are_named(text, mixed_team, small_sampling, tmp_path):
    trainer = Trainer(MAPPOConfig(), small_sampling, 0, mixed_team)
    trainer.save(tmp_path / "c")
    (tmp_path / "c" / "trainer.json").write_text(text)
    with pytest.raises(RunError) as caught:
        trainer.restore(tmp_path / "c")
    assert len(str(caught.value).splitlines()) == 1


def test_networks_of_other_components_are_named(mixed_team, small_sampling, tmp_path):
    class Other(mixed_team):
        def __init__(self, num_envs):
            super().__init__(num_envs)
            self.agents = ("a", "b", "d")
            self.turns = (self.agents,)
            sizes = {"a": 7, "b": 5, "d": 3}
            self.observation_spaces = {
                k: spaces.Box(-np.inf, np.inf, (n,), np.float32) for k, n in sizes.items()
            }
            self.action_spaces = {
                "a": self.action_spaces["a"], "b": spaces.Discrete(9), "d": spaces.Discrete(4),
            }  # fmt: skip

    Trainer(MAPPOConfig(), small_sampling, 0, mixed_team).save(tmp_path / "c")
    other = Trainer(MAPPOConfig(), small_sampling, 0, Other)
    with pytest.raises(RunError) as caught:
        other.begin_with(tmp_path / "c")
    for told in (
        "'c' is there only", "'d' is here only", "'a' observed 4 numbers there and 7 here",
        "'b' acted in MultiDiscrete([3 2]) there and in Discrete(9) here",
    ):  # fmt: skip
        assert told in str(caught.value)


def test_other_algorithms_and_networks_are_refused(mixed_team, small_sampling, tmp_path):
    Trainer(MAPPOConfig(), small_sampling, 0, mixed_team).save(tmp_path / "c")
    with pytest.raises(RunError, match="algorithm 'mappo'"):
        Trainer(IPPOConfig(), small_sampling, 0, mixed_team).restore(tmp_path / "c")
    wide = MAPPOConfig(actor=NetworkConfig(hidden=(5,)))
    with pytest.raises(RunError, match="does not fit"):
        Trainer(wide, small_sampling, 0, mixed_team).restore(tmp_path / "c")


def test_an_unwritable_folder_is_named(mixed_team, small_sampling, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        Trainer(MAPPOConfig(), small_sampling, 0, mixed_team).save(tmp_path / "file" / "c")


def test_trees_come_back_to_the_bit(tmp_path):
    tree = {
        "a": [1, 2.5, float("inf"), None, True, ("x", {3: torch.arange(3)})],
        "half": torch.randn(2, dtype=torch.float64),
    }
    save_tree(tmp_path, "t", tree)
    back = load_tree(tmp_path, "t")
    assert back["a"][:5] == tree["a"][:5]
    assert torch.equal(back["a"][5][1][3], torch.arange(3))
    assert torch.equal(back["half"], tree["half"])
    with pytest.raises(RunError, match=r"'t\.bad'"):
        save_tree(tmp_path, "t", {"bad": object()})


def test_policies_load_without_ray_and_act_alike(mixed_team, small_sampling, tmp_path):
    trainer = Trainer(MAPPOConfig(actor=RECURRENT), small_sampling, 0, mixed_team)
    trainer.iterate()
    trainer.save(tmp_path / "c")
    env = mixed_team(5)
    observations = env.reset(0).observations
    expected = trainer.policy().act(observations)
    loaded = load_policy(tmp_path / "c").act(observations)
    for agent, action in expected.items():
        assert torch.equal(action, loaded[agent])
    assert load_actor(tmp_path / "c", "b").memory_size == 4
    with pytest.raises(RunError, match="unknown"):
        load_actor(tmp_path / "c", "nobody")
    code = (
        "import sys; from agents.learners.policy import load_policy;"
        f" load_policy({str(tmp_path / 'c')!r}); assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_stochastic_policy_repeats_by_seed(mixed_team, small_sampling):
    trainer = Trainer(MAPPOConfig(), small_sampling, 0, mixed_team)
    observations = mixed_team(5).reset(0).observations
    policy = trainer.policy()
    first = policy.act(observations, deterministic=False)
    second = policy.act(observations, deterministic=False)
    policy.reset()
    again = policy.act(observations, deterministic=False)
    assert torch.equal(first["a"], again["a"]) and not torch.equal(first["a"], second["a"])


def test_games_run_with_odd_rollouts():
    trainer = Trainer(MAPPOConfig(), SamplingConfig(num_sessions=3, rollout_length=1), 0, two_step)
    assert trainer.iterate()["env_steps"] == 3


@pytest.mark.parametrize("config", [MAPPOConfig(epochs=2), HAPPOConfig(epochs=2)])
def test_another_run_begins_with_the_networks_alone(mixed_team, small_sampling, tmp_path, config):
    one = Trainer(config, small_sampling, 0, mixed_team)
    for _ in range(3):
        one.iterate()
    one.save(tmp_path / "c")
    other = Trainer(config, small_sampling, 1, mixed_team)
    other.begin_with(tmp_path / "c")
    assert other.env_steps == 0
    mine, theirs = one._engine.learner, other._engine.learner
    for name in theirs.module.keys():  # noqa: SIM118 - RLlib's mapping has no __iter__
        for key, value in theirs.module[name].unwrapped().state_dict().items():
            if "value_norm" in key:  # rewards may be in another unit here
                assert not value.any()
                continue
            assert torch.equal(value, mine.module[name].unwrapped().state_dict()[key]), key
    assert not any(o.state_dict()["state"] for o in theirs._named_optimizers.values())
    # The runner acts with them, on sessions of its own seed.
    observations = mixed_team(4).reset(0).observations
    for agent, action in one.policy().act(observations).items():
        assert torch.equal(action, other.policy().act(observations)[agent])
    assert float(other.iterate()["ratio/a"]) == pytest.approx(1.0, abs=0.2)
    wider = config.model_copy(update={"actor": NetworkConfig(hidden=(8,))})
    with pytest.raises(RunError, match="do not fit this run's components"):
        Trainer(wider, small_sampling, 0, mixed_team).begin_with(tmp_path / "c")
    with pytest.raises(RunError, match=f"of algorithm '{config.kind}', the run of 'ippo'"):
        Trainer(IPPOConfig(), small_sampling, 0, mixed_team).begin_with(tmp_path / "c")
    cloned = config.model_copy(update={"cloning": CloningConfig(policy="x:y")})
    with pytest.raises(ConfigError, match="leave one out"):
        Trainer(cloned, small_sampling, 0, mixed_team).begin_with(tmp_path / "c")
