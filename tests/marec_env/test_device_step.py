"""A step off the CPU: no mixed devices, no waits, no shape that depends on numbers, same numbers.

Shown on a machine without a GPU (:mod:`tests.marec_env.users.other_device`), where operations off
the CPU run on the CPU's numbers, so that what CUDA would run is compared with what the CPU runs.
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError
from marec_env.pipeline.recall import CHANNELS
from marec_env.scenarios import SCENARIO_CHANGES
from marec_env.simulator import Simulator
from marec_env.world import build_world
from tests.marec_env.test_scenarios import small
from tests.marec_env.users.other_device import (
    DEVICE,
    There,
    nothing_waits,
    other_device,
    world_there,
)
from tests.worlds import small_environment

pytestmark = pytest.mark.long
SESSIONS = 5
SIX = ("trainer", "profile", "recall", "feature", "auditor", "ranking")
RICHER = ("profile/query", "recall/topics", "feature", "ranking/topics")
CASES = {
    "default": {},
    "six": {"pipeline": {"components": SIX, "candidates": 20, "slate_size": 5}},
    "providers": {
        "pipeline": {
            "components": SIX,
            "candidates": 20,
            "slate_size": 5,
            "audit": {"max_provider_share": 0.3},
        },
        "rewards": {"team": {"within_limits": 0.5, "coverage": 0.1, "revenue": 0.1,
                             "exposure_fairness": 0.1, "diversity": 0.1, "novelty": 0.1,
                             "suitability": 0.1, "extra_cost": -1}},
    },
    "fixed messages": {
        "pipeline": {
            "candidates": 20, "slate_size": 5, "sequential": True,
            "messages": {"kind": "fixed", "noise": 0.1, "topology": "full", "bandwidth_cost": 0.1},
        }
    },
    "learned messages": {
        "pipeline": {
            "candidates": 20, "slate_size": 5,
            "messages": {"kind": "learned", "delay": 2, "bandwidth_cost": 0.1,
                         "privacy": {"epsilon": 4.0}},
        }
    },
    "box actions": {"pipeline": {"candidates": 20, "slate_size": 5, "actions": "box"}},
    "discrete actions": {
        "pipeline": {"candidates": 20, "slate_size": 5, "actions": "discrete",
                     "messages": {"kind": "learned"}},
        "rewards": {"mode": "difference"},
    },
    "difference": {"rewards": {"mode": "difference", "shaping": ({"potential": "topic_balance"},)}},
    "privileged": {"state": "privileged", "rewards": {"mode": "mix"}},
    "richer": {"pipeline": {"components": RICHER, "candidates": 20, "slate_size": 5}},
    "tiring": {
        "pipeline": {"components": ("ranking/tiring",), "candidates": 20, "slate_size": 5}
    },
    "told": {
        "text": {"notes": True, "user_every": 2},
        "pipeline": {
            "components": ("profile/told", "recall", "feature", "ranking"), "candidates": 20,
            "slate_size": 5, "recall": {"channels": ("cf", "notes", "user_text")},
            "blocks": {"cf": 0.02, "notes": 0.03},
        },
    },
    "returning": {
        "users": {"returning": {"sessions": 3}, "drift": {"kind": "random_walk"},
                  "supply": {"enabled": True}, "boredom": {"kind": "continuous"}},
    },
    "short": {"max_requests": 2},
}  # fmt: skip


def case(name: str) -> EnvironmentConfig:
    if name in SCENARIO_CHANGES:
        return small(name)
    return EnvironmentConfig.model_validate(small_environment(**CASES[name]))


@pytest.mark.parametrize("name", [*SCENARIO_CHANGES, *CASES])
def test_all_state_is_by_session(name):
    """So that one seed's sessions can be cut out of those of several."""
    simulator = Simulator(build_world(case(name)), SESSIONS)
    simulator.step(simulator.default_actions())
    states = [simulator.state_dict()]
    while states:
        for state in states.pop().values():
            if isinstance(state, dict):
                states.append(state)
            else:
                assert state.shape[0] == SESSIONS


def elsewhere(config: EnvironmentConfig) -> Simulator:
    """Return a simulator off the CPU."""
    return Simulator(world_there(build_world(config)), SESSIONS)


def actions(simulator: Simulator, seed: int) -> dict:
    """Return drawn actions of all agents, on the CPU."""
    found = {}
    for place, (agent, space) in enumerate(simulator.action_spaces.items()):
        space.seed(100 * seed + place)
        drawn = [space.sample() for _ in range(SESSIONS)]
        parts = zip(*drawn, strict=True) if isinstance(drawn[0], tuple) else [drawn]
        made = tuple(torch.stack([torch.as_tensor(one) for one in part]) for part in parts)
        found[agent] = made if isinstance(drawn[0], tuple) else made[0]
    return found


