"""What a component says of its decision in words: which of its numbers is the largest, and which
the smallest. So few sentences are possible that all are embedded before the first request.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env.pipeline.component import Component


def sentences(component: Component) -> list[str]:
    """Return what a component may say, ``n * n`` sentences of ``n`` numbers that have names: by the
    largest, then the smallest; one sentence of a decision without.
    """
    names = component.decisions()
    if not names:
        return [f"{component.name} has decided."]
    return [
        f"{component.name}: most {largest}, least {smallest}."
        for largest in names
        for smallest in names
    ]


def sentence_of(component: Component, summary: Tensor) -> Tensor:
    """Return which of :func:`sentences` a summary ``[B, n]`` makes, int64 ``[B]``; of equal numbers
    the first is named.
    """
    count = len(component.decisions())
    if not count:
        return torch.zeros(len(summary), dtype=torch.int64, device=summary.device)
    said = summary[:, :count]
    places = torch.arange(said.shape[1], device=said.device)
    ends = said.amax(1, keepdim=True), said.amin(1, keepdim=True)
    largest, smallest = (torch.where(said == end, places, count).amin(1) for end in ends)
    return largest * count + smallest
