"""Other libraries' views of batched sessions say what the sessions say, and their policies are
evaluated as they play.
"""

import builtins
import importlib
import sys

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

import marec_env
from agents.baselines.teams import RandomTeam
from marec_env.adapters.gym import TeamVectorEnv
from marec_env.adapters.sb3 import SB3VecEnv
from marec_env.adapters.torchrl import SessionsEnv
from marec_env.classic import SlateVectorEnv
from marec_env.errors import ConfigError
from marec_env.evaluation.rollout import rollout
from marec_env.pipeline.actions import ActionCode
from tests.worlds import small_environment

SMALL = small_environment(60, 200)
CPU = torch.device("cpu")
NO_BENCHMARL = (
    "BenchMARL 1.5 needs torchrl < 0.12, other tests a newer one: install it apart and put it first"
    " in PYTHONPATH (docs/other_libraries.md)"
)


def sessions(count=5, **changes):
    return marec_env.make_vec({**SMALL, **changes}, num_sessions=count)


# ---------------------------------------------------------------- actions


def test_actions_that_fit_no_space_are_told():
    env = sessions()
    with pytest.raises(ConfigError, match=r"choose actions='box'"):
        TeamVectorEnv(env)
    with pytest.raises(ConfigError, match="have no bounds"):
        ActionCode({"a": spaces.Box(-np.inf, np.inf, (2,))}, "box", CPU)
    with pytest.raises(ConfigError, match="did you mean 'ranking_0'"):
        TeamVectorEnv(env, "ranking")
    with pytest.raises(ConfigError, match="actions have shape"):
        TeamVectorEnv(env, "ranking_0").step(np.zeros((5, 3), np.float32))
    with pytest.raises(ConfigError, match="seed is a list"):
        TeamVectorEnv(env, "ranking_0").reset(seed=[1, 2])


# ---------------------------------------------------------------- Gymnasium


def test_one_component_among_hand_set_ones_is_the_session_played_so():
    """Observations, rewards and ends are those of the batched environment, resets included."""
    envs, env = TeamVectorEnv(sessions(), "ranking_0"), sessions()
    assert envs.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert envs.single_action_space == env.action_spaces["ranking_0"]
    seen, _ = envs.reset(seed=3)
    step = env.reset(3)
    rng, ends = np.random.default_rng(0), 0
    scores = np.zeros(5)
    for _ in range(20):
        np.testing.assert_array_equal(seen, step.observations["ranking_0"].numpy())
        action = rng.uniform(-1, 1, envs.action_space.shape).astype(np.float32)
        seen, rewards, ended, cut, infos = envs.step(action)
        step = env.step({**env.default_actions(), "ranking_0": torch.from_numpy(action)})
        np.testing.assert_array_equal(rewards, step.rewards["ranking_0"].double().numpy())
        np.testing.assert_array_equal(ended, step.terminated.numpy())
        np.testing.assert_array_equal(cut, step.truncated.numpy())
        np.testing.assert_array_equal(infos["clicks"], step.metrics["clicks"].numpy())
        scores += rewards
        over = ended | cut
        if over.any():
            ends += over.sum()
            final = step.final_observations["ranking_0"].numpy()
            np.testing.assert_array_equal(infos["final_obs"][over], final[over])
            np.testing.assert_array_equal(infos["_final_obs"], over)
            np.testing.assert_allclose(infos["episode"]["r"][over], scores[over])
            length = step.episodes["length"].numpy()
            np.testing.assert_array_equal(infos["episode"]["l"][over], length)
            scores[over] = 0
    assert ends > 5


def test_given_policies_play_the_other_components():
    env = sessions()
    others = RandomTeam(env.action_spaces, seed=1)
    envs, plain = TeamVectorEnv(env, "recall_0", others=others), sessions()
    envs.reset(seed=0)
    step = plain.reset(0)
    again = RandomTeam(plain.action_spaces, seed=1)
    again.begin(plain.session_keys)
    for _ in range(4):
        action = torch.ones(5, 7, dtype=torch.int64)
        rest = {a: seen for a, seen in step.observations.items() if a != "recall_0"}
        step = plain.step({**again.act(rest), "recall_0": action})
        rewards = envs.step(action.numpy())[1]
        np.testing.assert_array_equal(rewards, step.rewards["recall_0"].double().numpy())


