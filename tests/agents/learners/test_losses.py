import pytest
import torch
from torch import nn

from agents.learners.losses import (
    clipped_policy_loss,
    clipped_value_loss,
    explained_variance,
    weighted_mean,
)


def torchrl_losses(seed: int, value_norm: bool):
    """Return torchrl's MAPPOLoss, its data and its output, for two agents and four actions."""
    pytest.importorskip("torchrl")
    from tensordict import TensorDict
    from tensordict.nn import TensorDictModule
    from torchrl.modules import MultiAgentMLP, PopArtValueNorm, ProbabilisticActor
    from torchrl.objectives.multiagent import MAPPOLoss

    torch.manual_seed(seed)
    agents, size, actions, batch = 2, 5, 4, 32
    net = MultiAgentMLP(size, actions, agents, centralized=False, share_params=False, depth=1)
    actor = ProbabilisticActor(
        TensorDictModule(net, [("agents", "observation")], [("agents", "logits")]),
        in_keys=[("agents", "logits")],
        out_keys=[("agents", "action")],
        distribution_class=torch.distributions.Categorical,
        return_log_prob=True,
        log_prob_key=("agents", "action_log_prob"),
    )
    critic = TensorDictModule(
        MultiAgentMLP(size, 1, agents, centralized=True, share_params=True, depth=1),
        [("agents", "observation")],
        [("agents", "state_value")],
    )
    norm = PopArtValueNorm(shape=1) if value_norm else None
    loss = MAPPOLoss(
        actor, critic, clip_epsilon=0.2, entropy_coeff=0.01, critic_coeff=1.0,
        loss_critic_type="smooth_l1", normalize_advantage=False, value_norm=norm,
    )  # fmt: skip
    loss.set_keys(
        action=("agents", "action"), value=("agents", "state_value"),
        sample_log_prob=("agents", "action_log_prob"),
        advantage=("agents", "advantage"), value_target=("agents", "value_target"),
    )  # fmt: skip
    with torch.no_grad():
        data = TensorDict(
            {"agents": {"observation": torch.randn(batch, agents, size)}}, batch_size=[batch]
        )
        data = critic(actor(data))
    data["agents", "action_log_prob"] = (
        data["agents", "action_log_prob"] + 0.3 * torch.randn(batch, agents)
    ).detach()
    data["agents", "advantage"] = torch.randn(batch, agents, 1)
    data["agents", "value_target"] = torch.randn(batch, agents, 1)
    return loss, data, actor, critic


def test_policy_loss_and_entropy_agree_with_torchrl_mappo():
    from gymnasium import spaces

    from agents.learners.distributions import distribution_for

    loss, data, actor, _ = torchrl_losses(0, value_norm=False)
    theirs = loss(data.clone())
    with torch.no_grad():
        logits = actor[0](data.clone())["agents", "logits"]
    d = distribution_for(spaces.Discrete(4))
    log_p, entropy = d.evaluate(logits, data["agents", "action"].unsqueeze(-1).float())
    log_ratio = log_p - data["agents", "action_log_prob"]
    ours = clipped_policy_loss(
        log_ratio, data["agents", "advantage"].squeeze(-1), torch.ones_like(log_ratio), 0.2
    )
    assert float(ours) == pytest.approx(float(theirs["loss_objective"]), abs=1e-5)
    assert -0.01 * float(entropy.mean()) == pytest.approx(float(theirs["loss_entropy"]), abs=1e-5)


def test_value_loss_agrees_with_torchrl_mappo():
    loss, data, _, _ = torchrl_losses(1, value_norm=False)
    theirs = loss(data.clone())
    values = data["agents", "state_value"]
    targets = data["agents", "value_target"]
    ours = clipped_value_loss(values, values, targets, torch.ones_like(values), 1.0, None)
    assert float(ours) == pytest.approx(float(theirs["loss_critic"]), abs=1e-5)


def test_policy_loss_agrees_with_torchrl_clip_ppo_gradient():
    torch.manual_seed(0)
    log_ratio = (0.4 * torch.randn(200)).requires_grad_()
    advantages = torch.randn(200)
    clipped_policy_loss(log_ratio, advantages, torch.ones(200), 0.2).backward()
    ratio = log_ratio.detach().exp()
    silent = ((ratio > 1.2) & (advantages > 0)) | ((ratio < 0.8) & (advantages < 0))
    assert bool(silent.any())
    assert torch.equal(log_ratio.grad == 0, silent)
    torch.testing.assert_close(log_ratio.grad[~silent], -(advantages * ratio / 200)[~silent])


def test_value_loss_takes_the_worse_of_clipped_and_free():
    old, target, one = torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1, 1)
    value = torch.full((1, 1), 0.9, requires_grad=True)
    loss = clipped_value_loss(value, old, target, one, 10.0, 0.2)
    assert float(loss) == pytest.approx(0.5 * 0.8**2)
    loss.backward()
    assert value.grad.item() == 0.0


def test_huber_gradient_goes_on_beyond_rllibs_clamp():
    # RLlib clamps the squared error at 10, which leaves no gradient beyond 3.16.
    value = torch.zeros(1, 1, requires_grad=True)
    clipped_value_loss(
        value, torch.zeros(1, 1), torch.full((1, 1), 50.0), torch.ones(1, 1), 10.0, None
    ).backward()
    assert value.grad.item() == pytest.approx(-10.0)


def test_weight_zero_hides_even_nan():
    values = torch.tensor([1.0, float("nan"), 3.0])
    assert float(weighted_mean(values, torch.tensor([1.0, 0.0, 1.0]))) == 2.0
    assert float(weighted_mean(values, torch.zeros(3))) == 0.0


def test_explained_variance():
    targets, ones = torch.randn(50), torch.ones(50)
    assert float(explained_variance(targets, targets, ones)) == pytest.approx(1.0)
    assert float(explained_variance(torch.zeros(50), targets, ones)) == pytest.approx(0.0, abs=1e-5)
    assert float(explained_variance(-targets, targets, ones)) == pytest.approx(-3.0, abs=1e-4)


def test_masked_entries_give_no_gradient():
    net = nn.Linear(3, 1)
    x, adv = torch.randn(8, 3), torch.randn(8)
    weights = torch.tensor([1.0] * 4 + [0.0] * 4)

    def gradient(inputs, advantages):
        net.zero_grad()
        clipped_policy_loss(net(inputs).squeeze(-1) * 0.01, advantages, weights, 0.2).backward()
        return net.weight.grad.clone()

    changed_x, changed_adv = x.clone(), adv.clone()
    changed_x[4:], changed_adv[4:] = 77.0, -5.0
    assert torch.equal(gradient(x, adv), gradient(changed_x, changed_adv))
