"""What holds for all tests."""

import pytest
import torch


def pytest_collection_modifyitems(items):
    """Skip tests marked gpu where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
