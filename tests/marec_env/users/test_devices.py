"""Users keep every tensor on their sessions' device, in all presets; no GPU is needed to see it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch

from marec_env import random
from marec_env.classic import PRESETS, get_preset
from marec_env.users import ORACLES, UsersConfig, make_users
from tests.marec_env.users.other_device import DEVICE, back, nothing_waits, other_device, to_there
from tests.marec_env.users.test_golden import ALL, shop

SESSIONS = 6


def _play(users, keys, slate_size, back):
    """Return every number that users give in two requests and a reset."""
    found = []
    guard = nothing_waits if keys.device == DEVICE else nullcontext
    with guard():
        users.reset(keys)
    items = torch.arange(users.num_items, device=keys.device).expand(SESSIONS, -1)
    for _ in range(2):
        for policy in ORACLES.values():
            slate = policy(users, keys, items, slate_size)
            found.append(slate)
        found += [users.click_probability(), users.click_probability(slate)]
        found += [users.long_term_relevance(), users.hidden_state()]
        some = torch.tensor([1, 4], device=keys.device)
        found.append(users.long_term_relevance(slate[some], rows=some))
        with guard():
            answer = users.respond(slate)
            users.click_probability(slate)
            users.click_probability()
            users.long_term_relevance()
            users.hidden_state()
        found += [*answer.behaviours.values(), *answer.outcomes.values()]
        found += [answer.engagement, answer.satisfaction, answer.left]
        if answer.gap_days is not None:
            found.append(answer.gap_days)
        saved = users.state_dict()
        with guard():
            users.reset(keys + 1, answer.left | (keys > 0))
        found += saved.values()
        users.load_state_dict(saved)
    return [back(value) for value in found]


def _places(users):
    return {name: value.data_ptr() for name, value in users._state().items()}


def _in_place(users, keys, slate_size):
    """State stays where it is, so that a captured step meets the present one."""
    before = _places(users)
    users.reset(keys)
    for step in range(7):
        slate = random.integers(keys, step, "test/slate", slate_size, users.num_items)
        users.reset(keys + step, users.respond(slate).left)
    assert _places(users) == before


def _same(make, people, slate_size):
    keys = random.session_keys(3, torch.arange(SESSIONS))
    _in_place(make(people, "cpu"), keys, slate_size)
    here = _play(make(people, "cpu"), keys, slate_size, lambda value: value)
    with other_device():
        users = make(to_there(people), DEVICE)
        there = _play(users, to_there(keys), slate_size, back)
    for one, other in zip(here, there, strict=True):
        assert torch.allclose(one, other, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("name", PRESETS.names())
def test_presets_stay_on_their_device(name):
    preset = get_preset(name, as_published=True)

    def make(people, device):
        return preset.users(SESSIONS, device=device, population=people)

    _same(make, preset.population(0), preset.slate_size)


EVERYTHING = {
    "all": ALL,
    **{
        f"{section}: {values['kind']}": {section: values, "boredom": {"kind": "none"}}
        if section != "boredom" else {section: values}
        for section, values in [
            ("boredom", {"kind": "continuous"}),
            ("boredom", {"kind": "churn", "clicks": 1}),
            ("examination", {"kind": "mixed"}),
            ("examination", {"kind": "cascade", "stop_after_click": 0.4}),
            ("choice", {"kind": "multinomial_logit"}),
            ("choice", {"kind": "proportional"}),
            ("choice", {"kind": "exponential_cascade"}),
            ("drift", {"kind": "random_walk"}),
            ("drift", {"kind": "amplification"}),
            ("patience", {"kind": "none"}),
        ]
    },
    "intent: catalog": {"intent": {"source": "catalog"}},
}  # fmt: skip


@pytest.mark.parametrize("name", EVERYTHING)
def test_modules_stay_on_their_device(name):
    config = UsersConfig.model_validate(EVERYTHING[name])
    _same(lambda people, device: make_users(config, people, SESSIONS, device), shop(), 4)


def test_a_wait_would_be_seen():
    with other_device():
        there = torch.ones(3, device=DEVICE)
        waits: dict[str, Callable[[], object]] = {
            "nonzero": lambda: (there > 0).nonzero(),
            "item": lambda: float(there.sum()),
            "a condition": lambda: bool((there > 0).any()),
            "a mask": lambda: there[there > 0],
            "a masked write": lambda: there.__setitem__(there > 0, there),
            "to the host": lambda: there.cpu(),
            "from the host": lambda: torch.ones(3).to(DEVICE),
            "a list": lambda: torch.tensor([0.5, 1.0], device=DEVICE),
            "shapes": lambda: torch.unique(there),
        }
        for wait in waits.values():
            with nothing_waits(), pytest.raises(RuntimeError, match="waits for"):
                wait()
        with nothing_waits():
            torch.where(there > 0, there, 0.0).masked_fill_(there > 0, 1.0).add_(2.0)
            there.gather(0, there.to(torch.int64).clamp(max=2))


def test_a_mixture_would_be_seen():
    with other_device():
        there = torch.zeros(3, device=DEVICE)
        for mixed in (
            lambda: there + torch.ones(3),
            lambda: torch.zeros(3)[there > 0],
            lambda: there[torch.tensor([0, 1])],
        ):
            with pytest.raises(RuntimeError, match="mixes devices"):
                mixed()
        assert back(there + torch.tensor(1.0)).tolist() == [1.0, 1.0, 1.0]