def there(action):
    return tuple(map(There, action)) if isinstance(action, tuple) else There(action)


def played(simulator: Simulator, steps: int, strict: bool) -> list[dict[str, torch.Tensor]]:
    """Return what some steps gave, by name."""
    found = []
    for number in range(steps):
        chosen = actions(simulator, number)
        away = simulator.device.type != "cpu"
        with nothing_waits() if strict and number else nullcontext():  # the first fills caches
            for turn in simulator.turns:
                for agent in turn:
                    simulator.observe(agent)
                simulator.act({a: there(chosen[a]) if away else chosen[a] for a in turn})
            step = simulator.advance()
        assert simulator.last is not None
        found.append(
            {
                "slate": simulator.last.slate,
                "clicks": simulator.last.feedback.clicks,
                "state": step.state,
                "final_state": step.final_state,
                "ended": step.terminated | step.truncated,
                **{f"seen {a}": value for a, value in step.observations.items()},
                **{f"paid {a}": value for a, value in step.rewards.items()},
                **{f"metric {name}": value for name, value in step.metrics.items()},
                **{f"episode {name}": value for name, value in step.episodes.items()},
            }
        )
    return found


@pytest.mark.parametrize("name", [*CASES, *SCENARIO_CHANGES])
def test_a_step_off_the_cpu_waits_for_nothing_and_gives_the_same(name):
    config = case(name)
    here = played(Simulator(build_world(config), SESSIONS), 9, strict=False)
    with other_device():
        away = played(elsewhere(config), 9, strict=True)
    assert any(bool(step["ended"].any()) for step in here)
    for number, (one, other) in enumerate(zip(here, away, strict=True)):
        held = {}
        for key, value in other.items():
            assert isinstance(value, There), f"{key} is on the CPU"
            held[key] = value.held
        for key, value in one.items():
            found = held[key][one["ended"]] if key.startswith("episode") else held[key]
            same = torch.equal if key in ("slate", "clicks", "ended") else torch.allclose
            assert same(value, found), (number, key)


@pytest.mark.parametrize("name", ["default", "returning", "short", *SCENARIO_CHANGES])
def test_a_table_by_user_gives_what_a_reset_computes(name, monkeypatch):
    found = []
    with other_device():
        for tables in (True, False):
            if not tables:
                monkeypatch.setattr("marec_env.beginnings._MOST_USERS", 0)
            simulator = elsewhere(case(name))
            users = simulator.world.population.num_users
            assert {len(table) for table in simulator._by_user.values()} == (
                {2 * users} if tables else set()
            )
            steps = played(simulator, 9, strict=True)
            steps.append({**simulator.pipeline.memory.state_dict(), "top": simulator._top})
            found.append(steps)
    assert any(bool(step["ended"].held.any()) for step in found[0][:-1])
    for with_table, without in zip(*found, strict=True):
        for key, value in without.items():
            assert torch.equal(value.held, with_table[key].held), key


PLANTS = {
    "nonzero": lambda request: request.keys.nonzero(),
    "item": lambda request: bool(request.keys.any()),
    "mask": lambda request: request.memory.recent[request.memory.recent > 3],
    "CPU constant": lambda request: request.keys + torch.arange(SESSIONS),
    "to the CPU": lambda request: request.keys.cpu(),
    "from the CPU": lambda request: torch.tensor([1, 2], device=DEVICE),
}


@pytest.mark.parametrize("what", PLANTS)
def test_planted_waits_and_mixtures_are_caught(what, monkeypatch):
    popular, calls = CHANNELS.get("popular"), []

    def planted(request, length):
        calls.append(request)
        if len(calls) > 1:
            PLANTS[what](request)
        return popular(request, length)

    monkeypatch.setitem(CHANNELS._entries, "popular", planted)
    with other_device():
        simulator = elsewhere(case("default"))
        with pytest.raises(RuntimeError, match=r"waits|mixes devices"):
            played(simulator, 2, strict=True)


def test_an_action_that_does_not_fit_is_told_later():
    with other_device():
        simulator = elsewhere(case("default"))
        chosen = {a: there(value) for a, value in actions(simulator, 0).items()}
        chosen["profile_0"] = There(chosen["profile_0"].held / 0.0)
        simulator.step(chosen)
        with pytest.raises(ConfigError, match="profile_0: an earlier action"):
            simulator.reset(1)
        simulator.reset(1)
