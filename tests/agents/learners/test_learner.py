"""The learner on a team of unlike components: what moves, what must not, and what is logged."""

import copy

import pytest
import torch
from ray.rllib.policy.sample_batch import MultiAgentBatch

from agents.learners.algorithm import BatchedEnvRunner, rllib_config
from agents.learners.collector import Rollout
from agents.learners.config import (
    ComponentOverrides,
    HAPPOConfig,
    IPPOConfig,
    MAPPOConfig,
    NetworkConfig,
)
from agents.learners.engines import local_engine
from agents.learners.rl_modules import INPUTS, RolloutBatch
from marec_env.errors import RunError

ALL = [
    MAPPOConfig(),
    MAPPOConfig(reward="own"),
    MAPPOConfig(critic_input="state_and_observation"),
    IPPOConfig(),
    IPPOConfig(reward="team_mean"),
    HAPPOConfig(),
    MAPPOConfig(
        actor=NetworkConfig(hidden=(8,), recurrent_units=4),
        critic=NetworkConfig(hidden=(8,), recurrent_units=4),
        minibatches=2,
    ),
]


@pytest.fixture
def engine(mixed_team, small_sampling):
    made = []

    def make(config=MAPPOConfig(), seed=0):  # noqa: B008 - frozen
        made.append(local_engine(config, small_sampling, seed, mixed_team))
        return made[-1]

    yield make
    for one in made:
        one.close()


def parameters(engine, name):
    return [p.detach().clone() for p in engine.learner.module[name].parameters()]


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("config", ALL, ids=lambda c: f"{c.kind}-{c.critic_input}-{c.reward}")
def test_every_network_learns_and_is_logged(engine, config):
    e = engine(config)
    names = list(e.learner.module.keys())
    before = {n: parameters(e, n) for n in names}
    metrics = e.iterate(0)
    for name in names:
        assert not equal(before[name], parameters(e, name)), name
        assert metrics[f"gradient_norm/{name}"] > 0
    for actor in ("a", "b", "c"):
        for statistic in ("entropy", "kl", "ratio", "clip_fraction", "policy_loss"):
            assert f"{statistic}/{actor}" in metrics
    critics = [n for n in names if n.startswith("critic")]
    assert all(f"explained_variance/{c}" in metrics for c in critics)
    assert all(torch.isfinite(torch.tensor(v)) for v in metrics.values())
    # Before the next update's first step, new and old probabilities are equal.
    actors, _ = e.learner.prepare(e.batch.sample()[0])
    for name, columns in actors.items():
        ratio = e.learner._ratio(name, columns)
        torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=1e-5)


def test_critics_are_not_on_the_runner(engine, mixed_team, small_sampling):
    e = engine()
    config = rllib_config(MAPPOConfig(), small_sampling, e.team, mixed_team, 0)
    runner = BatchedEnvRunner(config=config, worker_index=0)
    assert set(runner.module.keys()) == {"a", "b", "c"}
    assert set(e.learner.module.keys()) == {"a", "b", "c", "critic"}


def test_networks_and_optimisers_are_separate(engine):
    learner = engine().learner
    owners = {}
    for name, optimizer in learner._named_optimizers.items():
        for group in optimizer.param_groups:
            assert group["eps"] == 1e-5
            for param in group["params"]:
                assert id(param) not in owners
                owners[id(param)] = name
    assert len(learner._named_optimizers) == 4


def test_the_critics_gradient_leaves_actors_untouched(engine):
    e = engine()
    _, critics = e.learner.prepare(e.batch.sample()[0])
    before = {n: parameters(e, n) for n in ("a", "b", "c")}
    for batch in e.learner._epochs(critics, torch.Generator()):
        e.learner._update(batch.policy_batches)
    assert all(equal(before[n], parameters(e, n)) for n in before)


