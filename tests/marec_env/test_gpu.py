"""The simulator on a GPU against the CPU: draws bit for bit, slates and clicks, and one graph."""

from __future__ import annotations

import pytest
import torch

from marec_env import random
from marec_env.pipeline.selection import top_k
from marec_env.scenarios import SCENARIO_CHANGES
from marec_env.simulator import Simulator
from marec_env.world import build_world
from tests.marec_env.test_device_step import CASES, SESSIONS, actions, case

pytestmark = pytest.mark.gpu


def on(config, device: str) -> Simulator:
    return Simulator(build_world(config.model_copy(update={"device": device})), SESSIONS)


def moved(action, device):
    return tuple(p.to(device) for p in action) if isinstance(action, tuple) else action.to(device)


def play(simulator: Simulator, number: int):
    chosen = actions(simulator, number)
    for turn in simulator.turns:
        simulator.act({agent: moved(chosen[agent], simulator.device) for agent in turn})
    return simulator.advance()


def test_draws_have_the_same_bits():
    keys = random.session_keys(3, torch.arange(1000))
    here = random.bits(keys, keys % 7, "stream", 33)
    there = random.bits(keys.cuda(), (keys % 7).cuda(), "stream", 33)
    assert torch.equal(here, there.cpu())
    assert torch.equal(keys, random.session_keys(3, torch.arange(1000).cuda()).cpu())


@pytest.mark.parametrize(("rows", "width", "k"), [(1, 40, 40), (300, 1682, 100), (64, 5000, 450)])
def test_top_k_takes_the_same_columns(rows, width, k):
    drawn = torch.Generator().manual_seed(rows)
    scores = torch.randn(rows, width, generator=drawn)
    scores[:, ::3] = (10 * scores[:, ::3]).round() / 10  # ties, of both signs and of zero
    excluded = torch.rand(rows, width, generator=drawn) < 0.3
    for but in (None, excluded):
        there = top_k(scores.cuda(), k, excluded=None if but is None else but.cuda())
        assert torch.equal(top_k(scores, k, excluded=but), there.cpu())


@pytest.mark.parametrize("name", [*CASES, *SCENARIO_CHANGES])
def test_slates_and_clicks_are_those_of_the_cpu(name):
    here, there = on(case(name), "cpu"), on(case(name), "cuda")
    there._graph = None  # of a graph `last` is not the caller's own
    same = []
    for number in range(6):
        one, other = play(here, number), play(there, number)
        assert here.last is not None and there.last is not None
        equal = (here.last.slate == there.last.slate.cpu()).all(1)
        equal &= (here.last.feedback.clicks == there.last.feedback.clicks.cpu()).all(1)
        same.append(equal)
        if bool(torch.stack(same).all()):
            assert torch.allclose(one.state, other.state.cpu(), atol=1e-4), number
    assert torch.stack(same).float().mean() > 0.9


@pytest.mark.parametrize("name", [*CASES, *SCENARIO_CHANGES])
def test_a_graph_gives_what_the_step_gives(name):
    config = case(name)
    plain, graph = on(config, "cuda"), on(config, "cuda")
    plain._graph = None
    for number in range(9):
        one, other = play(plain, number), play(graph, number)
        for agent in plain.agents:
            close = torch.allclose(one.rewards[agent], other.rewards[agent], atol=1e-5)
            assert close, (number, agent)
        assert torch.allclose(one.state, other.state, atol=1e-4), number
    if len(graph.turns) == 1:
        assert graph._graph is not None
        assert graph._graph._kept is not None, "no step was recorded"


def test_a_state_continues_on_the_other_device():
    config = case("default")
    here, there = on(config, "cpu"), on(config, "cuda")
    for number in range(3):
        play(here, number)
    there.load_state_dict(here.state_dict())
    for number in range(3, 6):
        one, other = play(here, number), play(there, number)
        assert torch.allclose(one.state, other.state.cpu(), atol=1e-4), number


def test_a_step_waits_for_nothing():
    simulator = on(case("default"), "cuda")
    for number in range(3):
        play(simulator, number)
    chosen = {agent: action.cuda() for agent, action in actions(simulator, 3).items()}
    torch.cuda.set_sync_debug_mode("error")
    try:
        simulator.step(chosen)
        simulator._whole(simulator.pipeline.fit(chosen))
    finally:
        torch.cuda.set_sync_debug_mode("default")
