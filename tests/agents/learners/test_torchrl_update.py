"""A whole update against TorchRL: same batch, networks and settings, equal parameters after."""

import copy

import pytest
import torch

from agents.learners.config import MAPPOConfig, NetworkConfig, SamplingConfig
from agents.learners.engines import local_engine
from agents.learners.rl_modules import TEAM
from agents.pettingzoo_adapter import PettingZooConfig, make_pettingzoo

pytest.importorskip("mpe2")
pytest.importorskip("torchrl")

AGENTS, SIZE, ACTIONS = 3, 18, 5  # of simple_spread
EPOCHS = 3
SPREAD = PettingZooConfig(
    entry_point="mpe2.simple_spread_v3:parallel_env",
    kwargs={"max_cycles": 5},  # episodes end within the rollout, and it cuts the last ones
    state="observations",
)


@pytest.fixture(params=["tanh", "relu"])
def engine(request):
    """Return an engine of one actor an agent with the settings that TorchRL's loss knows."""
    network = NetworkConfig(hidden=(32, 32), activation=request.param, normalise_inputs=False)
    config = MAPPOConfig(
        actor=network, critic=network, epochs=EPOCHS, learning_rate=1e-3,
        critic_learning_rate=1e-3, normalise_values=False, value_clip=None, huber_delta=1.0,
        normalise_advantages="none", max_gradient_norm=1e6,
    )  # fmt: skip
    made = local_engine(
        config,
        SamplingConfig(num_sessions=6, rollout_length=12),
        0,
        lambda n: make_pettingzoo(SPREAD, n),
    )
    yield made
    made.close()


def layers(net):
    """Return weights and biases from the first layer to the head."""
    affine = [m for m in net.trunk.layers if isinstance(m, torch.nn.Linear)]
    return [(m.weight, m.bias) for m in [*affine, net.head]]


def torchrl_team(actors, critic, activation):
    """Return TorchRL's loss with the given networks' weights, its actor and its critic network."""
    from tensordict.nn import TensorDictModule
    from torchrl.modules import MultiAgentMLP, ProbabilisticActor
    from torchrl.objectives.multiagent import MAPPOLoss

    sizes = {"depth": 2, "num_cells": 32, "activation_class": activation}
    actor_net = MultiAgentMLP(SIZE, ACTIONS, AGENTS, centralized=False, share_params=False, **sizes)
    critic_net = MultiAgentMLP(SIZE, 1, AGENTS, centralized=True, share_params=True, **sizes)
    with torch.no_grad():
        for number, key in enumerate(("0", "2", "4")):
            for index, one in enumerate(actors):
                weight, bias = layers(one)[number]
                actor_net.params[key, "weight"][index] = weight
                actor_net.params[key, "bias"][index] = bias
            weight, bias = layers(critic)[number]
            critic_net.params[key, "weight"].copy_(weight)
            critic_net.params[key, "bias"].copy_(bias)
    observation = ("agents", "observation")
    actor = ProbabilisticActor(
        TensorDictModule(actor_net, [observation], [("agents", "logits")]),
        in_keys=[("agents", "logits")], out_keys=[("agents", "action")],
        distribution_class=torch.distributions.Categorical,
        return_log_prob=True, log_prob_key=("agents", "action_log_prob"),
    )  # fmt: skip
    value = TensorDictModule(critic_net, [observation], [("agents", "state_value")])
    loss = MAPPOLoss(
        actor, value, clip_epsilon=0.2, entropy_coeff=0.01, critic_coeff=1.0,
        normalize_advantage=False,
    )  # fmt: skip
    loss.set_keys(
        reward=("agents", "reward"), action=("agents", "action"),
        value=("agents", "state_value"), done=("agents", "done"),
        terminated=("agents", "terminated"), sample_log_prob=("agents", "action_log_prob"),
    )  # fmt: skip
    loss.make_value_estimator(gamma=0.99, lmbda=0.95)
    return loss


def torchrl_data(engine, batch):
    """Return a rollout as TorchRL's tensordict, every agent paid the team's mean."""
    from tensordict import TensorDict

    team, agents = batch.policy_batches[TEAM], engine.team.agents
    data = [batch.policy_batches[agent] for agent in agents]
    sessions, time = team["ended"].shape
    rewards = torch.stack([d["rewards"] for d in data]).mean(dim=0)

    def for_all(column):
        return column[:, :, None, None].expand(sessions, time, AGENTS, 1).clone()

    views = {"observation": team["state"].view(sessions, time, AGENTS, SIZE)}
    after = {"observation": team["next_state"].view(sessions, time, AGENTS, SIZE)}
    after["reward"] = for_all(rewards)
    after["done"], after["terminated"] = for_all(team["ended"]), for_all(team["terminated"])
    views["action"] = torch.stack([d["actions"].squeeze(-1) for d in data], dim=-1).long()
    views["action_log_prob"] = torch.stack([d["log_probabilities"] for d in data], dim=-1)
    return TensorDict({"agents": views, "next": {"agents": after}}, batch_size=[sessions, time])


def test_an_update_of_several_epochs_is_torchrls(engine):
    batch = engine.batch.sample()[0]
    ended = batch.policy_batches[TEAM]["ended"]
    assert bool(ended[:, :-1].any()) and not bool(ended[:, -1].any())
    module = engine.learner.module
    activation = type(module["critic"].net.trunk.layers[1])
    loss = torchrl_team(
        [module[agent].net for agent in engine.team.agents], module["critic"].net, activation
    )
    before = copy.deepcopy([layers(module[agent].net) for agent in engine.team.agents])
    data = torchrl_data(engine, batch)

    # Advantages.
    with torch.no_grad():
        loss.value_estimator(
            data, params=loss.critic_network_params,
            target_params=loss.target_critic_network_params,
        )  # fmt: skip
    actors, _ = engine.learner.prepare(batch)
    for index, agent in enumerate(engine.team.agents):
        torch.testing.assert_close(
            actors[agent]["advantages"], data["advantage"][:, :, index, 0].flatten(),
            atol=1e-5, rtol=1e-5,
        )  # fmt: skip

    # Parameters after the epochs.
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3, eps=1e-5)
    flat = data.reshape(-1)
    for _ in range(EPOCHS):
        parts = loss(flat)
        # TorchRL averages over agents too; separate actors get the gradient of a sum.
        policy = AGENTS * (parts["loss_objective"] + parts["loss_entropy"])
        optimizer.zero_grad(set_to_none=True)
        (policy + parts["loss_critic"]).backward()
        optimizer.step()
    engine.learner.update(batch=batch, timesteps={}, _no_metrics_reduce=True)
    theirs = loss.actor_network_params["module", "0", "module", "params"]
    critic = loss.critic_network_params["module", "params"]
    for number, key in enumerate(("0", "2", "4")):
        for index, agent in enumerate(engine.team.agents):
            weight, bias = layers(module[agent].net)[number]
            assert not torch.allclose(weight, before[index][number][0], atol=1e-4)
            torch.testing.assert_close(weight, theirs[key, "weight"][index], atol=1e-5, rtol=0)
            torch.testing.assert_close(bias, theirs[key, "bias"][index], atol=1e-5, rtol=0)
        weight, bias = layers(module["critic"].net)[number]
        torch.testing.assert_close(weight, critic[key, "weight"], atol=1e-5, rtol=0)
        torch.testing.assert_close(bias, critic[key, "bias"], atol=1e-5, rtol=0)
