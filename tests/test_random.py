import torch

from marec_env import random

KEYS = [0, 5197578548964807871]
BITS = [[5192799167316297784, 3726220706859618218], [7007775540310075606, 6845167680214768888]]


def test_a_draw_depends_on_its_own_key_step_stream_and_lane_only():
    keys = random.session_keys(7, torch.arange(64))
    together = random.uniform(keys, torch.arange(64), "clicks", 10)
    alone = random.uniform(keys[5:6], 5, "clicks", 3)
    assert torch.equal(together[5:6, :3], alone)
    assert not torch.equal(
        random.uniform(keys, 1, "clicks", 4), random.uniform(keys, 1, "drift", 4)
    )
    assert not torch.equal(
        random.uniform(keys, 1, "clicks", 4), random.uniform(keys, 2, "clicks", 4)
    )


def test_bits_are_fixed_across_versions():
    """A change of these numbers changes every published result; bump the environment's version."""
    keys = random.session_keys(0, torch.arange(2))
    assert keys.tolist() == KEYS
    assert random.bits(keys, 3, "clicks", 2).tolist() == BITS


def test_draws_are_alike_on_every_device():
    keys, steps = random.session_keys(5, torch.arange(70)), torch.arange(70)
    drawn = random.bits(keys, steps, "clicks", 9)
    assert torch.equal(drawn, random._mix_lanes(random._counter(keys, steps, "clicks"), 9))
    places = (drawn >> 41) & 0x7FFFFF  # the upper 23 bits: odd multiples of 2^-24
    assert torch.equal(random.uniform(keys, steps, "clicks", 9), (2 * places + 1) / 2.0**24)


def test_uniform_is_open_and_uniform():
    draws = random.uniform(random.session_keys(1, torch.arange(200_000)), 9, "u", 4)
    assert draws.min() > 0 and draws.max() < 1
    counts = torch.histc(draws, bins=50, min=0, max=1)
    expected = draws.numel() / 50
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < 85.4  # 99.9 % quantile at 49 degrees of freedom
    assert torch.corrcoef(draws.T).fill_diagonal_(0).abs().max() < 4.5 / 200_000**0.5


def test_extreme_uniform_bits_stay_inside_the_open_interval():
    largest = torch.tensor((1 << 23) - 1).to(torch.float32)
    assert float((largest + 0.5) * 2.0**-23) < 1.0


def test_normal_and_gumbel_moments():
    keys = random.session_keys(2, torch.arange(400_000))
    normal = random.normal(keys, 0, "n", 1)
    assert abs(normal.mean()) < 0.01 and abs(normal.std() - 1) < 0.01
    gumbel = random.gumbel(keys, 0, "g", 1)
    assert abs(gumbel.mean() - 0.5772) < 0.01
    assert torch.isfinite(normal).all() and torch.isfinite(gumbel).all()


def test_integers_cover_their_range():
    draws = random.integers(random.session_keys(3, torch.arange(10_000)), 0, "i", 2, 7)
    assert draws.flatten().bincount(minlength=7).min() > 2_500
    assert draws.max() == 6
