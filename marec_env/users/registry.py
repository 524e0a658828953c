"""User models by name, and :func:`make_users`, which builds one.

Refusal of damaged populations, with the name of what is wrong and what is allowed.
"""

from __future__ import annotations

import math
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from marec_env.catalog.population import Population
from marec_env.errors import ConfigError
from marec_env.registry import Registry, callable_at, is_own, naming
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
_NEEDED = (
    "reset",
    "respond",
    "click_probability",
    "long_term_relevance",
    "hidden_state",
    "state_dict",
    "load_state_dict",
    "user_index",
    "is_new",
    "behaviours",
)

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
    factory = callable_at("users.model", USER_MODELS, config.model)
    device = torch.device(device)
    if not is_own(config.model):
        return factory(config, population, num_sessions, device)
    with naming(f"user model '{config.model}'"):
        users = factory(config, population, num_sessions, device)
    return cast(Users, OwnUsers(config.model, users, num_sessions, population.num_items))


class OwnUsers:
    """A user model of the user's own, whose answers are looked at before the simulator uses them.

    Everything else is the model's: attributes and methods pass through.
    """

    def __init__(self, name: str, users: Any, num_sessions: int, num_items: int) -> None:
        """Args:
        name: where the model comes from, for messages.
        users: what its factory gave.
        num_sessions: B.
        num_items: N.

        Raises:
            ConfigError: it lacks something that users must have.
        """
        self._name, self._users = f"user model '{name}'", users
        self._shape = (num_sessions, num_items)
        needed = [part for part in _NEEDED if not hasattr(users, part)]
        if needed:
            raise ConfigError(
                f"{self._name} gives {type(users).__name__}, which lacks {', '.join(needed)}; see "
                "marec_env.users.base.Users"
            )

    def __getattr__(self, name: str) -> Any:
        """Return what is the model's."""
        return getattr(self._users, name)

    def reset(self, keys: Tensor, where: Tensor | None = None) -> None:
        """See :meth:`marec_env.users.base.Users.reset`."""
        with naming(f"{self._name}: reset"):
            self._users.reset(keys, where)

    def respond(self, slate: Tensor) -> Feedback:
        """See :meth:`marec_env.users.base.Users.respond`."""
        with naming(f"{self._name}: respond"):
            found = self._users.respond(slate)
        if not isinstance(found, Feedback):
            raise ConfigError(f"{self._name}: respond gave {type(found).__name__}; give a Feedback")
        if "click" not in found.behaviours:
            raise ConfigError(f"{self._name}: respond gave no behaviour 'click'")
        rows = (self._shape[0],)
        for what, value in found.behaviours.items():
            self._look(f"respond's behaviour '{what}'", value, tuple(slate.shape))
        for what in ("engagement", "satisfaction", "left"):
            self._look(f"respond's {what}", getattr(found, what), rows)
        for what, value in found.outcomes.items():
            self._look(f"respond's outcome '{what}'", value, rows)
        return found

    def click_probability(self, items: Tensor | None = None) -> Tensor:
        """See :meth:`marec_env.users.base.Users.click_probability`."""
        with naming(f"{self._name}: click_probability"):
            found = self._users.click_probability(items)
        return self._look("click_probability", found, self._shape if items is None else items.shape)

    def long_term_relevance(
        self, items: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """See :meth:`marec_env.users.base.Users.long_term_relevance`."""
        with naming(f"{self._name}: long_term_relevance"):
            found = self._users.long_term_relevance(items, rows=rows)
        count = self._shape[0] if rows is None else len(rows)
        return self._look(
            "long_term_relevance", found, (count, self._shape[1]) if items is None else items.shape
        )

    def _look(self, what: str, value: Any, shape: tuple[int, ...]) -> Tensor:
        """Return a tensor of numbers of the right shape."""
        if not isinstance(value, Tensor) or tuple(value.shape) != tuple(shape):
            given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ConfigError(
                f"{self._name}: {what} is {given}; needed: a tensor of shape {tuple(shape)}"
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ConfigError(f"{self._name}: {what} holds numbers that are not finite")
        return value


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