def test_joint_ratio_multiplies_sub_actions(engine):
    e = engine()
    actors, _ = e.learner.prepare(e.batch.sample()[0])
    columns = actors["b"]
    logits = e.learner.module["b"]._forward(columns)[INPUTS]
    masked = torch.where(columns["masks"], logits, -1e9)
    first = torch.log_softmax(masked[:, :3], -1).gather(1, columns["actions"][:, :1].long())
    second = torch.log_softmax(masked[:, 3:], -1).gather(1, columns["actions"][:, 1:].long())
    torch.testing.assert_close((first + second).squeeze(-1), columns["log_probabilities"])


def corrupt_inactive(batch: RolloutBatch) -> RolloutBatch:
    """Return a copy in which everything that agent c did while inactive is different."""
    changed = copy.deepcopy(batch)
    columns = changed.policy_batches["c"]
    idle = ~columns["active"]
    assert bool(idle.any())
    columns["observations"][idle] = 55.0
    columns["actions"][idle] = 3.0
    columns["log_probabilities"][idle] = -40.0
    return changed


@pytest.mark.parametrize("config", [MAPPOConfig(), HAPPOConfig(), IPPOConfig()])
def test_data_under_a_mask_change_nothing(engine, config):
    engines = [engine(config), engine(config)]
    batch = engines[0].batch.sample()[0]
    results = []
    for e, data in zip(engines, (batch, corrupt_inactive(batch)), strict=True):
        # Recorded observations under the mask must not move input statistics either.
        e.learner.update(batch=data, timesteps={}, _no_metrics_reduce=True)
        results.append({n: parameters(e, n) for n in e.learner.module.keys()})  # noqa: SIM118
    assert all(equal(results[0][n], results[1][n]) for n in results[0])


def test_session_agent_and_step_stay_together(engine):
    """Advantages that name (session, agent, step) reach the rows whose observations do."""
    e = engine(MAPPOConfig(minibatches=3, normalise_advantages="none",
                           actor=NetworkConfig(normalise_inputs=False)))  # fmt: skip
    batch = e.batch.sample()[0]
    sessions, length = 8, 10
    code = {}
    for number, agent in enumerate(("a", "b", "c")):
        steps = torch.arange(length, dtype=torch.float32).expand(sessions, length)
        rows = torch.arange(sessions, dtype=torch.float32).unsqueeze(-1)
        code[agent] = rows * 1e4 + number * 1e2 + steps
        batch.policy_batches[agent]["log_probabilities"] = code[agent]
    actors, _ = e.learner.prepare(batch)
    seen = set()
    for mini in e.learner._epochs(actors, torch.Generator().manual_seed(0)):
        for columns in mini.policy_batches.values():
            ids = columns["observations"]
            expected = ids[:, 0] * 1e4 + ids[:, 1] * 1e2 + ids[:, 2]
            torch.testing.assert_close(columns["log_probabilities"], expected)
            seen.update(expected.tolist())
    assert len(seen) == sessions * 3 * length


def test_shared_actor_keeps_agents_apart():
    from agents.learners.config import SamplingConfig
    from tests.games import two_step

    config = MAPPOConfig(share_parameters=True)
    e = local_engine(config, SamplingConfig(num_sessions=4, rollout_length=3), 0, two_step)
    batch = e.batch.sample()[0]
    batch.policy_batches["player_0"]["log_probabilities"] = torch.full((4, 3), 7.0)
    batch.policy_batches["player_1"]["log_probabilities"] = torch.full((4, 3), 9.0)
    actors, _ = e.learner.prepare(batch)
    (columns,) = actors.values()
    assert columns["agent_id"][columns["log_probabilities"] == 7.0].unique(dim=0).tolist() == [
        [1.0, 0.0]
    ]
    assert columns["agent_id"][columns["log_probabilities"] == 9.0].unique(dim=0).tolist() == [
        [0.0, 1.0]
    ]
    e.close()


def single(batch: RolloutBatch, agent: str) -> RolloutBatch:
    team = dict(batch.policy_batches["__team__"])
    return RolloutBatch(Rollout(team, {agent: dict(batch.policy_batches[agent])}))


