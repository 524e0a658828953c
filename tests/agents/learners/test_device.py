"""Rollout and update off the CPU: nothing mixes devices or waits; on a GPU, the CPU's numbers."""

import copy
from dataclasses import fields, replace

import pytest
import torch

from agents.learners import collector as collector_module
from agents.learners.collector import Collector
from agents.learners.config import (
    HAPPOConfig,
    IPPOConfig,
    MAPPOConfig,
    NetworkConfig,
    SamplingConfig,
    VDNConfig,
)
from agents.learners.engines import local_engine
from agents.learners.team import TeamSpec
from agents.learners.trainer import Trainer
from tests.agents.learners.conftest import MixedTeam
from tests.games import two_step
from tests.marec_env.users.other_device import There, back, nothing_waits, other_device, to_there

RECURRENT = NetworkConfig(hidden=(8,), recurrent_units=4)
CONFIGS = [
    MAPPOConfig(minibatches=2, reward="own", decay_env_steps=4000),
    MAPPOConfig(box_distribution="squashed", critic_input="state_and_observation"),
    MAPPOConfig(actor=RECURRENT, critic=RECURRENT),
    IPPOConfig(normalise_values=False),
    HAPPOConfig(),
]
SAMPLING = SamplingConfig(num_sessions=8, rollout_length=10)


def move(module):
    """Put a module's tensors on the stand-in device."""
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                part._parameters[name] = torch.nn.Parameter(There(value.data))
        for name, value in part._buffers.items():
            part._buffers[name] = There(value)


class Elsewhere(MixedTeam):
    """The mixed team on the stand-in device."""

    def _result(self, rewards, ended):
        step = super()._result(rewards, ended)
        masks = {a: tuple(map(to_there, m)) for a, m in step.action_masks.items()}
        return replace(to_there(replace(step, action_masks={})), action_masks=masks)

    def act(self, actions):
        super().act({agent: back(action) for agent, action in actions.items()})


def columns_there(batch):
    return {name: {k: There(v) for k, v in columns.items()} for name, columns in batch.items()}


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_a_mini_batch_mixes_no_devices_and_waits_for_nothing(config, monkeypatch):
    engine = local_engine(config, SAMPLING, 0, MixedTeam)
    learner = engine.learner
    actors, critics = learner.prepare(engine.batch.sample()[0])
    batch = next(learner._epochs({**critics, **actors}, torch.Generator())).policy_batches
    expected, _ = learner._logged_step(copy.deepcopy(batch))
    stepped = []
    fresh = local_engine(config, SAMPLING, 0, MixedTeam).learner
    for name, module in fresh.module.items():
        move(module)
        fresh._trained[name] = list(module.parameters())
        monkeypatch.setattr(
            fresh.get_optimizer(name), "step", lambda name=name: stepped.append(name)
        )
    monkeypatch.setattr(fresh, "compute_gradients", lambda losses: gradients(fresh, losses))
    there = columns_there(batch)
    with other_device(), nothing_waits():
        logged, skips = fresh._logged_step(there)
    assert sorted(stepped) == sorted(batch)
    for name, value in logged.items():
        torch.testing.assert_close(back(value), expected[name], rtol=1e-4, atol=1e-6)
    assert all(float(back(flag)) == 0.0 for flag in skips.values())


def gradients(learner, losses):
    sum(losses.values()).backward()
    return {}


def test_a_rollout_stays_where_the_environment_is(monkeypatch):
    monkeypatch.setattr(
        collector_module._Tally, "means", lambda *args: {}
    )  # copied once at the end
    env = Elsewhere(6)
    team = TeamSpec.of(env)
    actors = {name: team.build_actor(MAPPOConfig(), name) for name in team.actors}
    for actor in actors.values():
        move(actor)
    with other_device():
        collector = Collector(env, team, [actors], [0], keep_next_observations=True)
        with nothing_waits():
            rollout = collector.collect(4)
    for columns in (rollout.team, *rollout.agents.values()):
        assert all(back(column).shape[:2] == (6, 4) for column in columns.values())


def test_actors_that_learn_elsewhere_are_copied_to_where_they_play():
    env = MixedTeam(4)
    team = TeamSpec.of(env)
    actors = {name: team.build_actor(MAPPOConfig(), name).to("meta") for name in team.actors}
    with pytest.raises(NotImplementedError, match="meta"):  # which holds no numbers to copy
        Collector(env, team, [actors], [0])
    actors = {name: team.build_actor(MAPPOConfig(), name) for name in team.actors}
    assert Collector(env, team, [actors], [0])._actors == [actors]


# On a GPU -----------------------------------------------------------------------------------


def cuda():
    return SAMPLING.model_copy(update={"device": "cuda"})


def teach(engines, batch, done):
    """Let each engine's learner learn from the same batch."""
    for engine in engines:
        engine.learner.update(
            batch=copy.deepcopy(batch),
            timesteps={"num_env_steps_sampled_lifetime": done},
            _no_metrics_reduce=True,
        )


