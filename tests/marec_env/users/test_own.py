"""A user model of one's own that does not fit is named in a line, and what it raised is kept."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

import marec_env
from examples.own_user_model import RestingUsers
from marec_env.errors import ConfigError, PluginError
from marec_env.users import ComposedUsers, UsersConfig, make_users
from tests.marec_env.users.conftest import small_population

SESSIONS = 4
SLATE = torch.arange(20).reshape(4, 5)


def _make(monkeypatch, cls):
    monkeypatch.setattr("examples.own_user_model.RestingUsers", cls)
    config = UsersConfig(model="examples.own_user_model:RestingUsers")
    users = make_users(config, small_population(), SESSIONS)
    users.reset(torch.arange(SESSIONS))
    return users


def _answer(**changes):
    """Users whose feedback differs in these fields."""

    class Changed(RestingUsers):
        def respond(self, slate):
            found = super().respond(slate)
            return dataclasses.replace(
                found, **{name: change(getattr(found, name)) for name, change in changes.items()}
            )

    return Changed


def _returning(method, change):
    """Users one of whose methods gives something else."""

    def changed(self, *given, **named):
        return change(getattr(RestingUsers, method)(self, *given, **named))

    return type("Changed", (RestingUsers,), {method: changed})


BAD_ANSWERS = {
    "engagement returned numbers that are not finite": {"engagement": lambda e: e * math.nan},
    r"engagement leaves \[0, 1\]": {"engagement": lambda e: e + 2},
    r"satisfaction returned torch.float64 \[4\]; needed: torch.float32 \[4\]": {
        "satisfaction": lambda s: s.double()
    },
    r"satisfaction returned NoneType": {"satisfaction": lambda s: None},
    r"left returned torch.float32 \[4\]; needed: torch.bool": {"left": lambda s: s.float()},
    r"left returned torch.bool \[4, 1\]": {"left": lambda s: s.unsqueeze(1)},
    r"behaviour 'click' returned torch.float32 \[4, 4\]; needed: torch.float32 \[4, 5\]": {
        "behaviours": lambda b: {"click": b["click"][:, 1:]}
    },
    r"other behaviours than \('click',\)": {"behaviours": lambda b: {"like": b["click"]}},
    r"'click' holds numbers other than 0 and 1": {
        "behaviours": lambda b: {"click": b["click"] / 2}
    },
    r"gap_days leaves \[0, inf\]": {"gap_days": lambda g: torch.full((4,), -1.0)},
    r"outcome 'sold' returned int": {"outcomes": lambda o: {"sold": 3}},
}


@pytest.mark.parametrize("message", BAD_ANSWERS)
def test_feedback_that_does_not_fit(message, monkeypatch):
    users = _make(monkeypatch, _answer(**BAD_ANSWERS[message]))
    with pytest.raises(
        ConfigError, match=f"user model 'examples.*RestingUsers': respond.*{message}"
    ):
        users.respond(SLATE)


BAD_METHODS = {
    "respond": (lambda f: None, "respond returned NoneType; return a marec_env.users.Feedback"),
    "click_probability": (lambda p: p * math.nan, "numbers that are not finite"),
    "long_term_relevance": (lambda p: p[:, :3], r"returned torch.float32 \[4, 3\]; needed.*5\]"),
    "hidden_state": (lambda h: h[:, 0], r"needed: torch.float32 \[4, 1\]"),
    "state_dict": (lambda s: None, "state_dict returned NoneType"),
}


@pytest.mark.parametrize("method", BAD_METHODS)
def test_methods_that_give_something_else(method, monkeypatch):
    change, message = BAD_METHODS[method]
    users = _make(monkeypatch, _returning(method, change))
    given = {"state_dict": (), "hidden_state": ()}.get(method, (SLATE,))
    with pytest.raises(ConfigError, match=f"user model '.*RestingUsers': .*{message}"):
        getattr(users, method)(*given)


def _lacking(name, value):
    return type("Lacking", (RestingUsers,), {name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("hidden_size", None, "hidden_size is None"),
        ("behaviours", ("like",), "behaviours is .'like',.; name them, the click first"),
        ("respond", None, "respond is missing|abstract"),
        ("num_items", property(lambda self: 7, lambda self, value: None), "num_items is 7; .* 40"),
    ],
)
def test_what_a_model_lacks(name, value, message, monkeypatch):
    with pytest.raises((ConfigError, PluginError), match=message):
        _make(monkeypatch, _lacking(name, value))


def test_who_is_there_belongs_to_the_population(monkeypatch):
    class Strangers(RestingUsers):
        def reset(self, keys, where=None):
            super().reset(keys, where)
            self.user_index = self.user_index + 20

    with pytest.raises(ConfigError, match=r"user_index leaves 0 \.\.\. 19"):
        _make(monkeypatch, Strangers)


def test_a_request_that_is_not_counted(monkeypatch):
    class Still(RestingUsers):
        def respond(self, slate):
            found = super().respond(slate)
            self.request_index -= 1
            return found

    with pytest.raises(ConfigError, match="did not add 1 to request_index"):
        _make(monkeypatch, Still).respond(SLATE)


def test_an_exception_names_the_method_and_keeps_its_cause(monkeypatch):
    class Failing(RestingUsers):
        def respond(self, slate):
            return {}["gone"]

    users = _make(monkeypatch, Failing)
    with pytest.raises(
        PluginError, match="RestingUsers': respond failed: KeyError: 'gone'"
    ) as told:
        users.respond(SLATE)
    assert isinstance(told.value.__cause__, KeyError)
    assert "\n" not in str(told.value)


def test_a_failed_request_leaves_the_session_as_it_was(monkeypatch):
    class Fails(RestingUsers):
        wrong = False

        def respond(self, slate):
            found = super().respond(slate)
            return None if self.wrong else found

    monkeypatch.setattr("examples.own_user_model.RestingUsers", Fails)
    config = {
        "users": {"model": "examples.own_user_model:RestingUsers"},
        "data": {"synthetic": {"num_users": 60, "num_items": 600}, "source": "synthetic/ads"},
    }
    simulator = marec_env.make_vec(config, 4)
    before = simulator.state_dict()["users"]
    simulator.users.wrong = True
    with pytest.raises(ConfigError, match="respond returned NoneType"):
        simulator.step(simulator.default_actions())
    after = simulator.state_dict()["users"]
    assert all(torch.equal(before[name], after[name]) for name in before)
    simulator.users.wrong = False
    simulator.step(simulator.default_actions())


def test_sound_models_answer_as_without_checks(monkeypatch):
    own = _make(monkeypatch, ComposedUsers)
    plain = make_users(UsersConfig(), small_population(), SESSIONS)
    plain.reset(torch.arange(SESSIONS))
    assert torch.equal(own.respond(SLATE).clicks, plain.respond(SLATE).clicks)
    assert torch.equal(own.click_probability(), plain.click_probability())
    assert torch.equal(own.long_term_relevance(SLATE), plain.long_term_relevance(SLATE))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("examples.own_user_model:SCALE", "users.model: "),
        ("nonsense", "users.model: "),
        ("json:decoder", "is a module; name a function"),
        ("json:loads", "failed: TypeError"),
        ("builtins:dict", "failed: TypeError"),
    ],
)
def test_what_is_no_model_is_refused(place, message):
    with pytest.raises((ConfigError, PluginError), match=message):
        make_users(UsersConfig(model=place), small_population(), 2)
