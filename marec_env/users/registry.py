"""User models by name, and :func:`make_users`, which builds one.

Damaged populations are refused, with the name of what is wrong and what is allowed; what a user
model of one's own gives is checked wherever the simulator meets it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from marec_env.catalog.population import Population
from marec_env.errors import ConfigError
from marec_env.registry import Registry, callable_at, is_own, naming, numbers
from marec_env.users.base import Feedback, Users
from marec_env.users.composed import ComposedUsers
from marec_env.users.config import UsersConfig

__all__ = ["USER_MODELS", "UsersFactory", "check_population", "make_users"]


class UsersFactory(Protocol):
    """A class or function that builds batched users."""

    def __call__(
        self, config: UsersConfig, population: Population, num_sessions: int, device: torch.device
    ) -> Users:
        """Return ``num_sessions`` users of the population on the device."""
        ...


USER_MODELS: Registry[UsersFactory] = Registry("user model")

USER_MODELS.register("marec")(ComposedUsers)
for _name, _place in (
    ("recsim/interest_evolution", "interest_evolution:InterestEvolutionUsers"),
    ("recsim/long_term_satisfaction", "long_term_satisfaction:LongTermSatisfactionUsers"),
    ("kuaisim", "kuaisim:KuaiSimUsers"),
    ("sardine/as_published", "sardine:PublishedSardineUsers"),
):
    USER_MODELS.register_at(_name, f"marec_env.classic.{_place}")


def make_users(
    config: UsersConfig,
    population: Population,
    num_sessions: int,
    device: torch.device | str = "cpu",
) -> Users:
    """Build the users that a configuration names.

    Args:
        config: the section ``users``.
        population: who they are; refused if damaged.
        num_sessions: B, at least 1.
        device: where their tensors live; the population's tensors must be there.

    Raises:
        ConfigError: ``num_sessions`` below 1, an unknown model, or a damaged population.
    """
    if num_sessions < 1:
        raise ConfigError(f"num_sessions is {num_sessions}; allowed: at least 1")
    check_population(population)
    model = callable_at("users.model", USER_MODELS, config.model)
    place = torch.device(device)
    if not is_own(config.model):
        return model(config, population, num_sessions, place)
    what = f"user model '{config.model}'"
    with naming(what):
        users = model(config, population, num_sessions, place)
    _Guard(what, users, population.num_users, (num_sessions, population.num_items), place)
    return users


class _Guard:
    """Stands before the methods of a user model of one's own: names it, and checks what it gives.

    Built-in models are tested instead, and pay for none of this.
    """

    def __init__(
        self, what: str, users: Users, people: int, sizes: tuple[int, int], device: torch.device
    ) -> None:
        self.what, self.users, self.people, self.device = what, users, people, device
        self.names: tuple[str, ...] | None = None
        """Of the outcomes: the same in every response."""
        for name, wanted in zip(("num_sessions", "num_items"), sizes, strict=True):
            if getattr(users, name, None) != wanted:
                self.refuse(f"{name} is {getattr(users, name, None)!r}; set it to {wanted}")
        self.sessions, self.items = sizes
        size: Any = getattr(users, "hidden_size", None)
        if not isinstance(size, int) or size < 0:
            self.refuse(f"hidden_size is {size!r}; set it to the width of hidden_state()")
        named = getattr(users, "behaviours", None)
        if not isinstance(named, tuple) or not named or named[0] != "click":
            self.refuse(f"behaviours is {named!r}; name them, the click first: ('click',)")
        self.who()
        for name in (
            "reset",
            "respond",
            "click_probability",
            "long_term_relevance",
            "hidden_state",
            "state_dict",
            "load_state_dict",
        ):
            method: Any = getattr(users, name, None)
            if not callable(method):
                self.refuse(f"{name} is missing; define it as marec_env.users.Users says")
            check = getattr(self, f"after_{name}", lambda found, *_, **__: found)
            with naming(f"{what}: {name}"):
                setattr(users, name, functools.partial(self.call, name, method, check))

    def refuse(self, why: str) -> None:
        raise ConfigError(f"{self.what}: {why}")

    def call(
        self,
        name: str,
        method: Callable[..., Any],
        check: Callable[..., Any],
        *given: Any,
        **named: Any,
    ) -> Any:
        """Call a method, and return what it gave once that is checked."""
        before = self.users.request_index.clone()
        with naming(f"{self.what}: {name}"):
            found = method(*given, **named)
        if name == "respond" and not torch.equal(self.users.request_index, before + 1):
            self.refuse("respond did not add 1 to request_index, by which luck is drawn")
        return check(found, *given, **named)

    def numbers(
        self,
        name: str,
        found: object,
        *shape: int,
        least: float = -math.inf,
        most: float = math.inf,
    ) -> Tensor:
        """Return float32 numbers on the sessions' device, within a range."""
        values = numbers(f"{self.what}: {name}", found, *shape)
        if values.device.type != self.device.type:
            self.refuse(f"{name} is on {values.device}; the sessions are on {self.device}")
        if bool(((values < least) | (values > most)).any()):
            self.refuse(f"{name} leaves [{least:g}, {most:g}]; mend it")
        return values

    def who(self) -> None:
        for name, dtype in (
            ("user_index", torch.int64),
            ("is_new", torch.bool),
            ("request_index", torch.int64),
        ):
            found = getattr(self.users, name, None)
            numbers(f"{self.what}: {name}", found, self.sessions, dtype=dtype, verb="is")
        index = self.users.user_index
        if bool(((index < 0) | (index >= self.people)).any()):
            self.refuse(f"user_index leaves 0 ... {self.people - 1}, the population's users")

    def after_reset(self, found: None, *given: Any, **named: Any) -> None:
        del found, given, named
        self.who()

    def after_respond(self, found: object, slate: Tensor) -> Feedback:
        name = "respond"
        if not isinstance(found, Feedback):
            self.refuse(
                f"{name} returned {type(found).__name__}; return a marec_env.users.Feedback"
            )
        assert isinstance(found, Feedback)
        behaviours, outcomes = found.behaviours, found.outcomes
        if not isinstance(behaviours, Mapping) or tuple(behaviours) != self.users.behaviours:
            self.refuse(f"{name} returned other behaviours than {self.users.behaviours}, in order")
        for key, values in behaviours.items():
            self.numbers(f"{name}: behaviour '{key}'", values, *slate.shape)
        if bool(((found.clicks != 0) & (found.clicks != 1)).any()):
            self.refuse(f"{name}: behaviour 'click' holds numbers other than 0 and 1")
        for key in ("engagement", "satisfaction"):
            self.numbers(f"{name}: {key}", getattr(found, key), self.sessions, least=0, most=1)
        numbers(f"{self.what}: {name}: left", found.left, self.sessions, dtype=torch.bool)
        if found.gap_days is not None:
            self.numbers(f"{name}: gap_days", found.gap_days, self.sessions, least=0)
        if not isinstance(outcomes, Mapping) or tuple(outcomes) != (self.names or tuple(outcomes)):
            self.refuse(f"{name} returned other outcomes than before ({self.names})")
        self.names = tuple(outcomes)
        for key, values in outcomes.items():
            self.numbers(f"{name}: outcome '{key}'", values, self.sessions)
        return found

    def after_click_probability(self, found: object, items: Tensor | None = None) -> Tensor:
        size = self.items if items is None else items.shape[1]
        return self.numbers("click_probability", found, self.sessions, size, least=0, most=1)

    def after_long_term_relevance(
        self, found: object, items: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        size = self.items if items is None else items.shape[1]
        count = self.sessions if rows is None else len(rows)
        return self.numbers("long_term_relevance", found, count, size)

    def after_hidden_state(self, found: object) -> Tensor:
        return self.numbers("hidden_state", found, self.sessions, self.users.hidden_size)

    def after_state_dict(self, found: object) -> object:
        if not isinstance(found, Mapping):
            self.refuse(f"state_dict returned {type(found).__name__}; return tensors by name")
        return found


def _finite(name: str, values: Tensor) -> None:
    if not torch.isfinite(values).all():
        bad = int((~torch.isfinite(values)).sum())
        raise ConfigError(
            f"population.{name} has {bad} values that are NaN or infinite; allowed: finite numbers"
        )


def _shape(name: str, values: Tensor, *shape: int) -> None:
    if tuple(values.shape) != shape:
        raise ConfigError(
            f"population.{name} has shape {tuple(values.shape)}; allowed: {tuple(shape)}"
        )


def _within(name: str, values: Tensor, least: int, end: int) -> None:
    if values.numel() and not (int(values.min()) >= least and int(values.max()) < end):
        raise ConfigError(
            f"population.{name} holds {int(values.min())} ... {int(values.max())}; "
            f"allowed: {least} ... {end - 1}"
        )


def check_population(population: Population) -> None:
    """Refuse a population that is empty, inconsistent or not finite.

    Raises:
        ConfigError: names the field, its value and what is allowed.
    """
    for name, factors in (
        ("user_factors", population.user_factors),
        ("item_factors", population.item_factors),
    ):
        if factors.dim() != 2 or factors.shape[0] < 1 or factors.shape[1] < 1:
            raise ConfigError(
                f"population.{name} has shape {tuple(factors.shape)}; "
                f"allowed: at least one row of at least one factor"
            )
        _finite(name, factors)
    users, size = population.user_factors.shape
    items = population.num_items
    _shape("item_factors", population.item_factors, items, size)
    _shape("quality", population.quality, items)
    _finite("quality", population.quality)
    for name, number in (("scale", population.scale), ("intercept", population.intercept)):
        if not math.isfinite(number):
            raise ConfigError(f"population.{name} is {number}; allowed: a finite number")
    if population.num_topics < 1:
        raise ConfigError(f"population.num_topics is {population.num_topics}; allowed: at least 1")
    _shape("topics", population.topics, items)
    _within("topics", population.topics, 0, population.num_topics)
    _shape("history", population.history, users, population.history.shape[-1])
    _within("history", population.history, -1, items)
    _shape("history_liked", population.history_liked, *population.history.shape)
    if population.providers is not None:
        _shape("providers", population.providers, items)
        _within("providers", population.providers, 0, items)
    for kind, attributes, length in (
        ("item_attributes", population.item_attributes, items),
        ("user_attributes", population.user_attributes, users),
    ):
        for name, values in attributes.items():
            _shape(f"{kind}.{name}", values, length)
            _finite(f"{kind}.{name}", values)
