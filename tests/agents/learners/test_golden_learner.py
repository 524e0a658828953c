"""What the learner computes and logs in one update, with inputs of distinct values."""

import copy

import pytest
import torch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from agents.learners.config import (
    ComponentOverrides,
    HAPPOConfig,
    MAPPOConfig,
    NetworkConfig,
    SamplingConfig,
)
from agents.learners.engines import local_engine
from agents.learners.losses import clipped_policy_loss, clipped_value_loss
from agents.learners.rl_modules import INPUTS, VALUES
from tests.agents.learners.conftest import MixedTeam

SAMPLING = SamplingConfig(num_sessions=8, rollout_length=10)
CONFIG = MAPPOConfig(
    learning_rate=0.01,
    critic_learning_rate=0.02,
    entropy_coefficient=0.3,
    clip=0.15,
    huber_delta=0.6,
    value_clip=0.1,
    max_gradient_norm=0.05,
    decay_env_steps=1000,
    minibatches=3,
    epochs=2,
    components={
        "b": ComponentOverrides(learning_rate=0.03, entropy_coefficient=0.7, clip=0.25),
        "c": ComponentOverrides(entropy_coefficient=0.0),
    },
)


@pytest.fixture(scope="module")
def engine():
    made = local_engine(CONFIG, SAMPLING, 5, MixedTeam)
    yield made
    made.close()


@pytest.fixture
def learner(engine):
    learner = engine.learner
    learner._sums = {}
    learner._decay = 1.0
    return learner


@pytest.fixture(scope="module")
def rollout(engine):
    return engine.batch.sample()[0]


def at(learner, env_steps):
    learner.before_gradient_based_update(timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: env_steps})


@pytest.mark.parametrize(("env_steps", "left"), [(0, 1.0), (250, 0.75), (900, 0.1), (2000, 0.0)])
def test_rates_decay(learner, env_steps, left):
    at(learner, env_steps)
    rates = {n: o.param_groups[0]["lr"] for n, o in learner._named_optimizers.items()}
    of = {name.split("_")[0]: rate for name, rate in rates.items()}
    expected = {"a": 0.01, "b": 0.03, "c": 0.01, "critic": 0.02}
    assert of == pytest.approx({name: rate * left for name, rate in expected.items()})


def data(learner, name, rows=5):
    """Return columns whose old probabilities, advantages and weights differ from row to row."""
    net = learner.module[name].net
    torch.manual_seed(rows)
    columns = {
        "observations": torch.randn(rows, net.trunk.num_inputs),
        "advantages": torch.tensor([2.0, -3.0, 0.5, -0.25, 100.0]),
        "weights": torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]),
    }
    inputs = learner.module[name]._forward(columns)[INPUTS].detach()
    distribution = net.distribution
    quantiles = torch.rand(rows, distribution.num_uniforms) * 0.8 + 0.1
    columns["actions"] = distribution.sample(inputs, quantiles)
    log_p, entropy = distribution.evaluate(inputs, columns["actions"])
    log_ratio = torch.tensor([0.4, 0.35, -0.3, -0.05, float("nan")])
    columns["log_probabilities"] = log_p - log_ratio
    return columns, inputs, log_ratio, entropy


@pytest.mark.parametrize(
    ("name", "clip", "bonus"), [("a", 0.15, 0.3), ("b", 0.25, 0.7), ("c", 0.15, 0.0)]
)
@pytest.mark.parametrize("env_steps", [0, 600])
def test_actors_loss_and_what_is_logged(learner, name, clip, bonus, env_steps):
    at(learner, env_steps)
    columns, inputs, log_ratio, entropy = data(learner, name)
    loss = learner.compute_loss_for_module(
        module_id=name, config=None, batch=columns, fwd_out={INPUTS: inputs}
    )
    four, ratio = slice(0, 4), log_ratio[:4].exp()
    policy = clipped_policy_loss(log_ratio[four], columns["advantages"][four], torch.ones(4), clip)
    mean_entropy = float(entropy[four].mean())
    left = 1 - env_steps / 1000
    assert float(loss) == pytest.approx(float(policy) - bonus * left * mean_entropy, rel=1e-4)
    logged = {key: float(value[0]) for key, value in learner._sums.items()}
    assert logged == pytest.approx(
        {
            f"policy_loss/{name}": float(policy),
            f"entropy/{name}": mean_entropy,
            f"kl/{name}": float((ratio - 1 - log_ratio[four]).mean()),
            f"ratio/{name}": float(ratio.mean()),
            f"clip_fraction/{name}": 0.75,  # ratios 1.49, 1.42, .74, .95
        },
        rel=1e-4,
    )


