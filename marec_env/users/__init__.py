"""Batched user simulators: modules, presets and the Gymnasium slate environment."""

from marec_env.users.base import Feedback, Users
from marec_env.users.composed import ComposedUsers
from marec_env.users.config import UsersConfig
from marec_env.users.population import Population
from marec_env.users.registry import USER_MODELS, MarecUsers, make_users

__all__ = [
    "USER_MODELS",
    "ComposedUsers",
    "Feedback",
    "MarecUsers",
    "Population",
    "Users",
    "UsersConfig",
    "make_users",
]
