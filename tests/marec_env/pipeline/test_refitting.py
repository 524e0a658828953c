import numpy as np
import pytest
import torch

import marec_env
from marec_env.pipeline.profile import Refitting, fold_in
from marec_env.vector import Rows

SMALL = {"embeddings": {"encoder": "hashing", "reduction": {"dimension": 8}}}
TEAM = ("trainer", "profile", "recall", "ranking")
SLATE = torch.tensor([[20, 21, 22, 23, 24]] * 3)
CLICKS = torch.tensor([[1.0, 0, 0, 0, 1]] * 3)


@pytest.fixture
def trained(make):
    return make.pipeline(components=TEAM, trainer={"every": 2, "cost": 0.25})


def play(pipeline, make, refit):
    request = pipeline.begin(make.keys())
    pipeline.act(request, "trainer_0", torch.tensor(refit))
    pipeline.finish(request)
    request.slate = SLATE + 5 * request.step.unsqueeze(1)
    pipeline.learn(request, CLICKS)
    return request


def test_fold_in_is_ridge_regression_on_history_and_log(trained):
    memory = trained.memory
    memory.session_items[0, 0], memory.session_clicks[0, 0] = SLATE[0], CLICKS[0]
    items = [0, 1, 2, 20, 21, 22, 23, 24]
    target = np.array([1, 1, -1, 1, -1, -1, -1, 1.0])
    weight = np.where(target > 0, 1.0, 0.2)
    factors = memory.knowledge.cf[items].double().numpy()
    gram = factors.T @ (weight[:, None] * factors) + np.eye(5)
    expected = np.linalg.solve(gram, factors.T @ (weight * target))
    expected /= np.linalg.norm(expected)
    found = fold_in(memory, Rows())[0]
    assert np.allclose(found.numpy(), expected, atol=1e-5)


def test_a_user_without_any_log_has_no_vector(trained):
    none = torch.full((1, 4), -1)
    middle = Rows(torch.tensor([False, True, False]))
    trained.memory.reset(middle, none, none > 0, torch.tensor([0]))
    fitted = fold_in(trained.memory, Rows())
    assert bool((fitted[1] == 0).all())
    assert fitted[0].norm().item() == pytest.approx(1.0, abs=1e-5)


def test_only_due_requests_refit_and_pay(trained, make):
    first = play(trained, make, [1, 0, 1])
    assert first.extra_cost.tolist() == [0.25, 0.0, 0.25]
    assert trained.components[0].state["fitted_cf"].norm(dim=1).tolist() == pytest.approx(
        [1.0, 0.0, 1.0], abs=1e-5
    )
    before = trained.components[0].state["fitted_cf"].clone()
    assert trained.active()["trainer_0"].tolist() == [False] * 3
    second = play(trained, make, [1, 1, 1])
    assert second.extra_cost.tolist() == [0.0] * 3
    assert torch.equal(trained.components[0].state["fitted_cf"], before)
    assert trained.active()["trainer_0"].tolist() == [True] * 3
    since = trained.components[0].state["since_refit"]
    assert since[:, 0].tolist() == pytest.approx([2 / 6] * 3)
    play(trained, make, [0, 1, 0])
    assert torch.equal(trained.components[0].state["fitted_cf"][[0, 2]], before[[0, 2]])
    assert not torch.equal(trained.components[0].state["fitted_cf"][1], before[1])
    assert trained.components[0].state["waited"].tolist() == [3, 1, 3]


def test_a_refit_turns_the_profile_at_once_and_a_replay_leaves_no_trace(trained, make):
    request = trained.begin(make.keys())
    trained.act(request, "trainer_0", torch.tensor([1, 0, 0]))
    trained.finish(request)
    plain = trained.begin(make.keys())
    trained.act(plain, "trainer_0", torch.tensor([0, 0, 0]))
    trained.finish(plain)
    assert not torch.allclose(request.profile_cf[0], plain.profile_cf[0])
    assert torch.allclose(request.profile_cf[1:], plain.profile_cf[1:])
    assert bool((trained.components[0].state["fitted_cf"] == 0).all())


def test_in_difference_mode_a_refit_is_charged_to_the_trainer_only():
    config = {
        **SMALL,
        "pipeline": {"components": TEAM, "trainer": {"cost": 0.25}},
        "rewards": {"mode": "difference", "weights": {}, "team": {"extra_cost": -1.0}},
    }
    simulator = marec_env.make_vec(config, 8)
    actions = simulator.default_actions()
    actions["trainer_0"] = torch.tensor([0, 1] * 4)  # the default is to refit
    step = simulator.step(actions)
    assert step.rewards["trainer_0"].tolist() == [0.25, 0.0] * 4
    assert step.rewards["ranking_0"].tolist() == [0.0] * 8


class OwnTrainer(Refitting):
    """Nothing but another place."""


def test_a_trainer_named_by_its_place_works_as_the_registered_one():
    clicks = {}
    for name in ("trainer", f"{__name__}:OwnTrainer"):
        pipeline = {"components": (name, *TEAM[1:]), "trainer": {"every": 1}}
        simulator = marec_env.make_vec({**SMALL, "pipeline": pipeline}, 8)
        step = [simulator.step(simulator.default_actions()) for _ in range(4)][-1]
        assert bool(simulator.pipeline.components[0].state["fitted_cf"].any())
        clicks[name] = torch.cat([simulator.last.slate.flatten().float(), step.rewards["recall_0"]])
    assert torch.equal(*clicks.values())


def test_between_decisions_a_trainer_neither_refits_nor_speaks():
    config = {
        **SMALL,
        "pipeline": {
            "components": TEAM,
            "trainer": {"every": 2},
            "messages": {"kind": "fixed", "bandwidth_cost": 0.5},
        },
    }
    after = []
    for choice in (0, 1):
        simulator = marec_env.make_vec(config, 4)
        simulator.step(simulator.default_actions())
        actions = {**simulator.default_actions(), "trainer_0": torch.full((4,), choice)}
        after.append(simulator.step(actions))
    assert torch.equal(after[0].rewards["trainer_0"], after[1].rewards["trainer_0"])
    assert torch.equal(after[0].observations["recall_0"], after[1].observations["recall_0"])


def test_the_simulator_says_when_the_trainer_acts():
    config = {**SMALL, "pipeline": {"components": TEAM, "trainer": {"every": 3}}}
    simulator = marec_env.make_vec(config, 4)
    steps = [simulator.reset(0)] + [simulator.step({}) for _ in range(3)]
    assert [bool(step.active["trainer_0"].all()) for step in steps] == [True, False, False, True]
    assert all("recall_0" not in step.active for step in steps)