def test_critics_loss(learner):
    torch.manual_seed(1)
    columns = {k: torch.randn(6, 1) for k in ("old_values", "targets")}
    columns["weights"] = torch.tensor([1.0, 1, 0, 1, 1, 1]).unsqueeze(-1)
    values = torch.randn(6, 1)
    loss = learner.compute_loss_for_module(
        module_id="critic", config=None, batch=columns, fwd_out={VALUES: values}
    )
    expected = clipped_value_loss(
        values, columns["old_values"], columns["targets"], columns["weights"], 0.6, 0.1
    )
    assert torch.equal(loss, expected)
    assert learner._sums == {"value_loss/critic": [expected]}


def test_gradients_are_clipped_to_each_networks_norm(learner):
    learner._updating = ["a", "critic"]
    grads = {}
    for scale, name in enumerate(("a", "b", "critic"), start=1):
        for parameter in learner.module[name].parameters():
            parameter.grad = torch.full_like(parameter, float(scale))
            grads[parameter] = parameter.grad.clone()
    learner.postprocess_gradients({})
    for scale, name in ((1, "a"), (3, "critic")):
        parameters = list(learner.module[name].parameters())
        norm = scale * sum(p.numel() for p in parameters) ** 0.5
        assert float(learner._sums[f"gradient_norm/{name}"][0]) == pytest.approx(norm, rel=1e-4)
        for p in parameters:
            torch.testing.assert_close(p.grad, grads[p] * 0.05 / norm, rtol=1e-3, atol=0)
    assert all(torch.equal(p.grad, grads[p]) for p in learner.module["b"].parameters())
    assert "skipped_updates/a" not in learner._sums


def test_statistics_are_means_over_the_passes(learner):
    learner._data, learner._fresh_inputs = {}, {"a": torch.tensor([[1.0, 2, 3, 4], [3, 4, 5, 6]])}
    normaliser = learner.module["a"].net.trunk.normaliser
    before = float(normaliser.count)
    learner._sums = {"kl/a": [torch.tensor(1.0), torch.tensor(4.0)], "kl/b": [torch.tensor(7.0)]}
    learner.after_gradient_based_update(timesteps={})
    assert learner.statistics["kl/a"] == 2.5 and learner.statistics["kl/b"] == 7.0
    assert float(normaliser.count) == before + 2 and learner._fresh_inputs == {}


def test_training_data_of_actors(learner, rollout):
    actors, critics = learner.prepare(rollout)
    assert list(actors) == ["a", "b", "c"] and list(critics) == ["critic"]
    for name, columns in actors.items():
        source = rollout.policy_batches[name]
        net = learner.module[name].net
        assert set(columns) - {"masks"} == {
            "observations", "actions", "log_probabilities", "advantages", "weights",
        }  # fmt: skip
        assert ("masks" in columns) == (name == "b")
        flat = source["observations"].flatten(0, 1)
        torch.testing.assert_close(columns["observations"], net.trunk.normalise(flat))
        assert torch.equal(columns["actions"], source["actions"].flatten(0, 1))
        assert torch.equal(columns["weights"], source["active"].flatten().float())
        assert torch.equal(columns["log_probabilities"], source["log_probabilities"].flatten())
        assert torch.equal(learner._fresh_inputs[name], flat[columns["weights"] > 0])
    counted = torch.cat([c["advantages"][c["weights"] > 0] for c in actors.values()])
    assert abs(float(counted.mean())) < 1e-5
    assert float(counted.std(unbiased=False)) == pytest.approx(1.0, abs=1e-3)
    state = rollout.policy_batches["__team__"]["state"].flatten(0, 1)
    assert torch.equal(learner._fresh_inputs["critic"], state)


def test_every_pass_visits_each_row_once_in_another_order(learner):
    columns = {"weights": torch.ones(10), "id": torch.arange(10)}
    batches = list(learner._epochs({"a": columns, "b": columns}, torch.Generator().manual_seed(4)))
    assert len(batches) == 2 * 3
    generator = torch.Generator().manual_seed(4)
    for epoch in range(2):
        orders = {name: torch.randperm(10, generator=generator).chunk(3) for name in ("a", "b")}
        for part in range(3):
            batch = batches[3 * epoch + part]
            assert batch.env_steps() == 1
            for name, order in orders.items():
                assert torch.equal(batch.policy_batches[name]["id"], order[part])