def test_happo_with_one_agent_is_ppo(small_sampling):
    from tests.games import MatrixGame

    def game(n):
        return MatrixGame(torch.tensor([[0.0, 1.0, 0.5]]), n)

    results = []
    for config in (MAPPOConfig(), HAPPOConfig()):
        e = local_engine(config, small_sampling, 0, game)
        for _ in range(3):
            e.iterate(0)
        results.append(parameters(e, "player_0") + parameters(e, "critic"))
    assert equal(*results)


def test_happo_factors_start_at_one_and_multiply(engine):
    e = engine(HAPPOConfig(epochs=3, learning_rate=0.05))
    actors, critics = e.learner.prepare(e.batch.sample()[0])
    raw = {name: columns["advantages"].clone() for name, columns in actors.items()}
    expected, order = torch.ones_like(raw["a"]), []
    for batch in e.learner._sequential(actors, critics, torch.Generator().manual_seed(1)):
        (name,) = batch.policy_batches if len(batch.policy_batches) == 1 else ("critic",)
        if name != "critic" and name not in order:
            if order:
                expected = expected * e.learner._ratio(order[-1], actors[order[-1]])
            order.append(name)
            torch.testing.assert_close(
                batch.policy_batches[name]["advantages"], raw[name] * expected
            )
        e.learner._update(batch.policy_batches)
    assert sorted(order) == ["a", "b", "c"]
    assert float((expected - 1.0).abs().max()) > 1e-3


def test_advantages_need_denormalised_values(small_sampling):
    """With rewards far from zero, raw critic outputs in the advantage would be far off."""
    from tests.games import MatrixGame

    config = MAPPOConfig(normalise_advantages="none")
    e = local_engine(
        config, small_sampling, 0, lambda n: MatrixGame(torch.tensor([[100.0, 101.0, 100.5]]), n)
    )
    for _ in range(30):
        e.iterate(0)
    batch = e.batch.sample()[0]
    with_it = e.learner.prepare(batch)[0]["player_0"]["advantages"].abs().mean()
    e.learner.module["critic"].denormalise = lambda values: values
    without = e.learner.prepare(batch)[0]["player_0"]["advantages"].abs().mean()
    assert float(with_it) < 1.0 and float(without) > 50.0


def test_value_normalisation_raises_explained_variance(engine):
    def final(normalise):
        e = engine(MAPPOConfig(normalise_values=normalise, value_clip=None))
        for _ in range(15):
            batch = e.batch.sample()[0]
            for agent in ("a", "b", "c"):
                # Value depends on the session, at a scale far from one.
                columns = batch.policy_batches[agent]
                columns["rewards"] = 1000.0 * columns["observations"][..., 0].clone()
            e.learner.update(batch=batch, timesteps={}, _no_metrics_reduce=True)
        return e.learner.statistics["explained_variance/critic"]

    assert final(True) > final(False) + 0.2


def test_a_frozen_component_acts_but_does_not_learn(engine):
    e = engine(MAPPOConfig(components={"b": ComponentOverrides(frozen=True)}))
    before = parameters(e, "b"), parameters(e, "a")
    e.iterate(0)
    assert equal(before[0], parameters(e, "b")) and not equal(before[1], parameters(e, "a"))


def test_overrides_reach_the_component(engine):
    wide = NetworkConfig(hidden=(7,))
    e = engine(MAPPOConfig(components={"a": ComponentOverrides(actor=wide, learning_rate=0.1)}))
    e.iterate(0)
    rates = {n: o.param_groups[0]["lr"] for n, o in e.learner._named_optimizers.items()}
    assert sorted(rates.values()) == [5e-4, 5e-4, 5e-4, 0.1]
    assert e.actors()["a"].trunk.size == 7 and e.actors()["b"].trunk.size == 64


