"""Batched user simulators: what they offer, the modules they are composed of, and oracles."""

from marec_env.catalog.population import Population
from marec_env.users.base import Feedback, Users
from marec_env.users.composed import ComposedUsers
from marec_env.users.config import UsersConfig
from marec_env.users.oracles import ORACLES
from marec_env.users.registry import USER_MODELS, make_users

__all__ = [
    "ORACLES",
    "USER_MODELS",
    "ComposedUsers",
    "Feedback",
    "Population",
    "Users",
    "UsersConfig",
    "make_users",
]
