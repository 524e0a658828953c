"""A step recorded on the CPU gives what the step itself gives.

Compiling a whole step takes a minute, so that recorded steps are run operator by operator here,
which gives the same bits; a small step is compiled.
"""

from __future__ import annotations

import logging
import shutil

import numpy as np
import pytest
import torch

import marec_env
from marec_env import step_program
from marec_env.compiled import eager, recording
from marec_env.graph import StepGraph
from marec_env.pipeline.recall import CHANNELS
from marec_env.scenarios import SCENARIO_CHANGES
from marec_env.simulator import Simulator
from marec_env.step_program import CompiledTape
from marec_env.vector import VecStep
from marec_env.world import build_world
from tests.marec_env.test_device_step import CASES, case
from tests.worlds import small_environment

pytestmark = pytest.mark.long
AT_ONCE = [name for name in (*CASES, *SCENARIO_CHANGES) if name != "fixed messages"]


@pytest.fixture
def programs(monkeypatch):
    """Run what is recorded as it is, and count the recordings."""
    made = []

    def as_it_is(program, inputs):
        made.append(program)
        return lambda given: program(*given)

    monkeypatch.setattr(step_program, "_compiled", as_it_is)
    return made


def drawn(simulator: Simulator, seed: int) -> dict:
    found = {}
    for place, (agent, space) in enumerate(simulator.action_spaces.items()):
        space.seed(100 * seed + place)
        sample = space.sample()
        parts = sample if isinstance(sample, tuple) else (sample,)
        made = tuple(torch.as_tensor(np.asarray(part))[None] for part in parts)
        found[agent] = made if isinstance(sample, tuple) else made[0]
    return found


def numbers(simulator: Simulator, step: VecStep) -> dict[str, torch.Tensor]:
    last = simulator.last
    assert last is not None
    found = {"state": step.state, "slate": last.slate, "clicks": last.feedback.clicks}
    found |= {"chances": last.truth.probe_probability, "ended": step.terminated | step.truncated}
    for name in ("observations", "rewards", "metrics", "active"):
        found |= {f"{name} {key}": value for key, value in getattr(step, name).items()}
    return {key: value.clone() for key, value in found.items()}


class Counter:
    """A thing whose step changes what it holds, in place and not, and keeps part of its last."""

    def __init__(self):
        self.total, self.count, self.last = torch.zeros(3), torch.zeros(1), None

    def step(self, actions):
        self.total.add_(actions["one"].exp())
        self.count = self.count + 1
        kept = torch.stack([self.total, -self.total])
        self.last = kept[1]
        where = torch.zeros(1, dtype=torch.bool)
        return VecStep(
            {"one": kept[0] * self.count}, self.total * 2, {}, where, where, self.count, {}
        )


Counter.__module__ = "marec_env.counter"  # whose attributes a graph looks into


@pytest.mark.parametrize("name", AT_ONCE)
def test_a_recorded_step_is_the_step(name, programs):
    world, ends = build_world(case(name)), 0
    plain, recorded = (Simulator(world, 1, autoreset=False) for _ in range(2))
    recorded.compile()
    for simulator in (plain, recorded):
        simulator.begin(torch.tensor([0]), 7)
    for number in range(12):
        chosen = drawn(plain, number)
        one = numbers(plain, plain.step(chosen))
        other = numbers(recorded, recorded.step(chosen))
        for key, value in one.items():
            assert torch.equal(value, other[key]), (number, key)
        if one["ended"]:
            ends += 1
            for simulator in (plain, recorded):
                simulator.begin(torch.tensor([number]), 7)
    assert ends
    assert len(programs) == 1, "recorded more than once"


def test_a_saved_state_is_taken_up_and_what_episodes_came_to_is_of_them_alone(programs):
    world = build_world(case("short"))
    plain, recorded = (Simulator(world, 1, autoreset=False) for _ in range(2))
    recorded.compile()
    start = plain.state_dict()
    for _ in range(2):
        for simulator in (plain, recorded):
            simulator.load_state_dict(start)
        for number in range(2):
            chosen = drawn(plain, number)
            one, other = plain.step(chosen), recorded.step(chosen)
        assert one.truncated.item()
        assert one.episodes.keys() == other.episodes.keys()
        for name, value in one.episodes.items():
            assert torch.equal(value, other.episodes[name]), name
    assert len(programs) == 1


