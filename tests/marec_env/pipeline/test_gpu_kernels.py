"""Triton kernels against the CPU's loops: on a GPU, or interpreted (``TRITON_INTERPRET=1``)."""

from __future__ import annotations

import os

import pytest
import torch

from marec_env.pipeline import gpu_kernels, selection
from marec_env.pipeline.recall import quotas_of
from marec_env.pipeline.selection import _LARGEST, EXCLUDED, top_k

pytest.importorskip("triton")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [] if INTERPRETED else pytest.mark.gpu


@pytest.mark.parametrize("shape", [(1, 40, 40), (5, 300, 100), (3, 1682, 450), (4, 33, 1)])
def test_the_largest_are_those_of_the_cpu(shape):
    rows, width, k = shape
    drawn = torch.Generator().manual_seed(width)
    scores = torch.randn(rows, width, generator=drawn)
    scores[:, ::3] = (10 * scores[:, ::3]).round() / 10  # ties, of both signs
    scores[0, ::5], scores[0, 1::7] = 0.0, -0.0
    excluded = torch.rand(rows, width, generator=drawn) < 0.3
    for but in (excluded, None):
        if but is None:
            scores[:, 2], scores[:, 3] = torch.inf, -torch.inf
        there = None if but is None else but.to(DEVICE)
        found = gpu_kernels.largest(scores.to(DEVICE), there, k, EXCLUDED, _LARGEST)
        assert torch.equal(top_k(scores, k, excluded=but), found.cpu())


def test_the_merger_chooses_as_the_loop_does():
    sessions, items, total = 6, 400, 60
    drawn = torch.Generator().manual_seed(1)
    unavailable = torch.rand(sessions, items, generator=drawn) < 0.3
    offers = [
        torch.stack([torch.randperm(items, generator=drawn)[:length] for _ in range(sessions)])
        for length in (60, 200, 10, 150)
    ]
    offers[2][:, 3:] = -1
    fallback = torch.randperm(items, generator=drawn)
    quotas = quotas_of(torch.randint(0, 4, (sessions, 4), generator=drawn), total)
    loop = selection._LoopMerger(unavailable, total)
    kernel = gpu_kernels.KernelMerger(unavailable.to(DEVICE), total)
    here = selection._serve(loop, offers.__getitem__, quotas, fallback)
    there = selection._serve(
        kernel, lambda place: offers[place].to(DEVICE), quotas.to(DEVICE), fallback.to(DEVICE)
    )
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one, other.cpu())


def test_kernels_are_found_to_work():
    gpu_kernels._compile.cache_clear()
    assert gpu_kernels._compile(DEVICE)
