"""No objective can be raised by padding the slate, by showing nothing, or by repeating an item."""

import pytest
import torch

from marec_env.env import resolve
from marec_env.errors import ConfigError
from marec_env.pipeline.selection import top_k
from marec_env.simulator import Simulator
from marec_env.world import build_world

SMALL = {"embeddings": {"encoder": "hashing", "reduction": {"dimension": 8}}}
SESSIONS = 64
AGENTS = ("profile_0", "recall_0", "feature_0", "ranking_0")


@pytest.fixture(scope="module")
def simulator():
    return Simulator(build_world(resolve(SMALL)), SESSIONS, autoreset=False)


def answered(simulator, change_slate):
    """The hand-set pipeline's first request with its slate changed: objectives per agent."""
    simulator.begin(torch.arange(SESSIONS), 0)
    request = simulator.pipeline.begin(simulator.session_keys)
    simulator.pipeline.finish(request)
    request.slate = change_slate(simulator, request)
    metrics = simulator._played(request, request.slate).metrics
    return {agent: metrics[f"objective/{agent}"] for agent in AGENTS}


def as_ranked(simulator, request):
    return request.slate


def padded(simulator, request):
    """The lower half of the slate filled with the worst unseen items of the catalog."""
    worth = simulator.users.click_probability().masked_fill(simulator.pipeline.memory.seen, 2.0)
    slate = request.slate.clone()
    slate[:, 5:] = top_k(-worth, 5)
    return slate


@pytest.mark.parametrize("agent", AGENTS)
def test_padding_the_slate_with_poor_items_raises_no_objective(simulator, agent):
    plain, poor = answered(simulator, as_ranked)[agent], answered(simulator, padded)[agent]
    assert bool((poor <= plain + 1e-6).all())
    if agent == "ranking_0":
        assert float(poor.mean()) < float(plain.mean())


@pytest.mark.parametrize("agent", AGENTS)
def test_nothing_can_be_left_out_of_a_slate(simulator, agent):
    simulator.begin(torch.arange(SESSIONS), 0)
    unseen = top_k(simulator.pipeline.memory.seen.logical_not().float(), 10)
    for short in (unseen[:, :0], unseen[:, :9]):
        with pytest.raises(ConfigError, match="needed"):
            simulator.step_slate(short)
    blank = unseen.clone()
    blank[:, 3] = -1
    with pytest.raises(ConfigError, match="outside"):
        simulator.step_slate(blank)
    # Whatever the agent does, the pipeline shows a full slate.
    for extreme in ("low", "high"):
        simulator.begin(torch.arange(SESSIONS), 0)
        space = simulator.action_spaces[agent]
        if hasattr(space, "nvec"):
            value = torch.zeros(space.shape, dtype=torch.int64)
            value = value if extreme == "low" else torch.tensor(space.nvec - 1)
        else:
            value = torch.tensor(getattr(space, extreme))
        simulator.step({agent: value.expand(SESSIONS, -1)})
        slate = simulator.last.slate
        assert slate.shape == (SESSIONS, 10)
        assert bool((slate >= 0).all())


@pytest.mark.parametrize("agent", AGENTS)
def test_no_item_is_shown_twice_whatever_the_agent_does(simulator, agent):
    simulator.begin(torch.arange(SESSIONS), 0)
    history = simulator.pipeline.memory.history
    source = torch.Generator().manual_seed(0)
    space = simulator.action_spaces[agent]
    shown = [history]
    for _ in range(6):
        if hasattr(space, "nvec"):
            action = torch.randint(
                0, int(space.nvec[0]), (SESSIONS, *space.shape), generator=source
            )
        else:
            action = 2 * torch.rand(SESSIONS, *space.shape, generator=source) - 1
        simulator.step({agent: action})
        shown.append(simulator.last.slate)
    for row in torch.cat(shown, dim=1).tolist():
        items = [item for item in row if item >= 0]
        assert len(items) == len(set(items))


def test_repeating_an_item_is_refused_within_and_across_slates(simulator):
    simulator.begin(torch.arange(SESSIONS), 0)
    slate = top_k(simulator.pipeline.memory.seen.logical_not().float(), 10)
    twice = slate.clone()
    twice[:, 1] = twice[:, 0]
    with pytest.raises(ConfigError, match="twice"):
        simulator.step_slate(twice)
    simulator.step_slate(slate)
    with pytest.raises(ConfigError, match="seen"):
        simulator.step_slate(slate)
