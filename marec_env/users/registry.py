"""User models by name, and :func:`make_users`, which builds one.

Damaged populations are refused, with the name of what is wrong and what is allowed; what a user
model of one's own gives is checked wherever the simulator meets it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from marec_env.catalog.population import Population
from marec_env.errors import ConfigError
from marec_env.registry import Registry, callable_at, is_own, naming, numbers
from marec_env.users.base import Feedback, Users
from marec_env.users.composed import ComposedUsers
from marec_env.users.config import UsersConfig

UsersFactory = Callable[[UsersConfig, Population, int, torch.device], Users]
"""A class or function that builds so many users of a population on a device."""

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
    _Guard(what, users, population, num_sessions, place)
    return users


_METHODS = (
    "reset",
    "respond",
    "click_probability",
    "long_term_relevance",
    "hidden_state",
    "state_dict",
    "load_state_dict",
)


class _Guard:
    """Stands before the methods of a user model of one's own: names it, and checks what it gives.

    Built-in models are tested instead, and pay for none of this.
    """

    def __init__(
        self, what: str, users: Users, population: Population, sessions: int, device: torch.device
    ) -> None:
        self.what, self.users, self.device, self.sessions = what, users, device, sessions
        self.people, self.items = population.num_users, population.num_items
        self.outcomes: tuple[str, ...] | None = None
        """Names: the same in every response."""
        found: Any
        for name, wanted in (("num_sessions", sessions), ("num_items", self.items)):
            if (found := getattr(users, name, None)) != wanted:
                self.refuse(f"{name} is {found!r}; set it to {wanted}")
        found = getattr(users, "hidden_size", None)
        if not isinstance(found, int) or found < 0:
            self.refuse(f"hidden_size is {found!r}; set it to the width of hidden_state()")
        found = getattr(users, "behaviours", None)
        if not isinstance(found, tuple) or found[:1] != ("click",):
            self.refuse(f"behaviours is {found!r}; name them, the click first: ('click',)")
        self.who()
        for name in _METHODS:
            if not callable(method := getattr(users, name, None)):
                self.refuse(f"{name} is missing; define it as marec_env.users.Users says")
            with naming(f"{what}: {name}"):
                setattr(users, name, functools.partial(self.call, name, method))

    def refuse(self, why: str) -> None:
        raise ConfigError(f"{self.what}: {why}")

    def call(self, name: str, method: Any, *given: Any, **named: Any) -> Any:
        """Call a method, and return what it gave once that is checked."""
        before = self.users.request_index.clone()
        with naming(f"{self.what}: {name}"):
            found = method(*given, **named)
        if name == "reset":
            self.who()
        elif name == "respond":
            if not torch.equal(self.users.request_index, before + 1):
                self.refuse("respond did not add 1 to request_index, by which luck is drawn")
            self.feedback(found, *given, **named)
        elif name == "hidden_state":
            self.numbers(name, found, self.sessions, self.users.hidden_size)
        elif name in ("click_probability", "long_term_relevance"):
            chance = name == "click_probability"
            least, most = (0.0, 1.0) if chance else (-math.inf, math.inf)
            self.numbers(name, found, *self.asked(*given, **named), least=least, most=most)
        elif name == "state_dict" and not isinstance(found, Mapping):
            self.refuse(f"state_dict returned {type(found).__name__}; return tensors by name")
        return found

    def asked(self, items: Tensor | None = None, rows: Tensor | None = None) -> tuple[int, int]:
        """Return how many sessions and items a method was asked about."""
        count = self.sessions if rows is None else len(rows)
        return count, self.items if items is None else items.shape[1]

    def numbers(
        self,
        name: str,
        found: object,
        *shape: int,
        least: float = -math.inf,
        most: float = math.inf,
    ) -> None:
        """Check float32 numbers on the sessions' device, within a range."""
        values = numbers(f"{self.what}: {name}", found, *shape)
        if values.device.type != self.device.type:
            self.refuse(f"{name} is on {values.device}; the sessions are on {self.device}")
        if bool(((values < least) | (values > most)).any()):
            self.refuse(f"{name} leaves [{least:g}, {most:g}]; mend it")

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

    def feedback(self, found: object, slate: Tensor) -> None:
        if not isinstance(found, Feedback):
            self.refuse(
                f"respond returned {type(found).__name__}; return a marec_env.users.Feedback"
            )
        assert isinstance(found, Feedback)
        behaviours, outcomes = found.behaviours, found.outcomes
        if not isinstance(behaviours, Mapping) or tuple(behaviours) != self.users.behaviours:
            self.refuse(f"respond returned other behaviours than {self.users.behaviours}, in order")
        for key, values in behaviours.items():
            self.numbers(f"respond: behaviour '{key}'", values, *slate.shape)
        if bool(((found.clicks != 0) & (found.clicks != 1)).any()):
            self.refuse("respond: behaviour 'click' holds numbers other than 0 and 1")
        for key, most in (("engagement", 1.0), ("satisfaction", 1.0), ("gap_days", math.inf)):
            value = getattr(found, key)
            if value is not None or key != "gap_days":
                self.numbers(f"respond: {key}", value, self.sessions, least=0, most=most)
        numbers(f"{self.what}: respond: left", found.left, self.sessions, dtype=torch.bool)
        if not isinstance(outcomes, Mapping) or tuple(outcomes) != (
            self.outcomes or tuple(outcomes)
        ):
            self.refuse(f"respond returned other outcomes than before ({self.outcomes})")
        self.outcomes = tuple(outcomes)
        for key, values in outcomes.items():
            self.numbers(f"respond: outcome '{key}'", values, self.sessions)