def test_the_view_plays_the_same_sessions(programs):
    config = small_environment(max_requests=4)
    plain = marec_env.parallel_env(config)
    recorded = marec_env.parallel_env(config, "ansi", compiled=True)
    for seed in (3, None):
        one, other = plain.reset(seed)[0], recorded.reset(seed)[0]
        while plain.agents:
            for agent, seen in one.items():
                assert np.array_equal(seen, other[agent]), agent
            chosen = {agent: plain.action_space(agent).sample() for agent in plain.agents}
            (one, *rest), (other, *others) = plain.step(chosen), recorded.step(chosen)
            assert rest == others
            assert np.array_equal(plain.state(), recorded.state())
            assert "leaves" in recorded.render() or "stays" in recorded.render()
        assert not recorded.agents
    assert len(programs) == 1


def test_what_is_made_by_other_means_is_not_recorded(programs, monkeypatch, caplog):
    popular = CHANNELS.get("popular")

    def by_numpy(request, length):
        return torch.from_numpy(popular(request, length).numpy().copy())

    monkeypatch.setitem(CHANNELS._entries, "popular", by_numpy)
    world = build_world(case("default"))
    plain, recorded = (Simulator(world, 1, autoreset=False) for _ in range(2))
    with caplog.at_level(logging.WARNING):
        recorded.compile()
    assert not programs
    assert caplog.text.count("not recorded as one call") == 1
    for simulator in (plain, recorded):
        simulator.begin(torch.tensor([0]), 7)
    for number in range(3):
        chosen = drawn(plain, number)
        assert torch.equal(plain.step(chosen).state, recorded.step(chosen).state), number


def test_without_a_compiler_a_step_runs_as_it_is(monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    counter = Counter()
    graph = StepGraph(counter, counter.step, CompiledTape, lasting=True)
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            graph({"one": torch.zeros(3)})
    assert counter.total.tolist() == [4.0] * 3
    assert caplog.text.count("there is no C++ compiler 'no-such-compiler'") == 1


def test_only_recording_takes_the_cpu_for_a_device_whose_numbers_are_not_seen():
    values = torch.ones(3)
    assert eager(values)
    with recording():
        assert not eager(values)
        with recording(False):
            assert eager(values)
    assert eager(values)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_a_small_step_is_compiled_once(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("MAREC_CACHE", str(tmp_path))
    plain, compiled = Counter(), Counter()
    graph = StepGraph(compiled, compiled.step, CompiledTape, lasting=True)
    for number in range(6):
        actions = {"one": torch.tensor([0.1, 0.2, -0.3]) * number}
        one, other = plain.step(actions), graph(actions)
        assert torch.allclose(one.observations["one"], other.observations["one"])
        assert torch.allclose(one.state, other.state)
        assert torch.equal(one.final_state, other.final_state)
        assert torch.allclose(plain.last, compiled.last)
        if number == 3:  # begins anew
            for counter in (plain, compiled):
                counter.total = torch.tensor([5.0, 6.0, 7.0])
            graph.forget()
    assert graph._kept is not None

    def refused(*_):
        raise RuntimeError("compiled again")

    monkeypatch.setattr(torch.export, "export", refused)
    (kept,) = (tmp_path / "compiled").glob("step-*.pt2")
    for damaged in (False, True):
        if damaged:
            kept.write_bytes(kept.read_bytes()[:100])
        again = Counter()
        graph = StepGraph(again, again.step, CompiledTape, lasting=True)
        for _ in range(3):
            graph({"one": torch.zeros(3)})
        assert (graph._kept is None) == ("compiled again" in caplog.text) == damaged
        assert again.total.tolist() == [3.0] * 3


@pytest.mark.parametrize("take", [bool, float, lambda value: value.tolist(), np.asarray])
def test_a_number_that_leaves_the_step_is_refused(take):
    class Peeking(Counter):
        def step(self, actions):
            take(actions["one"].sum())
            return super().step(actions)

    Peeking.__module__ = Counter.__module__
    peeking = Peeking()
    graph = StepGraph(peeking, peeking.step, CompiledTape, lasting=True)
    for _ in range(4):
        graph({"one": torch.ones(3)})
    assert graph._kept is None
    assert torch.allclose(peeking.total, torch.full((3,), 4 * 2.7182817))
    assert peeking.count.item() == 4
