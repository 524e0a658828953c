"""What holds for all tests."""

import os

import pytest
import torch
from matplotlib.figure import Figure

SAVEFIG = Figure.savefig
# Ray's workers are nice by 15 otherwise, and starve beside the tests of another process.
os.environ.setdefault("RAY_worker_niceness", "0")


def pytest_collection_modifyitems(items):
    """Skip tests marked gpu where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_runtest_protocol(item):
    """Leave figures blank but in tests marked so: those of a page take longer than a small run."""
    Figure.savefig = SAVEFIG if item.get_closest_marker("figures") else blank


def blank(figure, out, **_):
    out.write('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"></svg>')