def test_a_component_of_a_sequential_pipeline_sees_those_before_it():
    pipeline = {**SMALL["pipeline"], "sequential": True}
    envs, env = TeamVectorEnv(sessions(pipeline=pipeline), "feature_0"), sessions(pipeline=pipeline)
    seen, _ = envs.reset(seed=0)
    env.reset(0)
    for _ in range(3):
        defaults = env.default_actions()
        for agent in ("profile_0", "recall_0"):
            env.act({agent: defaults[agent]})
        np.testing.assert_array_equal(seen, env.observe("feature_0").numpy())
        action = np.ones(envs.action_space.shape, np.int64)
        env.act({"feature_0": torch.from_numpy(action)})
        env.act({"ranking_0": defaults["ranking_0"]})
        step = env.advance()
        seen, rewards, *_ = envs.step(action)
        np.testing.assert_array_equal(rewards, step.rewards["feature_0"].double().numpy())
    with pytest.raises(ConfigError, match=r"pipeline\.sequential: false"):
        TeamVectorEnv(env, actions="box")


def test_what_is_evaluated_is_what_was_played():
    """The hand-set team through an adapter has the outcomes of the hand-set team."""
    env = sessions()
    envs = TeamVectorEnv(env, "ranking_0")
    default = env.default_actions()["ranking_0"][0].numpy()
    policy = envs.policy(lambda seen: np.tile(default, (len(seen), 1)))
    from agents.baselines import build_baseline

    mine = rollout(env.world, policy, sessions=8, seed=2)
    plain = rollout(env.world, build_baseline("static", env), sessions=8, seed=2)
    assert torch.equal(mine.per_session["clicks"], plain.per_session["clicks"])
    other = envs.policy(lambda seen: -np.tile(default, (len(seen), 1)))
    found = rollout(env.world, other, sessions=8, seed=2)
    assert not torch.equal(found.per_session["return"], plain.per_session["return"])


# ---------------------------------------------------------------- Stable-Baselines3


@pytest.mark.parametrize("kind", ["team", "slates"])
def test_stable_baselines_sees_resets_as_its_own_environments_show_them(kind):
    envs = (
        TeamVectorEnv(sessions(), actions="box")
        if kind == "team"
        else SlateVectorEnv(5, "kuaisim/request", horizon=4)
    )
    vec = SB3VecEnv(envs)
    vec.seed(4)
    first = vec.reset()
    vec.seed(4)
    np.testing.assert_array_equal(first, vec.reset())
    rng, ends = np.random.default_rng(0), 0
    for _ in range(14):
        action = (
            rng.uniform(-1, 1, envs.action_space.shape)
            if kind == "team"
            else rng.integers(0, 1000, envs.action_space.shape)
        )
        seen, rewards, ended, infos = vec.step(action)
        assert seen.shape == (5, *vec.observation_space.shape)
        assert rewards.dtype == np.float32
        for place, info in enumerate(infos):
            assert bool(info) == bool(ended[place])
            if info:
                ends += 1
                assert not np.array_equal(info["terminal_observation"], seen[place])
                assert isinstance(info["TimeLimit.truncated"], bool)
    assert ends >= 5
    assert vec.get_attr("num_envs", [0]) == [5]
    assert vec.env_is_wrapped(object) == [False] * 5
    with pytest.raises(ConfigError, match="of their own"):
        vec.env_method("render")


# ---------------------------------------------------------------- TorchRL


@pytest.mark.parametrize("actions", ["mixed", "box", "discrete", "split"])
def test_torchrl_accepts_it(actions):
    from torchrl.envs import check_env_specs

    split = {"actions": "discrete", "split": True}
    env = SessionsEnv(sessions(), **(split if actions == "split" else {"actions": actions}))
    check_env_specs(env)
    assert set(env.group_map) == set(env.simulator.agents)


