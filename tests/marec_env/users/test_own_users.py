"""User models of the user's own: what they give is looked at, and they are named."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from marec_env import random
from marec_env.errors import ConfigError, PluginError
from marec_env.users import ComposedUsers, UsersConfig, make_users

PLACE = "tests_own_users:model"


@pytest.fixture
def build(population, tmp_path, monkeypatch):
    """Return a function that makes users of a model which answers as its argument says."""

    def made(change=None, method="respond"):
        class Model(ComposedUsers):
            pass

        if change is not None:

            def answer(self, *arguments, **settings):
                return change(getattr(ComposedUsers, method)(self, *arguments, **settings))

            setattr(Model, method, answer)
        module = type(random)("tests_own_users")
        module.model = Model  # type: ignore[attr-defined]
        monkeypatch.setitem(__import__("sys").modules, "tests_own_users", module)
        users = make_users(UsersConfig(model=PLACE), population, 2)
        users.reset(random.session_keys(1, torch.arange(2)))
        return users

    return made


def _broken(_found):
    raise KeyError("mood")


SLATE = torch.tensor([[0, 1, 2], [3, 4, 5]])


def test_sound_models_pass_through(build, population):
    own = build()
    plain = make_users(UsersConfig(), population, 2)
    plain.reset(random.session_keys(1, torch.arange(2)))
    assert torch.equal(own.respond(SLATE).clicks, plain.respond(SLATE).clicks)
    assert torch.equal(own.click_probability(), plain.click_probability())
    assert torch.equal(own.long_term_relevance(SLATE), plain.long_term_relevance(SLATE))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: None, "respond gave NoneType; give a Feedback"),
        (lambda f: dataclasses.replace(f, behaviours={}), "no behaviour 'click'"),
        (lambda f: dataclasses.replace(f, engagement=f.engagement[:1]), r"engagement is \(1,\)"),
        (lambda f: dataclasses.replace(f, satisfaction=f.satisfaction / 0 * 0), "not finite"),
        (lambda f: dataclasses.replace(f, left=[True, False]), "left is list"),
    ],
)
def test_answers_that_do_not_fit_are_refused_by_name(build, change, message):
    with pytest.raises(ConfigError, match=f"user model '{PLACE}': .*{message}"):
        build(change).respond(SLATE)


@pytest.mark.parametrize("method", ["click_probability", "long_term_relevance"])
def test_probabilities_that_do_not_fit_are_refused(build, method):
    with pytest.raises(ConfigError, match=f"{method} is NoneType"):
        getattr(build(lambda f: None, method), method)(SLATE)
    with pytest.raises(ConfigError, match="not finite"):
        getattr(build(lambda f: f * torch.nan, method), method)(SLATE)


def test_what_goes_wrong_inside_is_named(build):
    with pytest.raises(PluginError, match=f"user model '{PLACE}': respond failed: KeyError"):
        build(_broken).respond(SLATE)
    with pytest.raises(PluginError, match="reset failed"):
        build(_broken, "reset")


def test_what_is_no_model_is_refused(population, monkeypatch):
    for place, message in (
        ("json:loads", "failed"),
        ("json:decoder", "is a module; name a function"),
        ("builtins:dict", "failed"),
    ):
        with pytest.raises((ConfigError, PluginError), match=message):
            make_users(UsersConfig(model=place), population, 2)
