"""A planted world: eight tastes, each with its own items; a user likes items of one taste."""

from types import SimpleNamespace

import pytest
import torch

from agents.baselines.scoring import TrainingLog
from marec_env.evaluation.policies import recommender_view
from marec_env.random import session_keys

TASTES, ITEMS_PER_TASTE, USERS, LIKES, K = 8, 20, 240, 12, 5
ITEMS = TASTES * ITEMS_PER_TASTE


def _log():
    generator = torch.Generator().manual_seed(0)
    users, items = [], []
    for user in range(USERS):
        # Ten likes of the own taste, two of any: the first items of a taste are the popular ones.
        weight = 1.0 / torch.arange(1, ITEMS_PER_TASTE + 1)
        own = torch.multinomial(weight, LIKES - 2, generator=generator)
        other = torch.randint(ITEMS, (2,), generator=generator)
        liked = torch.cat([(user % TASTES) * ITEMS_PER_TASTE + own, other]).unique()
        order = torch.randperm(liked.numel(), generator=generator)
        users.append(torch.full((liked.numel(),), user))
        items.append(liked[order])
    return TrainingLog(torch.cat(users), torch.cat(items), USERS, ITEMS)


def _simulator(history, liked=None, clicks=None, shown=None):
    """Return what policies read of a simulator; everything known counts as seen."""
    sessions = history.shape[0]
    shown = torch.full((sessions, 2), -1) if shown is None else shown
    clicks = torch.zeros(shown.shape) if clicks is None else clicks
    seen = torch.zeros(sessions, ITEMS + 1, dtype=torch.bool)
    for known in (history, shown):
        seen.scatter_(1, torch.where(known >= 0, known, ITEMS), True)
    memory = SimpleNamespace(
        history=history,
        history_liked=history >= 0 if liked is None else liked,
        session_items=shown.unsqueeze(1),
        session_clicks=clicks.unsqueeze(1),
        seen=seen[:, :-1],
        requests=torch.ones(sessions, dtype=torch.int64),
    )
    simulator = SimpleNamespace(
        pipeline=SimpleNamespace(memory=memory),
        config=SimpleNamespace(pipeline=SimpleNamespace(slate_size=K)),
        session_keys=session_keys(5, torch.arange(sessions)),
    )
    simulator.view = recommender_view(simulator)
    return simulator


@pytest.fixture(scope="session")
def planted():
    """Sizes, the log, and ``simulator(history, ...)`` (importlib mode has no shared module)."""
    return SimpleNamespace(
        tastes=TASTES, per_taste=ITEMS_PER_TASTE, items=ITEMS, k=K, log=_log(), simulator=_simulator
    )


@pytest.fixture
def sessions():
    """Two sessions of each taste, each knowing three items of it, at different lengths."""
    history = torch.full((2 * TASTES, 4), -1)
    for row in range(2 * TASTES):
        history[row, 1:] = (row % TASTES) * ITEMS_PER_TASTE + torch.tensor([2, 5, 7])
    history[0, 1] = -1
    return _simulator(history)