def test_each_choice_may_be_an_agent():
    """They see what the component sees and which one they are, and are paid what it is."""
    pipeline = {**SMALL["pipeline"], "components": ["trainer", "recall", "ranking"]}
    env = SessionsEnv(sessions(pipeline=pipeline), actions="discrete", split=True)
    coded = sessions(pipeline={**pipeline, "actions": "discrete"})
    assert {group: len(found) for group, found in env.group_map.items()} == {
        "trainer_0": 1, "recall_0": 7, "ranking_0": 8,
    }  # fmt: skip
    step = coded.reset(0)
    data = env.reset()
    for _ in range(3):
        seen = data["recall_0", "observation"]
        size = step.observations["recall_0"].shape[1]
        for place in range(7):
            assert torch.equal(seen[:, place, :size], step.observations["recall_0"])
            assert seen[0, place, size:].tolist() == [float(k == place) for k in range(7)]
        assert torch.equal(data["trainer_0", "mask"][:, 0], step.active["trainer_0"])
        data = env.rand_step(data)
        actions = {agent: data[agent, "action"] for agent in coded.agents}
        assert actions["ranking_0"].shape == (5, 8)
        step = coded.step(actions)
        reward = data["next", "ranking_0", "reward"]
        assert torch.equal(reward, step.rewards["ranking_0"].view(5, 1, 1).expand(5, 8, 1))
        data = data["next"]

    def module(data):
        shapes.append(data["recall_0", "observation"].shape)
        for agent, action in actions.items():
            data[agent, "action"] = action[:1].expand(len(data), -1)
        return data

    shapes = []
    played = env.policy(module).act({a: env.simulator.observe(a)[:2] for a in actions})
    assert shapes == [(2, 7, size + 7)]
    assert torch.equal(played["recall_0"][1], actions["recall_0"][0])
    with pytest.raises(ConfigError, match="split: the actions of profile_0"):
        SessionsEnv(sessions(), split=True)


@pytest.mark.parametrize("continuous", [True, False])
def test_a_benchmarl_task_says_what_benchmarl_asks(continuous):
    """Of one session, by group; tried on its algorithms below where they are installed."""
    from torchrl.data import Bounded, Categorical
    from torchrl.envs import TransformedEnv, check_env_specs

    from marec_env.adapters.benchmarl import PipelineTask

    task = PipelineTask({**SMALL, "max_requests": 3})
    env = task.get_env_fun(4, continuous, 7, "cpu")()
    check_env_specs(env)
    assert env.batch_size == (4,) and task.max_steps(env) == 3
    groups = task.group_map(env)
    assert set(task.observation_spec(env).keys()) == set(groups)
    assert set(task.state_spec(env).keys()) == {"state"}
    for group, members in groups.items():
        [(name, action)] = task.action_spec(env)[group].items()
        assert name == "action"
        assert isinstance(action, Bounded if continuous else Categorical)
        seen = task.observation_spec(env)[group]
        assert list(seen.keys()) == ["observation"] and seen.shape == (len(members),)
        assert action.shape == ((1, env.codes[group].size) if continuous else (len(members),))
    summed = TransformedEnv(env, task.get_reward_sum_transform(env))
    env.set_seed(7)
    played = summed.rollout(5, break_when_any_done=False)
    rewards, total = played["next", "recall_0", "reward"], 0.0
    for t in range(5):
        total = total + rewards[:, t]
        assert torch.allclose(played["next", "recall_0", "episode_reward"][:, t], total)
        total = total * ~played["next", "done"][:, t].unsqueeze(1)


