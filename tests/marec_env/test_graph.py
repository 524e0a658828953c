"""A step recorded and replayed gives what the step itself gives; no GPU is needed to see it.

A stand-in records operations as a CUDA graph records kernels: at fixed tensors, and Python's own
work only once.
"""

from __future__ import annotations

import gc
import logging
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from marec_env.graph import StepGraph, capturing, own_copy
from marec_env.scenarios import SCENARIO_CHANGES
from tests.marec_env.test_device_step import CASES, actions, case, elsewhere, there
from tests.marec_env.users.other_device import There, nothing_waits, other_device, tensors_of


class Tape(TorchDispatchMode):
    """Operations in the order in which they ran, with their tensors."""

    def __init__(self):
        super().__init__()
        self.calls, self._before, self._made = [], {}, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for value in tensors_of((args, (*(kwargs or {}).values(),))):
            if isinstance(value, There):
                place = value.held.untyped_storage().data_ptr()
                if place not in self._made | self._before.keys():
                    held = value.held.untyped_storage()
                    self._before[place] = (held, held.clone())
        found = func(*args, **(kwargs or {}))
        for value in tensors_of(found):
            if isinstance(value, There):
                place = value.held.untyped_storage().data_ptr()
                if place not in self._before:
                    self._made.add(place)
        self.calls.append((func, args, kwargs or {}, found))
        return found

    def record(self, work):
        with self, nothing_waits():
            found = work()
        for held, before in self._before.values():  # nothing has happened yet
            held.copy_(before)
        return found

    def replay(self):
        for func, args, kwargs, old in self.calls:
            new = func(*args, **kwargs)
            for one, other in zip(tensors_of(old), tensors_of(new), strict=True):
                if isinstance(one, There) and one is not other:
                    same = one.held.untyped_storage().data_ptr()
                    if same != other.held.untyped_storage().data_ptr():
                        one.held.copy_(other.held)


def numbers(step):
    found = {"state": step.state, "final": step.final_state, "terminated": step.terminated}
    for name in ("observations", "rewards", "metrics", "final_observations", "episodes", "active"):
        found |= {f"{name} {key}": value for key, value in getattr(step, name).items()}
    return {key: value.held.clone() for key, value in found.items()}


pytestmark = pytest.mark.long
AT_ONCE = [name for name in (*CASES, *SCENARIO_CHANGES) if name != "fixed messages"]


@pytest.mark.parametrize("name", AT_ONCE)
def test_a_replayed_step_is_the_step(name):
    with other_device():
        plain, graph = elsewhere(case(name)), elsewhere(case(name))
        graph._graph = StepGraph(graph, graph._whole, Tape)
        for simulator in (plain, graph):
            simulator.reset(7)
        kept = []
        for number in range(9):
            chosen = {a: there(value) for a, value in actions(plain, number).items()}
            one, other = plain.step(chosen), graph.step(chosen)
            kept.append((numbers(one), other))
        assert graph._graph._kept is not None, "no step was recorded"
        for number, (one, step) in enumerate(kept):
            for key, value in numbers(step).items():
                assert torch.equal(value, one[key]), (number, key)
        for simulator in (plain, graph):
            simulator.reset(8)
        chosen = {a: there(value) for a, value in actions(plain, 0).items()}
        assert torch.equal(plain.step(chosen).state.held, graph.step(chosen).state.held)


def test_what_cannot_be_recorded_runs_as_it_is(caplog):
    class Broken(Tape):
        def record(self, work):
            super().record(work)
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    with other_device(), caplog.at_level(logging.WARNING):
        plain, graph = elsewhere(case("default")), elsewhere(case("default"))
        graph._graph = StepGraph(graph, graph._whole, Broken)
        for number in range(5):
            chosen = {a: there(value) for a, value in actions(plain, number).items()}
            one, other = plain.step(chosen), graph.step(chosen)
            assert torch.equal(one.state.held, other.state.held), number
    assert caplog.text.count("not permitted when stream is capturing") == 1


@pytest.mark.parametrize(
    ("turns", "own", "why"),
    [(1, False, None), (4, False, "agents take turns"), (1, True, "plug-ins of your own")],
)
def test_what_is_not_recorded_on_cuda_is_said_once(turns, own, why, caplog):
    simulator = SimpleNamespace(
        device=torch.device("cuda"), turns=[()] * turns, own_plug_ins=["x"] * own
    )
    with caplog.at_level(logging.WARNING):
        graph = StepGraph.of(simulator, lambda actions: None)
    assert (graph is None) == (why is not None) == (len(caplog.messages) == 1)
    assert why is None or why in caplog.text


def test_an_agent_that_acts_late_or_not_at_all_still_counts():
    with other_device():
        plain, graph = elsewhere(case("default")), elsewhere(case("default"))
        graph._graph = StepGraph(graph, graph._whole, Tape)
        for number in range(6):
            chosen = {a: there(value) for a, value in actions(plain, number).items()}
            if number % 2:
                del chosen["recall_0"]
            one, other = plain.step(chosen), graph.step(chosen)
            assert torch.equal(one.state.held, other.state.held), number


def test_copies_are_nested_alike_of_their_own_and_shared_alike():
    shared = torch.tensor([1.5, 2.5])
    value = {"a": shared, "b": {"c": (shared, torch.tensor([3, 4])), "d": torch.tensor([True])}}
    found = own_copy(value)
    assert found["a"] is found["b"]["c"][0] is not shared
    assert found["a"].tolist() == [1.5, 2.5]
    assert found["b"]["c"][1].tolist() == [3, 4]
    assert found["b"]["d"].tolist() == [True]
    shared.zero_()
    assert found["a"].tolist() == [1.5, 2.5]


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_collected_while_a_graph_is_captured(monkeypatch, fails):
    """A collection that ends another graph is a fault of the capture to CUDA."""
    seen = []

    @contextmanager
    def cuda_graph(graph, stream=None):
        seen.append((graph, stream, gc.isenabled()))
        yield

    monkeypatch.setattr(torch.cuda, "graph", cuda_graph)
    assert gc.isenabled()
    with suppress(ValueError), capturing("graph", "stream"):
        if fails:
            raise ValueError
    assert seen == [("graph", "stream", False)]
    assert gc.isenabled()
    gc.disable()
    try:
        with capturing("graph"):
            pass
        assert not gc.isenabled(), "who has it off keeps it off"
    finally:
        gc.enable()
