"""Spaces, masks and agents as people's PettingZoo environments have them: used, or refused."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv

from agents.learners.config import MAPPOConfig, SamplingConfig, VDNConfig
from agents.learners.trainer import Trainer
from agents.pettingzoo_adapter import PettingZooVectorEnv
from marec_env.errors import ConfigError, MarecError, PluginError, RunError

BOX = spaces.Box(-1, 1, (3,), np.float32)
ZEROS = np.zeros(3, np.float32)


def only(action, n=4):
    return np.eye(n, dtype=np.int8)[action]


class Game(ParallelEnv):
    """Two agents for six steps; what they see, may do and are told is given by functions of
    (agent, time). ``taken`` holds all actions.
    """

    metadata = {"name": "game"}  # noqa: RUF012 - PettingZoo's form

    def __init__(self, see=lambda a, t: ZEROS, told=lambda a, t: {}, space=BOX,
                 actions=spaces.Discrete(4), plays=lambda a, t: True, pay=1.0):  # fmt: skip # noqa: B008
        self.possible_agents = ["a0", "a1"]
        self.see, self.told, self.plays, self.pay = see, told, plays, pay
        self.observation_space = lambda agent: space
        self.action_space = lambda agent: actions
        self.taken = []

    def _views(self):
        shown = {a: self.see(a, self.time) for a in self.agents}
        seen = {a: o for a, o in shown.items() if o is not None}
        return seen, {a: self.told(a, self.time) for a in self.agents}

    def reset(self, seed=None, options=None):
        self.time = 0
        self.agents = [a for a in self.possible_agents if self.plays(a, 0)]
        return self._views()

    def step(self, actions):
        assert set(actions) == set(self.agents)
        assert all(self.action_space(a).contains(x) for a, x in actions.items())
        self.taken.append((self.time, dict(actions)))
        self.time += 1
        acted = list(self.agents)
        self.agents = [a for a in self.possible_agents if self.plays(a, self.time)]
        seen, infos = self._views()
        over = dict.fromkeys(acted, self.time == 6)
        if self.time == 6:
            self.agents = []
        return seen, dict.fromkeys(acted, self.pay), over, dict.fromkeys(acted, False), infos


def train(algorithm=MAPPOConfig(epochs=1), **game):  # noqa: B008 - frozen
    made = []

    def make(n):
        env = PettingZooVectorEnv(lambda: Game(**game), n)
        made.extend(env._envs)
        return env

    trainer = Trainer(algorithm, SamplingConfig(num_sessions=3, rollout_length=8), 0, make)
    metrics = [trainer.iterate() for _ in range(2)][-1]
    trainer.close()
    return metrics, [(t, a, x) for env in made for t, step in env.taken for a, x in step.items()]


DICT = {"observation": BOX, "action_mask": spaces.Box(0, 1, (4,), np.int8)}
NESTED = {"observation": spaces.Dict({"x": BOX, "y": spaces.Discrete(2)}),
          "action_mask": spaces.MultiBinary(4)}  # fmt: skip
MANY = {"x": BOX, "y": spaces.Discrete(2), "action_mask": spaces.MultiBinary(4)}


@pytest.mark.parametrize("algorithm", [MAPPOConfig(epochs=1), VDNConfig(updates=1)])
@pytest.mark.parametrize(
    "game",
    [
        {"told": lambda a, t: {"action_mask": only(2)}},
        {
            "space": spaces.Dict(DICT),
            "see": lambda a, t: {"observation": ZEROS, "action_mask": only(2)},
        },
        {
            "space": spaces.Dict({"obs": BOX, "action_mask": DICT["action_mask"]}),
            "see": lambda a, t: {"obs": ZEROS, "action_mask": only(2)},
        },
        {
            "space": spaces.Dict(NESTED),
            "see": lambda a, t: {"observation": {"x": ZEROS, "y": 1}, "action_mask": only(2)},
        },
        {
            "space": spaces.Dict(MANY),
            "see": lambda a, t: {"x": ZEROS, "y": 1, "action_mask": only(2)},
        },
        {"see": lambda a, t: {"observation": ZEROS, "action_mask": only(2)}},  # not declared
    ],
)
def test_masks_under_any_documented_place_are_obeyed(game, algorithm):
    _, taken = train(algorithm, **game)
    assert {int(x) for _, _, x in taken} == {2} and len(taken) == 2 * 48


def test_the_first_mask_may_come_late():
    told = {"told": lambda a, t: {"action_mask": only(2)} if t >= 3 else {}}
    for algorithm in (MAPPOConfig(epochs=1), VDNConfig(updates=1)):
        _, taken = train(algorithm, **told)
        assert {int(x) for t, _, x in taken if t >= 3} == {2}
        assert len({int(x) for t, _, x in taken if t < 3}) > 1


def test_who_is_not_to_move_does_nothing_and_learns_nothing():
    def told(agent, time):
        return {"action_mask": only(2) if int(agent[1]) == time % 2 else np.zeros(4, np.int8)}

    env = PettingZooVectorEnv(lambda: Game(told=told), 1)
    step = env.reset(0)
    assert [bool(step.active[a]) for a in env.agents] == [True, False]
    step = env.step({a: torch.tensor([2]) for a in env.agents})
    assert [bool(step.active[a]) for a in env.agents] == [False, True]
    assert env._envs[0].taken == [(0, {"a0": 2, "a1": 0})]
    metrics, _ = train(told=told)
    assert metrics["agent_steps"] == 2 * 24


def test_who_sees_nothing_acts_but_is_inactive():
    env = PettingZooVectorEnv(
        lambda: Game(see=lambda a, t: ZEROS if a == "a0" or t % 2 else None), 1
    )
    assert [bool(env.reset(0).active[a]) for a in env.agents] == [True, False]
    assert bool(env.step({a: torch.tensor([1]) for a in env.agents}).active["a1"])


MASKS = [
    (spaces.MultiDiscrete([3, 2]), (only(1, 3), only(0, 2)), lambda x: tuple(x) == (1, 0)),
    (spaces.MultiDiscrete([3, 2]), np.array([0, 1, 0, 1, 0]), lambda x: tuple(x) == (1, 0)),
    (
        spaces.MultiDiscrete(np.array([[2, 3], [4, 5]]), start=np.array([[0, 1], [2, 3]])),
        ((only(0, 2), only(1, 3)), (only(3), only(4, 5))),
        lambda x: x.tolist() == [[0, 2], [5, 7]],
    ),
    (spaces.MultiBinary(3), np.array([0, 1, 2]), lambda x: x[0] == 0 and x[1] == 1),
    (spaces.MultiBinary((1, 2)), np.array([[0, 1]]), lambda x: x.tolist() == [[0, 1]]),
    (spaces.Tuple([spaces.Discrete(3, start=5), BOX]), (only(1, 3), None), lambda x: x[0] == 6),
]


@pytest.mark.parametrize(("actions", "mask", "legal"), MASKS, ids=range(len(MASKS)))
def test_masks_of_every_action_space(actions, mask, legal):
    _, taken = train(actions=actions, told=lambda a, t: {"action_mask": mask})
    assert len(taken) == 96 and all(legal(x) for _, _, x in taken)


@pytest.mark.parametrize(
    "actions",
    [
        spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])),
        spaces.MultiBinary((2, 2)),
        spaces.Box(0, 5, (2,), np.int64),
        spaces.Box(-1, 1, (2, 3), np.float32),
        spaces.Box(-np.inf, np.inf, (2,), np.float32),
        spaces.Discrete(3, start=-7),
    ],
    ids=str,
)
def test_action_spaces_are_obeyed(actions):
    assert len(train(actions=actions)[1]) == 96


@pytest.mark.parametrize(
    ("told", "actions", "match"),
    [
        (only(2, 5), spaces.Discrete(4), "'a0' does not fit .*4 numbers are wanted"),
        (only(2, 5), BOX, "takes none"),
        ((np.zeros(2), np.ones(3)), spaces.MultiDiscrete([2, 3]), "allows nothing in part 0"),
        ((np.ones(3),), spaces.Tuple([spaces.Discrete(3), BOX]), "does not fit"),
    ],
)
def test_masks_that_do_not_fit_are_refused(told, actions, match):
    env = PettingZooVectorEnv(
        lambda: Game(actions=actions, told=lambda a, t: {"action_mask": told}), 1
    )
    with pytest.raises(RunError, match=match):
        env.reset(0)


SEEN = [
    (spaces.Discrete(5, start=10), 12, [0, 0, 1, 0, 0]),
    (spaces.MultiDiscrete([2, 3]), np.array([1, 2]), [0, 1, 0, 0, 1]),
    (spaces.MultiBinary((1, 2)), np.array([[1, 0]], np.int8), [1, 0]),
    (spaces.Box(0, 255, (1, 2, 1), np.uint8), np.array([[[7], [9]]], np.uint8), [7, 9]),
    (spaces.Tuple([spaces.Discrete(2), spaces.Box(0, 9, (2,))]), (1, [3, 4]), [0, 1, 3, 4]),
    (spaces.Dict({"b": spaces.Discrete(2), "a": BOX}), {"b": 0, "a": ZEROS + 2}, [2, 2, 2, 1, 0]),
    (BOX, [1, 2, 3], [1, 2, 3]),
]


@pytest.mark.parametrize(("space", "value", "row"), SEEN, ids=range(len(SEEN)))
def test_observation_spaces_are_flattened(space, value, row):
    env = PettingZooVectorEnv(lambda: Game(space=space, see=lambda a, t: value), 1)
    assert env.reset(0).observations["a1"].tolist() == [row]


@pytest.mark.parametrize(
    "space",
    [
        spaces.Graph(BOX, None),
        spaces.Dict({"s": spaces.Sequence(spaces.Discrete(3))}),
        spaces.Discrete(10**9),
        spaces.Space((3,), np.float32),
    ],
)
def test_spaces_that_are_no_vector_are_refused(space):
    with pytest.raises(ConfigError, match="observation space of 'a0'"):
        PettingZooVectorEnv(lambda: Game(space=space), 1)


@pytest.mark.parametrize(
    ("space", "value", "match"),
    [
        (BOX, np.zeros(1, np.float32), r"shape \(1,\) instead of \(3,\)"),
        (BOX, np.float32(0), r"shape \(\) instead"),
        (BOX, "text", "str instead of numbers"),
        (spaces.Box(0, 1, (2, 3)), np.zeros((3, 2)), r"shape \(3, 2\)"),
        (spaces.Discrete(5, start=10), 3, "3 instead of a member of Discrete"),
        (spaces.Dict({"a": BOX, "b": BOX}), {"a": ZEROS}, "without 'b'"),
        (spaces.Dict({"a": BOX, "b": BOX}), {"a": ZEROS, "b": ZEROS[:2]}, "'b' has shape"),
        (spaces.Tuple([BOX, BOX]), (ZEROS,), "tuple instead of 2 parts"),
        (spaces.Dict(DICT), {"observation": ZEROS}, "without 'action_mask'"),
        (spaces.Dict(DICT), {"action_mask": only(1)}, "without 'observation'"),
        (BOX, ZEROS * np.nan, "'a0' is not finite"),
    ],
)
def test_observations_of_another_form_are_refused(space, value, match):
    env = PettingZooVectorEnv(lambda: Game(space=space, see=lambda a, t: value), 1)
    with pytest.raises(RunError, match=match):
        env.reset(0)


def played(env, steps):
    return [
        env.step({a: torch.zeros(1, dtype=torch.int64) for a in env.agents}) for _ in range(steps)
    ]


def test_agents_come_go_and_come_again():
    """The second agent plays at steps 2, 3 and 5 of six."""
    env = PettingZooVectorEnv(lambda: Game(plays=lambda a, t: a == "a0" or t in (2, 3, 5)), 1)
    first = env.reset(0)
    steps = played(env, 6)
    assert [bool(s.active["a1"]) for s in [first, *steps]] == [
        False,
        False,
        True,
        True,
        False,
        True,
        False,
    ]
    assert [float(s.rewards["a1"]) for s in steps] == [0, 0, 1, 1, 0, 1]
    assert [bool(s.agent_terminated["a1"]) for s in steps] == [False] * 3 + [True, False, True]
    assert [bool(s.terminated) for s in steps] == [False] * 5 + [True]
    assert steps[-1].episodes["return"].tolist() == [4.5]
    metrics, taken = train(plays=lambda a, t: a == "a0" or t in (2, 3, 5))
    assert metrics["episode/length"] == 6.0
    assert {t for t, a, _ in taken if a == "a1"} == {2, 3, 5}


def test_the_episode_goes_on_while_anyone_plays():
    """The first agent leaves before the second comes to stay alone."""
    env = PettingZooVectorEnv(lambda: Game(plays=lambda a, t: (t < 3) == (a == "a0")), 1)
    env.reset(0)
    steps = played(env, 6)
    assert [bool(s.terminated) for s in steps] == [False] * 5 + [True]


class Listed(Game):
    """Keeps agents in ``agents`` after their end."""

    def step(self, actions):
        result = super().step(actions)
        self.agents = list(self.possible_agents)
        return result


def test_agents_that_stay_listed_after_their_end_have_ended():
    env = PettingZooVectorEnv(Listed, 1)
    env.reset(0)
    assert [bool(s.terminated) for s in played(env, 6)] == [False] * 5 + [True]


class Broken(Game):
    def __init__(self, how):
        super().__init__(pay=float("nan") if how == "reward" else 1.0)
        self.how = how

    def state(self):
        if self.how == "state":
            return {"a": 1}
        return np.zeros(2 + self.time * (self.how == "grown"))

    def reset(self, seed=None, options=None):
        result = super().reset()
        self.agents = [] if self.how == "nobody" else self.agents
        return result

    def step(self, actions):
        result = super().step(actions)
        if self.how == "stranger":
            self.agents.append("z9")
        if self.how == "fails":
            raise ZeroDivisionError("by nothing")
        return result[:4] if self.how == "four" else result


@pytest.mark.parametrize(
    ("how", "error", "match"),
    [
        ("reward", RunError, "reward of 'a0' is not finite"),
        ("state", ConfigError, "set environment.state: observations"),
        ("grown", RunError, "state.. has 3 numbers, at first it had 2"),
        ("nobody", RunError, "no agent plays after reset"),
        ("stranger", RunError, "'z9' is not among its possible_agents"),
        ("fails", PluginError, "'Broken': step failed: ZeroDivisionError: by nothing"),
        ("four", PluginError, "'Broken': step failed: ValueError"),
    ],
)
def test_what_an_environment_does_wrong_is_named(how, error, match):
    def run():
        env = PettingZooVectorEnv(lambda: Broken(how), 1)
        env.reset(0)
        played(env, 1)

    with pytest.raises(MarecError, match=match) as found:
        run()
    assert isinstance(found.value, error) and "\n" not in str(found.value)