@pytest.mark.parametrize("algorithm", ["IppoConfig", "QmixConfig"])
def test_benchmarls_algorithms_train_as_they_are(algorithm, tmp_path):
    """One iteration in numbers, one in choices; what they learned plays."""
    algorithms = pytest.importorskip(
        "benchmarl.algorithms", reason=NO_BENCHMARL, exc_type=ImportError
    )
    from benchmarl.experiment import Experiment, ExperimentConfig
    from benchmarl.models import MlpConfig

    from marec_env.adapters.benchmarl import PipelineTask

    config = ExperimentConfig.get_from_yaml()
    config.loggers, config.save_folder, config.render = [], str(tmp_path), False
    config.max_n_frames, config.max_n_iters, config.evaluation_episodes = None, 1, 3
    config.evaluation_interval = 32
    for kind in ("on_policy", "off_policy"):
        setattr(config, f"{kind}_collected_frames_per_batch", 32)
        setattr(config, f"{kind}_n_envs_per_worker", 4)
    config.on_policy_n_minibatch_iters, config.on_policy_minibatch_size = 1, 32
    config.off_policy_n_optimizer_steps, config.off_policy_train_batch_size = 1, 16
    config.off_policy_memory_size = 100
    experiment = Experiment(
        task=PipelineTask(SMALL),
        algorithm_config=getattr(algorithms, algorithm).get_from_yaml(),
        model_config=MlpConfig.get_from_yaml(),
        critic_model_config=MlpConfig.get_from_yaml(),
        config=config,
        seed=0,
    )
    before = [p.clone() for p in experiment.policy.parameters()]
    experiment.run()
    after = list(experiment.policy.parameters())
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    env = sessions()
    found = rollout(env.world, experiment.task.policy(experiment), sessions=6, seed=3)
    random = rollout(env.world, RandomTeam(env.action_spaces), sessions=6, seed=3)
    assert not torch.equal(found.per_session["return"], random.per_session["return"])
    shape = experiment.action_spec["feature_0", "action"].shape
    assert tuple(shape) == ((1, 6) if algorithm == "IppoConfig" else (6,))


def test_a_torchrl_rollout_is_the_sessions_played():
    env, plain = SessionsEnv(sessions(), actions="mixed"), sessions()
    env.set_seed(3)
    torch.manual_seed(0)
    found = env.rollout(14, break_when_any_done=False)
    step = plain.reset(3)
    assert bool(found["next", "done"].any())
    for t in range(14):
        now = found[:, t]
        assert torch.equal(now["state"], step.state)
        actions = {}
        for agent in plain.agents:
            assert torch.equal(now[agent, "observation"].squeeze(1), step.observations[agent])
            actions[agent] = now[agent, "action"].squeeze(1)
        step = plain.step(actions)
        for name in ("terminated", "truncated"):
            assert torch.equal(now["next", name].squeeze(1), getattr(step, name))
        reward = now["next", "recall_0", "reward"].flatten()
        assert torch.equal(reward, step.rewards["recall_0"])
        last = now["next", "recall_0", "observation"].squeeze(1)
        assert torch.equal(last, step.final_observations["recall_0"])


def test_torchrl_may_reset_sessions_that_have_not_ended():
    env = SessionsEnv(sessions(), actions="box")
    data = env.reset()
    data = env.rand_step(data)["next"]
    assert not bool(data["done"].any())
    where = torch.tensor([True, False, True, False, False]).unsqueeze(1)
    fresh = env.reset(data.clone().set("_reset", where))
    old, new = data["ranking_0", "observation"], fresh["ranking_0", "observation"]
    changed = (old != new).flatten(1).any(1)
    assert changed.tolist() == where.flatten().tolist()


def test_torchrl_takes_no_components_that_act_one_after_another():
    with pytest.raises(ConfigError, match="PettingZooWrapper"):
        SessionsEnv(sessions(pipeline={**SMALL["pipeline"], "sequential": True}))


# ---------------------------------------------------------------- what is not installed


@pytest.mark.parametrize(
    ("module", "library"),
    [("sb3", "stable_baselines3"), ("torchrl", "tensordict")],
)
def test_a_missing_library_is_one_line(monkeypatch, module, library):
    real = builtins.__import__

    def fail(name, *rest, **named):
        if name.split(".")[0] == library:
            raise ImportError(f"{name} is away")
        return real(name, *rest, **named)

    monkeypatch.delitem(sys.modules, f"marec_env.adapters.{module}", raising=False)
    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(ConfigError, match=rf"cannot be imported \({library}.*\): pip install"):
        importlib.import_module(f"marec_env.adapters.{module}")
