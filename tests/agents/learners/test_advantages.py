import gymnasium
import numpy as np
import pytest
import torch

from agents.learners.losses import generalised_advantages, normalise_advantages

G, L = 0.9, 0.8


def gae(rewards, values, next_values, ended, terminated, active=None):
    rows = [torch.tensor([x], dtype=torch.float32) for x in (rewards, values, next_values)]
    flags = [torch.tensor([x]) for x in (ended, terminated)]
    act = None if active is None else torch.tensor([active])
    a, t = generalised_advantages(*rows, *flags, G, L, act)
    return a[0], t[0]


def test_closed_form_without_an_end():
    a, t = gae([1, 2], [3, 4], [4, 5], [False, False], [False, False])
    last = 2 + G * 5 - 4
    first = 1 + G * 4 - 3 + G * L * last
    torch.testing.assert_close(a, torch.tensor([first, last]))
    torch.testing.assert_close(t, torch.tensor([first + 3, last + 4]))


def test_truncation_bootstraps_and_termination_does_not():
    cut, _ = gae([1, 2], [3, 4], [50, 5], [True, False], [False, False])
    over, _ = gae([1, 2], [3, 4], [50, 5], [True, False], [True, False])
    assert float(cut[0]) == pytest.approx(1 + G * 50 - 3)
    assert float(over[0]) == pytest.approx(1 - 3)
    assert cut[1] == over[1]


def test_inactive_steps_are_bridged():
    # Decisions at steps 0 and 2; what is earned at step 1 belongs to the decision at step 0.
    a, _ = gae([1, 2, 4], [3, 99, 5], [0, 0, 6], [False] * 3, [False] * 3, [True, False, True])
    last = 4 + G * 6 - 5
    first = 1 + G * 2 + G * G * 5 - 3 + G * L * G * last
    torch.testing.assert_close(a, torch.tensor([first, 0.0, last]), atol=1e-5, rtol=0)


def test_agrees_with_stable_baselines3():
    buffers = pytest.importorskip("stable_baselines3.common.buffers")
    T, B = 12, 5
    rng = np.random.default_rng(1)
    box = gymnasium.spaces.Box(-1, 1, (1,))
    buffer = buffers.RolloutBuffer(T, box, box, gae_lambda=L, gamma=G, n_envs=B)
    starts = rng.random((T, B)) < 0.25
    rewards, values = rng.normal(size=(T, B)), rng.normal(size=(T, B))
    last_values, last_dones = rng.normal(size=B), rng.random(B) < 0.5
    for t in range(T):
        buffer.add(
            np.zeros((B, 1)), np.zeros((B, 1)), rewards[t], starts[t],
            torch.tensor(values[t]), torch.zeros(B),
        )  # fmt: skip
    buffer.compute_returns_and_advantage(torch.tensor(last_values), last_dones)
    ended = torch.tensor(np.vstack([starts[1:], last_dones[None]])).T
    next_values = torch.zeros(B, T)
    next_values[:, -1] = torch.tensor(last_values)
    ours, targets = generalised_advantages(
        torch.tensor(rewards.T, dtype=torch.float32),
        torch.tensor(values.T, dtype=torch.float32),
        next_values, ended, ended, G, L,
    )  # fmt: skip
    np.testing.assert_allclose(ours.T.numpy(), buffer.advantages, atol=1e-5)
    np.testing.assert_allclose(targets.T.numpy(), buffer.returns, atol=1e-5)


def test_normalisation_scopes():
    torch.manual_seed(0)
    raw = {"x": 3.0 * torch.randn(6, 4) + 5.0, "y": torch.randn(6, 4)}
    weights = {k: (torch.rand(6, 4) < 0.7).float() for k in raw}
    for agent, out in normalise_advantages(raw, weights, "agent").items():
        chosen = out[weights[agent] > 0]
        assert abs(float(chosen.mean())) < 1e-5
        assert float(chosen.std(unbiased=False)) == pytest.approx(1.0, abs=1e-3)
    team = normalise_advantages(raw, weights, "team")
    pooled = torch.cat([team[k][weights[k] > 0] for k in raw])
    assert abs(float(pooled.mean())) < 1e-5
    assert float(pooled.std(unbiased=False)) == pytest.approx(1.0, abs=1e-3)
    assert abs(float(team["x"][weights["x"] > 0].mean())) > 0.1
    assert normalise_advantages(raw, weights, "none") is raw


def test_entries_of_weight_zero_do_not_matter():
    raw = torch.randn(5, 3)
    weights = torch.ones(5, 3)
    weights[2] = 0.0
    other = raw.clone()
    other[2] = 1e6
    a = normalise_advantages({"x": raw}, {"x": weights}, "team")["x"]
    b = normalise_advantages({"x": other}, {"x": weights}, "team")["x"]
    keep = weights > 0
    torch.testing.assert_close(a[keep], b[keep])
