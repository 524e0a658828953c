import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents.baselines.teams import RandomTeam, StaticTeam
from marec_env.errors import ConfigError
from marec_env.evaluation.policies import DrawingPolicy, TeamPolicy
from marec_env.random import session_keys

SPACES = {
    "profile_0": spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 3.0], np.float32)),
    "recall_0": spaces.MultiDiscrete([4, 4, 2]),
    "feature_0": spaces.Discrete(3),
    "ranking_0": spaces.Tuple([spaces.Discrete(2), spaces.Box(0.0, 1.0, (2,))]),
}
OBSERVATIONS = {agent: torch.zeros(500, 3) for agent in SPACES}


@pytest.fixture
def team():
    return RandomTeam(SPACES, seed=1)


def test_random_actions_fill_their_spaces(team):
    actions = team.act(OBSERVATIONS)
    box = actions["profile_0"]
    assert box[:, 0].min() < -0.9
    assert box[:, 1].max() > 2.9
    assert box.amin(0).tolist() >= [-1.0, 0.0]
    assert box.amax(0).tolist() <= [1.0, 3.0]
    assert actions["recall_0"].amax(0).tolist() == [3, 3, 1]
    assert actions["recall_0"].amin(0).tolist() == [0, 0, 0]
    counts = torch.bincount(actions["feature_0"], minlength=3) / 500
    assert counts.tolist() == pytest.approx([1 / 3] * 3, abs=0.07)
    choice, amount = actions["ranking_0"]
    assert (choice.shape, amount.shape) == ((500,), (500, 2))


def test_random_actions_change_by_step_and_repeat_by_seed(team):
    first, second = team.act(OBSERVATIONS), team.act(OBSERVATIONS)
    assert not torch.equal(first["profile_0"], second["profile_0"])
    again = RandomTeam(SPACES, seed=1)
    assert torch.equal(again.act(OBSERVATIONS)["profile_0"], first["profile_0"])
    again.reset()
    assert torch.equal(again.act(OBSERVATIONS)["profile_0"], first["profile_0"])
    other = RandomTeam(SPACES, seed=2)
    assert not torch.equal(other.act(OBSERVATIONS)["profile_0"], first["profile_0"])
    one_turn = RandomTeam(SPACES, seed=1).act({"recall_0": OBSERVATIONS["recall_0"]})
    assert torch.equal(one_turn["recall_0"], first["recall_0"])


def test_a_sessions_draws_do_not_depend_on_its_batch(team):
    keys = session_keys(3, torch.arange(500))
    team.begin(keys)
    whole = [team.act(OBSERVATIONS) for _ in range(2)]
    team.begin(keys[100:104].flip(0))
    few = {agent: torch.zeros(4, 3) for agent in SPACES}
    for expected in whole:
        found = team.act(few)
        assert torch.equal(found["profile_0"].flip(0), expected["profile_0"][100:104])
        assert torch.equal(found["recall_0"].flip(0), expected["recall_0"][100:104])
        assert torch.equal(found["ranking_0"][1].flip(0), expected["ranking_0"][1][100:104])
    assert not torch.equal(whole[0]["recall_0"][0], whole[0]["recall_0"][1])


def test_a_static_team_repeats_its_actions():
    team = StaticTeam({"profile_0": torch.tensor([0.5, 1.0]), "ranking_0": (torch.tensor(1),)})
    actions = team.act({agent: OBSERVATIONS[agent] for agent in ("profile_0", "ranking_0")})
    assert actions["profile_0"].shape == (500, 2)
    assert actions["ranking_0"][0].shape == (500,)
    assert (actions["ranking_0"][0] == 1).all()
    assert isinstance(team, TeamPolicy)
    assert not isinstance(team, DrawingPolicy)


def test_unknown_spaces_are_refused():
    team = RandomTeam({"a_0": spaces.Text(3)})
    with pytest.raises(ConfigError, match="Box, Discrete"):
        team.act({"a_0": torch.zeros(2, 1)})


@pytest.mark.parametrize(
    ("space", "mask"),
    [
        (spaces.Discrete(4, start=3), [1, 0, 1, 0]),
        (spaces.MultiDiscrete([[2, 3]]), ([0, 1], [1, 0, 1])),
        (spaces.MultiBinary(2), [1, 0, 1, 1]),
        (spaces.Tuple([spaces.Box(-1, 1, (1,)), spaces.Discrete(3), spaces.MultiBinary(1)]),
         [0, 1, 1, 0, 1]),
    ],
)  # fmt: skip
def test_random_play_draws_every_allowed_action_and_no_other(space, mask):
    sessions = 200

    def rows(part):
        return torch.tensor(part, dtype=torch.bool).expand(sessions, -1)

    masks = tuple(map(rows, mask)) if isinstance(mask, tuple) else rows(mask)
    team = RandomTeam({"agent": space})
    [action] = team.act({"agent": torch.zeros(sessions, 1)}, {"agent": masks}).values()
    parts = [
        part.reshape(sessions, -1) for part in (action if isinstance(action, tuple) else [action])
    ]
    drawn = [sorted(set(column.tolist())) for part in parts for column in part.T]
    if isinstance(space, spaces.Tuple):
        assert len(drawn.pop(0)) == sessions  # the Box
        assert drawn == [[1, 2], [1]]
    elif isinstance(space, spaces.Discrete):
        assert drawn == [[3, 5]]
    elif isinstance(space, spaces.MultiDiscrete):
        assert action.shape == (sessions, 1, 2)
        assert drawn == [[1], [0, 2]]
    else:
        assert drawn == [[0], [0, 1]]
    again = RandomTeam({"agent": space}).act({"agent": torch.zeros(3, 1)})["agent"]
    first = again[-1] if isinstance(again, tuple) else again
    assert first[0].shape == (space[-1] if isinstance(space, spaces.Tuple) else space).shape