def check_population(population: Population) -> None:
    """Refuse a population that is empty, inconsistent or not finite.

    Raises:
        ConfigError: names the field, its value and what is allowed.
    """

    def refuse(name: str, found: object, allowed: object) -> None:
        raise ConfigError(f"population.{name} {found}; allowed: {allowed}")

    for name in ("user_factors", "item_factors"):
        shape = tuple(getattr(population, name).shape)
        if len(shape) != 2 or 0 in shape:
            refuse(name, f"has shape {shape}", "at least one row of at least one factor")
    for name in ("scale", "intercept"):
        if not math.isfinite(getattr(population, name)):
            refuse(name, f"is {getattr(population, name)}", "a finite number")
    topics = population.num_topics
    if topics < 1:
        refuse("num_topics", f"is {topics}", "at least 1")
    users, size = population.user_factors.shape
    items, history = population.num_items, population.history
    whole: dict[str, tuple[Tensor, tuple[int, ...]]] = {
        "user_factors": (population.user_factors, (users, size)),
        "item_factors": (population.item_factors, (items, size)),
        "quality": (population.quality, (items,)),
        "topics": (population.topics, (items,)),
        "history.begin": (history.begin, (users,)),
        "history.end": (history.end, (users,)),
        "history.item": (history.item, (history.item.numel(),)),
        "history.liked": (history.liked, (history.item.numel(),)),
    }
    if population.providers is not None:
        whole["providers"] = (population.providers, (items,))
    for kind, count in (("item_attributes", items), ("user_attributes", users)):
        for name, values in getattr(population, kind).items():
            whole[f"{kind}.{name}"] = (values, (count,))
    ranges = {"topics": (0, topics), "history.item": (-1, items), "providers": (0, items)}
    places = history.item.numel() + 1
    ranges |= dict.fromkeys(("history.begin", "history.end"), (0, places))
    for name, (values, shape) in whole.items():
        if tuple(values.shape) != shape:
            refuse(name, f"has shape {tuple(values.shape)}", shape)
        bad = int((~torch.isfinite(values)).sum())
        if bad:
            refuse(name, f"has {bad} values that are NaN or infinite", "finite numbers")
        least, end = ranges.get(name, (0, 0))
        if name in ranges and values.numel():
            low, high = int(values.min()), int(values.max())
            if low < least or high >= end:
                refuse(name, f"holds {low} ... {high}", f"{least} ... {end - 1}")
