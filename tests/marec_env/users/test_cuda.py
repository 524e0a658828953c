"""The same code and the same draws on a CUDA device."""

from __future__ import annotations

import pytest
import torch

from marec_env import random
from marec_env.classic import PRESETS, get_preset
from marec_env.users.base import request_draws
from marec_env.world import moved


@pytest.mark.gpu
@pytest.mark.parametrize("name", PRESETS.names())
def test_cuda_draws_the_same_numbers(name: str) -> None:
    preset = get_preset(name)
    people = preset.population(0)
    keys = random.session_keys(3, torch.arange(256))
    here = preset.users(256, population=people)
    there = preset.users(256, device="cuda", population=moved(people, "cuda"))
    here.reset(keys)
    there.reset(keys.to("cuda"))
    assert torch.equal(here.user_index, there.user_index.cpu())
    one = request_draws(keys, here.request_index, 10, 2)
    two = request_draws(keys.to("cuda"), there.request_index, 10, 2)
    assert torch.equal(one.scalars, two.scalars.cpu())
    assert torch.equal(one.choice, two.choice.cpu())
    slate = random.integers(keys, 0, "test/slate", preset.slate_size, here.num_items)
    clicks = here.respond(slate).clicks
    # Sums of products round differently, so a draw at the very edge may fall on the other side.
    same = (clicks == there.respond(slate.to("cuda")).clicks.cpu()).float().mean()
    assert same > 0.998
    assert torch.allclose(
        here.click_probability().mean(0), there.click_probability().cpu().mean(0), atol=5e-3
    )