def weights(engine):
    return {
        f"{name}/{key}": value.detach().cpu()
        for name, module in engine.learner.module.items()
        for key, value in module.unwrapped().state_dict().items()
    }


@pytest.mark.gpu
@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_updates_on_cuda_are_the_cpus(config):
    here, there = (local_engine(config, s, 0, MixedTeam) for s in (SAMPLING, cuda()))
    state = here.learner.training_state()
    there.learner.load_training_state(state)
    for done in (0, 80):
        batch = here.batch.sample()[0]
        teach((here, there), batch, done)
        here.batch.collector.sync()
        for name, value in here.learner.statistics.items():
            assert there.learner.statistics[name] == pytest.approx(value, rel=0.02, abs=1e-3), name
    ours, theirs = weights(here), weights(there)
    for key, value in ours.items():
        torch.testing.assert_close(theirs[key], value, rtol=0.02, atol=2e-3, msg=key)
    graphs = [g.graph for g in there.learner._captured._graphs.values()]
    assert there.learner._captured._works and any(graph is not None for graph in graphs)


@pytest.mark.gpu
@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_a_graph_takes_the_steps_that_torch_takes(config):
    captured, eager = (local_engine(config, cuda(), 0, MixedTeam) for _ in range(2))
    eager.learner.load_training_state(captured.learner.training_state())
    eager.learner._captured = None
    for done in (0, 80, 160):
        batch = captured.batch.sample()[0]
        teach((captured, eager), batch, done)
        captured.batch.collector.sync()
    for key, value in weights(eager).items():
        torch.testing.assert_close(weights(captured)[key], value, rtol=1e-3, atol=1e-5, msg=key)


@pytest.mark.gpu
def test_a_replayed_step_waits_for_nothing():
    engine = local_engine(MAPPOConfig(), cuda(), 0, MixedTeam)
    engine.iterate(0)
    learner = engine.learner
    actors, critics = learner.prepare(engine.batch.sample()[0])
    batch = next(learner._epochs({**critics, **actors}, torch.Generator())).policy_batches
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            learner._update(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


class OnCuda(MixedTeam):
    """The mixed team with its tensors on a GPU."""

    def _result(self, rewards, ended):
        return on_cuda(super()._result(rewards, ended))

    def act(self, actions):
        super().act({agent: action.cpu() for agent, action in actions.items()})


def on_cuda(step):
    return replace(
        step,
        **{
            part.name: collector_module.moved(getattr(step, part.name), torch.device("cuda"))
            for part in fields(step)
        },
    )


@pytest.mark.gpu
@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_a_rollout_by_graphs_is_the_cpus(config):
    """The learner does not learn, so that all steps but the first three are replayed."""
    here = local_engine(config, SAMPLING, 0, MixedTeam)
    there = local_engine(config, cuda(), 0, OnCuda)
    there.learner.load_training_state(here.learner.training_state())
    for _ in range(2):
        ours = here.batch.collector.collect(10)
        theirs = there.batch.collector.collect(10)
        for agent, columns in ours.agents.items():
            for key, column in columns.items():
                found = theirs.agents[agent][key]
                assert found.is_cuda
                torch.testing.assert_close(found.cpu(), column, rtol=1e-3, atol=1e-3, msg=key)
        assert theirs.metrics == pytest.approx(ours.metrics, rel=1e-3, abs=1e-3)
    graphs = there.batch.collector._chosen._graphs.values()
    assert there.batch.collector._chosen._works and all(graph.graph is not None for graph in graphs)


@pytest.mark.gpu
def test_a_gradient_that_is_not_finite_is_skipped_in_a_graph():
    engine = local_engine(MAPPOConfig(minibatches=4), cuda(), 0, MixedTeam)
    engine.iterate(0)
    batch = engine.batch.sample()[0]
    batch.policy_batches["a"]["log_probabilities"][0, 0] = float("nan")
    engine.learner.update(batch=batch, timesteps={}, _no_metrics_reduce=True)
    assert all(bool(torch.isfinite(v).all()) for v in weights(engine).values())
    assert engine.learner.statistics["skipped_updates/a"] == 10.0


@pytest.mark.gpu
@pytest.mark.parametrize("config", [*CONFIGS, VDNConfig()], ids=range(len(CONFIGS) + 1))
def test_checkpoints_go_from_device_to_device(config, tmp_path):
    make = two_step if isinstance(config, VDNConfig) else MixedTeam
    on_gpu = Trainer(config, cuda(), 0, make)
    on_gpu.iterate()
    on_gpu.save(tmp_path / "gpu")
    on_cpu = Trainer(config, SAMPLING, 0, make)
    on_cpu.restore(tmp_path / "gpu")
    on_cpu.iterate()
    on_cpu.save(tmp_path / "cpu")
    again = Trainer(config, cuda(), 0, make)
    again.restore(tmp_path / "cpu")
    again.iterate()
    assert again.env_steps == 240
    observations = make(3).reset(0).observations
    again.policy().act({agent: x.cuda() for agent, x in observations.items()})