def test_rates_and_bonus_decay_to_zero(engine):
    e = engine(MAPPOConfig(decay_env_steps=160))
    e.iterate(0)
    assert {o.param_groups[0]["lr"] for o in e.learner._named_optimizers.values()} == {2.5e-4}
    before = parameters(e, "a")
    e.iterate(80)
    assert equal(before, parameters(e, "a"))


def test_target_kl_stops_the_actor_not_the_critic(engine):
    def passes(limit):
        e = engine(MAPPOConfig(learning_rate=0.05, target_kl=limit))
        actors, critics = e.learner.prepare(e.batch.sample()[0])
        counts = {}
        for batch in e.learner._epochs({**critics, **actors}, torch.Generator()):
            for name in batch.policy_batches:
                counts[name] = counts.get(name, 0) + 1
            e.learner._update(batch.policy_batches)
        return counts

    assert set(passes(None).values()) == {10}
    limited = passes(1e-4)
    assert limited["critic"] == 10 and limited["a"] < 10


def test_a_gradient_that_is_not_finite_is_skipped_and_said(engine):
    e = engine(MAPPOConfig(minibatches=4))
    batch = e.batch.sample()[0]
    batch.policy_batches["a"]["log_probabilities"][0, 0] = float("nan")
    e.learner.update(batch=batch, timesteps={}, _no_metrics_reduce=True)
    assert all(bool(torch.isfinite(p).all()) for p in parameters(e, "a"))
    assert e.learner.statistics["skipped_updates/a"] == 10.0
    assert len(e.learner._sums) == 0


@pytest.mark.parametrize(
    ("changes", "name", "key"),
    [
        ({"learning_rate": 1e30, "epochs": 1}, "a", "learning_rate"),
        ({"learning_rate": 1e30, "box_distribution": "squashed"}, "a", "learning_rate"),
        ({"critic_learning_rate": 1e30}, "critic", "critic_learning_rate"),
        ({"components": {"c": ComponentOverrides(learning_rate=1e30)}}, "c", "learning_rate"),
    ],
)
def test_divergence_names_the_update_the_network_and_the_cure(engine, changes, name, key):
    with pytest.raises(RunError) as found:
        engine(MAPPOConfig(**changes)).iterate(1000)
    assert str(found.value) == (
        f"training diverged: the update at env step 1,080 made the network '{name}' give numbers"
        f" that are not finite; try a smaller algorithm.{key} (of this network 1e+30) or rewards"
        " nearer to 1"
    )


@pytest.mark.parametrize(
    ("agent", "column", "blamed"),
    [
        ("b", "rewards", "'critic' nothing.*data's targets"),
        ("b", "observations", "'b' nothing.*data's observations"),
        ("__team__", "state", "'critic' nothing.*data's inputs"),
        ("c", "log_probabilities", "'c' nothing.*data's log_probabilities"),
    ],
)
def test_data_that_are_not_finite_are_not_blamed_on_the_learner(engine, agent, column, blamed):
    e = engine()
    batch = e.batch.sample()[0]
    batch.policy_batches[agent][column][0, 0] = float("nan")
    with pytest.raises(RunError, match=blamed):
        e.learner.update(batch=batch, timesteps={}, _no_metrics_reduce=True)


def test_other_batches_are_refused(engine):
    with pytest.raises(ValueError, match="RolloutBatch"):
        engine().learner.update(batch=MultiAgentBatch({}, 0), timesteps={})


def test_global_generators_are_left_alone(mixed_team, small_sampling):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    local_engine(MAPPOConfig(), small_sampling, 0, mixed_team).iterate(0)
    assert torch.equal(torch.rand(1), expected)


def test_sequential_updates_depend_on_their_seed_alone(engine):
    """Draws of orders come from the run's own generator, not from a global one."""
    ends = []
    for state in (1, 2):
        e = engine(HAPPOConfig(minibatches=2))
        torch.manual_seed(state)
        e.iterate(0)
        ends.append([parameters(e, name) for name in e.learner.module.keys()])  # noqa: SIM118
    assert all(equal(one, other) for one, other in zip(*ends, strict=True))
