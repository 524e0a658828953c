import pytest
import torch

from marec_env.vector import VectorEnv
from tests.games import MatrixGame, coordination, penalty, two_step


def test_payoffs_go_to_each_player_by_the_joint_action():
    table = torch.arange(12.0).view(2, 2, 3)
    game = MatrixGame(table, 3)
    assert isinstance(game, VectorEnv)
    game.reset(0)
    rows, columns = torch.tensor([0, 1, 1]), torch.tensor([2, 0, 1])
    step = game.step({"player_0": rows, "player_1": columns})
    assert step.rewards["player_0"].tolist() == [2.0, 3.0, 4.0]
    assert step.rewards["player_1"].tolist() == [8.0, 9.0, 10.0]
    assert step.terminated.tolist() == [True] * 3


def test_wrong_payoffs_are_refused():
    with pytest.raises(ValueError, match="must be 1 or 2"):
        MatrixGame(torch.zeros(3, 2, 2), 1)


def test_penalty_table():
    game = penalty(-25.0, 9)
    game.reset(0)
    grid = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    step = game.step({"player_0": grid[:, 0], "player_1": grid[:, 1]})
    assert step.rewards["player_1"].tolist() == [-25.0, 0, 10, 0, 2, 0, 10, 0, -25.0]


def test_coordination_pays_the_two_halves_only():
    game = coordination(4, 16)
    game.reset(0)
    grid = torch.cartesian_prod(*[torch.arange(2)] * 4)
    step = game.step({f"player_{i}": grid[:, i] for i in range(4)})
    paid = grid[step.rewards["player_0"] > 0].tolist()
    assert paid == [[0, 0, 1, 1], [1, 1, 0, 0]]


def test_two_step_moves_pays_and_continues_from_its_state():
    game = two_step(4)
    game.reset(0)
    choose = torch.tensor([0, 0, 1, 1])
    zeros = torch.zeros(4, dtype=torch.int64)
    step = game.step({"player_0": choose, "player_1": zeros})
    assert step.state.argmax(dim=-1).tolist() == [1, 1, 2, 2]
    assert not bool(step.terminated.any()) and float(step.rewards["player_0"].sum()) == 0.0
    other = two_step(4)
    other.load_state_dict(game.state_dict())
    second = {"player_0": torch.tensor([0, 1, 0, 1]), "player_1": torch.tensor([1, 1, 0, 1])}
    for one in (game, other):
        step = one.step(second)
        assert step.rewards["player_0"].tolist() == [7.0, 7.0, 0.0, 8.0]
        assert bool(step.terminated.all())
        assert step.final_state.argmax(dim=-1).tolist() == [1, 1, 2, 2]
        assert step.state.argmax(dim=-1).tolist() == [0] * 4
