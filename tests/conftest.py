"""What holds for all tests."""

import os
import random
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium.utils import seeding
from hypothesis import settings
from matplotlib.figure import Figure

SAVEFIG = Figure.savefig
NP_RANDOM = seeding.np_random
LONG = ("long", "ray", "learning")
# Ray's workers are nice by 15 otherwise, and starve beside the tests of another process; and what
# Ray and W&B start has a minute or less to begin, which is not enough on a busy machine.
for name, value in {
    "RAY_worker_niceness": "0",
    "RAY_worker_register_timeout_seconds": "600",
    "WANDB__SERVICE_WAIT": "600",
}.items():
    os.environ.setdefault(name, value)
settings.register_profile("same", derandomize=True, deadline=None)  # the same examples every time
settings.load_profile("same")


def pytest_collection_modifyitems(items):
    """Begin with files that take a minute, so that no worker is left alone with one; skip tests
    marked gpu where there is none.
    """
    long = {item.path for item in items if any(map(item.get_closest_marker, LONG))}
    items.sort(key=lambda item: item.path not in long)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_runtest_protocol(item):
    """Draw the same numbers in every run of a test, whichever tests came before it, and leave
    figures blank but in tests marked so: those of a page take longer than a small run.
    """
    drawn = random.Random(item.nodeid)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries draw from it
    torch.manual_seed(0)
    seeding.np_random = lambda seed=None: NP_RANDOM(drawn.getrandbits(32) if seed is None else seed)
    if desk := sys.modules.get("agents.service.desk"):  # policies and draws follow from names
        desk.secrets = SimpleNamespace(token_hex=lambda size: drawn.randbytes(size).hex())
    Figure.savefig = SAVEFIG if item.get_closest_marker("figures") else blank


def blank(figure, out, **_):
    out.write('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"></svg>')