def test_draws_of_an_update_are_keyed_by_seed_and_number(learner, rollout):
    def first(number):
        learner._weights_seq_no = number
        batches = learner._create_iterator_if_necessary(
            training_data=type("Data", (), {"batch": rollout})
        )
        return next(batches).policy_batches["a"]["observations"]

    generator = torch.Generator().manual_seed(5 * 1_000_003 + 2)
    torch.randperm(80, generator=generator)  # the critic's order comes first
    order = torch.randperm(80, generator=generator).chunk(3)[0]
    found = first(2)
    assert torch.equal(found, learner._data["a"]["observations"][order])
    assert not torch.equal(found, first(3))
    learner._weights_seq_no = 0


def test_stopped_actors_rest_until_the_next_update(learner, rollout):
    columns, inputs, _, _ = data(learner, "a")
    learner.algorithm = CONFIG.model_copy(update={"target_kl": 0.03})
    for factor, stopped in ((0.5, set()), (1.0, {"a"})):
        moved = columns | {
            "log_probabilities": columns["log_probabilities"]
            + (1 - factor) * torch.tensor([0.4, 0.35, -0.3, -0.05, 0.0])
        }
        learner._stopped = set()
        learner.compute_loss_for_module(
            module_id="a", config=None, batch=moved, fwd_out={INPUTS: inputs}
        )
        assert learner._stopped == stopped
    names = [list(b.policy_batches) for b in learner._epochs({"a": columns, "b": columns}, None)]
    assert names == [["b"]] * 6
    learner.algorithm = CONFIG
    learner._create_iterator_if_necessary(training_data=type("Data", (), {"batch": rollout}))
    assert learner._stopped == set()


def test_happos_order_and_factors(rollout):
    engine = local_engine(HAPPOConfig(epochs=1), SAMPLING, 5, MixedTeam)
    learner = engine.learner
    actors, critics = learner.prepare(rollout)
    seen = [
        next(iter(batch.policy_batches))
        for batch in learner._sequential(actors, critics, torch.Generator().manual_seed(2))
    ]
    assert seen[0] == "critic" and sorted(seen[1:]) == ["a", "b", "c"]
    orders = set()
    for seed in range(12):
        batches = learner._sequential(actors, {}, torch.Generator().manual_seed(seed))
        orders.add(tuple(next(iter(batch.policy_batches)) for batch in batches))
    assert len(orders) > 3
    log_ratio = torch.full_like(actors["c"]["log_probabilities"], 0.7)
    moved = actors["c"] | {"log_probabilities": actors["c"]["log_probabilities"] - log_ratio}
    # The actor has not moved: its ratio is that by which the old probabilities were changed.
    ratio = learner._ratio("c", moved) / learner._ratio("c", actors["c"])
    expected = torch.where(actors["c"]["weights"] > 0, log_ratio.exp(), 1.0)
    torch.testing.assert_close(ratio, expected, rtol=1e-4, atol=0)
    assert bool((expected == 1.0).any())
    engine.close()


def test_a_state_continues_and_memories_are_kept(rollout):
    recurrent = NetworkConfig(hidden=(4,), recurrent_units=3)
    config = MAPPOConfig(actor=recurrent, critic=recurrent)
    one, other = (local_engine(config, SAMPLING, seed, MixedTeam) for seed in (0, 1))
    batch = one.batch.sample()[0]
    actors, critics = one.learner.prepare(batch)
    assert float(critics["critic"]["memory"].abs().max()) == 0.0
    assert torch.equal(actors["a"]["starts"], batch.policy_batches["__team__"]["starts"])
    assert actors["a"]["memory"].shape == (8, 3) and actors["a"]["actions"].shape[:2] == (8, 10)
    memory = one.learner._memories["critic"]
    assert float(memory.abs().max()) > 0.0
    assert torch.equal(one.learner.prepare(batch)[1]["critic"]["memory"], memory)
    one.iterate(0)
    other.learner.load_training_state(copy.deepcopy(one.learner.training_state()))
    assert other.learner.training_state()["updates"] == 1
    for e in (one, other):
        e.learner.update(batch=batch, timesteps={}, _no_metrics_reduce=True)
    for name, module in one.learner.module.items():
        twin = other.learner.module[name].state_dict()
        assert all(torch.equal(value, twin[key]) for key, value in module.state_dict().items())
    one.close()
    other.close()
