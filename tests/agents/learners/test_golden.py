"""Numbers of the learner by hand or by another way of computing them, with distinct inputs."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch

from agents.learners.config import IPPOConfig, MAPPOConfig
from agents.learners.losses import (
    CriticPlan,
    clipped_policy_loss,
    clipped_value_loss,
    evaluate_critic,
    explained_variance,
    generalised_advantages,
    normalise_advantages,
    weighted_mean,
)
from agents.learners.networks import ValueNormaliser

BETA = 0.9


def t(*values):
    return torch.tensor(values, dtype=torch.float32)


# Losses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "weights", "mean"),
    [((1, 2, 4, 8), (1, 0, 1, 1), 13 / 3), ((3,), (1,), 3), ((4,), (0.5,), 2), ((5,), (0,), 0)],
)
def test_weighted_mean(values, weights, mean):
    assert float(weighted_mean(t(*values), t(*weights))) == pytest.approx(mean)


def test_policy_loss():
    ratio = t(0.5, 0.5, 1.5, 1.5, 1.1, 9.0)
    advantages = t(2.0, -3.0, 5.0, -7.0, 11.0, 100.0)
    kept = (0.5 * 2, 0.75 * -3, 1.25 * 5, 1.5 * -7, 1.1 * 11)
    loss = clipped_policy_loss(ratio.log(), advantages, t(1, 1, 1, 1, 1, 0), 0.25)
    assert float(loss) == pytest.approx(-sum(kept) / 5, rel=1e-5)


def test_value_loss():
    # Columns: near (free), moved too far towards the target, too far away from it, linear part.
    values, old = t(1.1, 2.9, -0.9, 9.0), t(1.0, 2.0, 0.0, 8.9)
    targets = t(1.5, 4.0, 1.0, 3.0)

    def huber(error):
        error = abs(error)
        return error**2 / 2 if error <= 1.5 else 1.5 * (error - 0.75)

    free = [huber(v) for v in (0.4, 1.1, 1.9, 6.0)]
    loss = clipped_value_loss(values, old, targets, torch.ones(4), 1.5, None)
    assert float(loss) == pytest.approx(sum(free) / 4, rel=1e-5)
    clipped = [free[0], huber(1.7), free[2], free[3]]
    loss = clipped_value_loss(values, old, targets, t(1, 1, 1, 0), 1.5, 0.3)
    assert float(loss) == pytest.approx(sum(clipped[:3]) / 3, rel=1e-5)


def test_explained_variance():
    targets, predictions = t(1, 3, 5, 7, 99), t(2, 3, 7, 6, -50)
    # Errors -1, 0, -2, 1 about their mean -.5: 5/4; targets about theirs: 5.
    found = explained_variance(predictions, targets, t(1, 1, 1, 1, 0))
    assert float(found) == pytest.approx(1 - 1.25 / 5)
    assert float(explained_variance(t(1, 2), t(4, 4), torch.ones(2))) == 0.0
    small = 1e-5 * targets[:4]
    found = explained_variance(1e-5 * predictions[:4], small, torch.ones(4))
    assert float(found) == pytest.approx(1 - 1.25 / 5, rel=1e-3)


# Advantages ---------------------------------------------------------------------------------


def by_decisions(rewards, values, after, ended, terminated, gamma, lam, active):
    """Return the advantages of one session, decision by decision instead of step by step."""
    length = len(rewards)
    result, first = [0.0] * length, 0
    for last in range(length):
        if not (ended[last] or last == length - 1):
            continue
        beyond = 0.0 if terminated[last] else after[last]
        coming, following = last + 1, 0.0
        for now in reversed([k for k in range(first, last + 1) if active[k]]):
            paid = sum(gamma ** (k - now) * rewards[k] for k in range(now, coming))
            future = beyond if coming > last else values[coming]
            lead = gamma ** (coming - now)
            following = paid + lead * future - values[now] + lam * lead * following
            result[now], coming = following, now
        first = last + 1
    return result


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_advantages_are_those_of_each_decision(share):
    torch.manual_seed(3)
    shape = (6, 9, 2)
    rewards, values, after = (torch.randn(shape) + k for k in range(3))
    ended = torch.rand(shape) < 0.3
    terminated = ended & (torch.rand(shape) < 0.5)
    active = torch.rand(shape) < share
    given = None if share == 1.0 else active
    advantages, targets = generalised_advantages(
        rewards, values, after, ended, terminated, 0.9, 0.7, given
    )
    for b in range(shape[0]):
        for h in range(shape[2]):
            columns = (x[b, :, h].tolist() for x in (rewards, values, after, ended, terminated))
            expected = by_decisions(*columns, 0.9, 0.7, active[b, :, h].tolist())
            torch.testing.assert_close(advantages[b, :, h], t(*expected), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(targets, advantages + values)
    assert advantages.dtype == torch.float32


def test_normalised_advantages():
    raw = {"x": t(1, 3, 50).unsqueeze(0), "y": t(5, 11, 7).unsqueeze(0)}
    weights = {"x": t(1, 1, 0).unsqueeze(0), "y": t(1, 1, 0).unsqueeze(0)}
    own = normalise_advantages(raw, weights, "agent")
    torch.testing.assert_close(own["x"][0, :2], t(-1, 1), rtol=0, atol=3e-5)
    torch.testing.assert_close(own["y"][0, :2], t(-1, 1), rtol=0, atol=3e-5)
    team = normalise_advantages(raw, weights, "team")
    std = math.sqrt((16 + 4 + 0 + 36) / 4)
    torch.testing.assert_close(team["x"][0, :2], t(-4 / std, -2 / std), rtol=1e-5, atol=0)
    torch.testing.assert_close(team["y"][0, :2], t(0.0, 6 / std), rtol=1e-5, atol=1e-7)
    constant = normalise_advantages({"x": t(4, 4)}, {"x": t(1, 1)}, "team")["x"]
    assert constant.tolist() == [0.0, 0.0]
    for unit in (1e-12, 1e-5, 1e5):
        tiny = normalise_advantages({"x": t(2 * unit, 4 * unit)}, {"x": t(1, 1)}, "agent")["x"]
        torch.testing.assert_close(tiny, t(-1, 1), rtol=1e-4, atol=0)
    rounded = normalise_advantages({"x": t(4, 4 + 4e-7)}, {"x": t(1, 1)}, "team")["x"]
    assert float(rounded.abs().max()) < 0.02  # the floor is 1e-5 of the root mean square
    nobody = normalise_advantages({"x": t(4, 6)}, {"x": t(0, 0)}, "agent")["x"]
    assert bool(torch.isfinite(nobody).all())


# Value normalisation ------------------------------------------------------------------------


def test_value_averages_are_debiased_and_exponential():
    norm = ValueNormaliser(2)
    norm.update(t(1, 10, 5, 90).view(2, 2), t(1, 1, 1, 0).view(2, 2))
    mean, std = norm.statistics()
    torch.testing.assert_close(mean, t(3, 10))
    torch.testing.assert_close(std, t(2, 0.01))  # at least a thousandth of the root mean square
    assert norm.weight.tolist() == pytest.approx([1 - BETA] * 2)
    factor, offset = norm.update(t(7, 20).view(1, 2), t(1, 1).view(1, 2))
    assert norm.weight.tolist() == pytest.approx([1 - BETA**2] * 2)
    old, new = (1 - BETA) * BETA, 1 - BETA
    former, (mean, std) = (t(3, 10), t(2, 0.01)), norm.statistics()
    expected = t(3 * old + 7 * new, 10 * old + 20 * new) / (old + new)
    torch.testing.assert_close(mean, expected)
    square = t(13 * old + 49 * new, 100 * old + 400 * new) / (old + new)
    torch.testing.assert_close(std, (square - expected**2).sqrt(), rtol=1e-4, atol=0)
    torch.testing.assert_close(factor, former[1] / std)
    torch.testing.assert_close(offset, (former[0] - mean) / std)
    probe = t(4.0, -2.0)
    torch.testing.assert_close(norm.normalise(probe), (probe - mean) / std)
    torch.testing.assert_close(norm.denormalise(probe), probe * std + mean)


# Critics ------------------------------------------------------------------------------------


class LinearCritic:
    """``heads`` weighted sums of the halved inputs, after an optional memory that adds up."""

    def __init__(self, weights, memory_size=0):
        self.weights, self.memory_size = weights, memory_size
        self.trunk = SimpleNamespace(normalise=lambda inputs: inputs / 2)

    def __call__(self, inputs, memory=None, starts=None):
        if starts is not None:
            return self._sequence(inputs, starts, memory)
        outputs = inputs @ self.weights
        if memory is None:
            return outputs, None
        return outputs + memory, memory + inputs[:, : self.memory_size]

    def _sequence(self, inputs, starts, memory):
        outputs, memories = [], []
        for k in range(inputs.shape[1]):
            memory = memory * (~starts[:, k, None]).float()
            output, memory = self(inputs[:, k], memory)
            outputs.append(output)
            memories.append(memory)
        return torch.stack(outputs, 1), torch.stack(memories, 1)


def critic(net, mean=5.0, std=3.0):
    return SimpleNamespace(
        net=net,
        value_norm=None,
        normalise=lambda values: (values - mean) / std,
        denormalise=lambda values: values * std + mean,
    )


@pytest.fixture
def rollout():
    """Two agents, three sessions, four steps; every number of its own."""
    torch.manual_seed(11)
    B, T = 3, 4
    ended = torch.tensor([[0, 1, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0]]).bool()
    team = {
        "state": torch.randn(B, T, 2),
        "next_state": torch.randn(B, T, 2),
        "ended": ended,
        "terminated": ended & torch.tensor([[1], [0], [1]]).bool(),
        "starts": torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]]).bool(),
    }
    data = {}
    for number, agent in enumerate(("x", "y")):
        own = torch.rand(B, T) < 0.3
        data[agent] = {
            "rewards": torch.randn(B, T) + number,
            "active": torch.rand(B, T) < 0.7,
            "terminated": own,
            "ended": own | ended,
            "observations": torch.randn(B, T, 3),
            "next_observations": torch.randn(B, T, 3),
        }
    return team, data


def expected_advantages(values, after, rewards, ended, terminated, active, config):
    rows = []
    for b in range(values.shape[0]):
        columns = (x[b].tolist() for x in (rewards, values, after, ended, terminated))
        rows.append(by_decisions(*columns, config.gamma, config.gae_lambda, active[b].tolist()))
    return t(*rows)


def of(net, inputs, mean=5.0, std=3.0):
    return (inputs / 2 @ net.weights) * std + mean


@pytest.mark.parametrize("reward", ["team_mean", "team_sum"])
def test_the_teams_critic(rollout, reward):
    team, data = rollout
    net = LinearCritic(t(2.0, -1.0).view(2, 1))
    config = MAPPOConfig(reward=reward, gamma=0.9, gae_lambda=0.8)
    plan = CriticPlan(("x", "y"), "state", 1, 2)
    found = evaluate_critic(critic(net), plan, config, team, data, None)
    paid = data["x"]["rewards"] + data["y"]["rewards"]
    paid = paid / 2 if reward == "team_mean" else paid
    active = data["x"]["active"] | data["y"]["active"]
    values = of(net, team["state"])[..., 0]
    after = of(net, team["next_state"])[..., 0]
    expected = expected_advantages(
        values, after, paid, team["ended"], team["terminated"], active, config
    )
    for agent in ("x", "y"):
        torch.testing.assert_close(found.advantages[agent], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.old_values[..., 0], (values - 5) / 3)
    torch.testing.assert_close(found.targets[..., 0], expected + values, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.weights[..., 0], active.float())
    assert torch.equal(found.raw_inputs, team["state"])
    assert torch.equal(found.inputs, team["state"] / 2)
    explained = explained_variance(values, expected + values, active.float())
    assert float(found.explained_variance) == pytest.approx(float(explained), rel=1e-3)
    assert found.last_memory is None
    columns = found.columns(critic(net), sequences=False)
    assert set(columns) == {"inputs", "old_values", "targets", "weights"}
    assert torch.equal(columns["inputs"], found.inputs.flatten(0, 1))
    torch.testing.assert_close(columns["targets"], (found.targets.flatten(0, 1) - 5) / 3)
    assert torch.equal(columns["old_values"], found.old_values.flatten(0, 1))
    assert torch.equal(columns["weights"], found.weights.flatten(0, 1))
    sequences = found.columns(critic(net), sequences=True)
    assert torch.equal(sequences["starts"], team["starts"])
    assert sequences["memory"].shape == (3, 0) and sequences["inputs"].shape == (3, 4, 2)


def test_value_statistics_move_with_the_targets_before_they_scale_them(rollout):
    team, data = rollout
    net = LinearCritic(t(2.0, -1.0).view(2, 1))
    module = critic(net)
    plan = CriticPlan(("x", "y"), "state", 1, 2)
    found = evaluate_critic(module, plan, MAPPOConfig(), team, data, None)
    module.value_norm = ValueNormaliser()
    module.value_norm.update(found.targets * 3 + 1, found.weights)
    module.normalise = module.value_norm.normalise
    net.rescale = lambda *how: moved.append(how)
    moved, fresh = [], copy.deepcopy(module.value_norm)
    factor, offset = fresh.update(found.targets, found.weights)
    expected = fresh.normalise(found.targets).flatten(0, 1)
    columns = found.columns(module, sequences=False)
    assert torch.equal(columns["targets"], expected)
    # What the critic says is moved along, and what it said before.
    assert moved == [(factor, offset)] and not torch.equal(factor, torch.ones(1))
    assert torch.equal(columns["old_values"], (found.old_values * factor + offset).flatten(0, 1))


def test_the_teams_critic_with_own_rewards(rollout):
    team, data = rollout
    net = LinearCritic(torch.randn(2, 2))
    config = MAPPOConfig(reward="own", gamma=0.9, gae_lambda=0.8)
    plan = CriticPlan(("x", "y"), "state", 2, 2)
    found = evaluate_critic(critic(net), plan, config, team, data, None)
    # A head's value after a step is needed where any agent ended and at the last step.
    ends = data["x"]["ended"] | data["y"]["ended"]
    assert bool(ends.any())
    for head, agent in enumerate(("x", "y")):
        own = data[agent]
        values, after = of(net, team["state"])[..., head], of(net, team["next_state"])[..., head]
        expected = expected_advantages(
            values, after, own["rewards"], own["ended"], own["terminated"], own["active"], config
        )
        torch.testing.assert_close(found.advantages[agent], expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(found.weights[..., head], own["active"].float())


@pytest.mark.parametrize("source", ["observation", "state_and_observation"])
@pytest.mark.parametrize("reward", ["own", "team_sum"])
def test_critics_of_observations(rollout, source, reward):
    team, data = rollout
    net = LinearCritic(torch.randn(3 if source == "observation" else 5, 1))
    config = IPPOConfig(reward=reward, gamma=0.9, gae_lambda=0.8)
    plan = CriticPlan(("x", "y"), source, 1, net.weights.shape[0])
    found = evaluate_critic(critic(net), plan, config, team, data, None)
    paid = data["x"]["rewards"] + data["y"]["rewards"]
    for number, agent in enumerate(("x", "y")):
        own = data[agent]
        before, beyond = own["observations"], own["next_observations"]
        if source == "state_and_observation":
            before = torch.cat([team["state"], before], -1)
            beyond = torch.cat([team["next_state"], beyond], -1)
        ends = own if reward == "own" else team
        values = of(net, before)[..., 0]
        expected = expected_advantages(
            values, of(net, beyond)[..., 0], own["rewards"] if reward == "own" else paid,
            ends["ended"], ends["terminated"], own["active"], config,
        )  # fmt: skip
        torch.testing.assert_close(found.advantages[agent], expected, rtol=1e-4, atol=1e-4)
        rows = slice(3 * number, 3 * number + 3)
        torch.testing.assert_close(found.raw_inputs[rows], before)
        torch.testing.assert_close(found.weights[rows, :, 0], own["active"].float())
        torch.testing.assert_close(
            found.targets[rows, :, 0], expected + values, rtol=1e-4, atol=1e-4
        )
        assert torch.equal(found.starts[rows], team["starts"])


def test_a_critic_with_memory(rollout):
    team, data = rollout
    net = LinearCritic(t(2.0, -1.0).view(2, 1), memory_size=1)
    config = MAPPOConfig(gamma=0.9, gae_lambda=0.8)
    plan = CriticPlan(("x", "y"), "state", 1, 2)
    memory = t(3.0, 5.0, 7.0).view(3, 1)
    kept = evaluate_critic(critic(net), plan, config, team, data, memory)
    values, memories = net(team["state"] / 2, memory, team["starts"])
    torch.testing.assert_close(kept.old_values, values)
    after = team["next_state"] / 2 @ net.weights + memories
    active = data["x"]["active"] | data["y"]["active"]
    expected = expected_advantages(
        (values * 3 + 5)[..., 0], (after * 3 + 5)[..., 0],
        (data["x"]["rewards"] + data["y"]["rewards"]) / 2,
        team["ended"], team["terminated"], active, config,
    )  # fmt: skip
    torch.testing.assert_close(kept.advantages["x"], expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(kept.memory, memory)
    alive = (~team["ended"][:, -1]).float().unsqueeze(-1)
    torch.testing.assert_close(kept.last_memory, memories[:, -1] * alive)
    assert kept.last_memory[1] == 0.0 and kept.last_memory[0] != 0.0
    for lost in (None, torch.ones(2, 1)):  # none kept, or of another number of sessions
        new = evaluate_critic(critic(net), plan, config, team, data, lost)
        fresh, _ = net(team["state"] / 2, torch.zeros(3, 1), team["starts"])
        torch.testing.assert_close(new.old_values, fresh)
