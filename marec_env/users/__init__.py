"""Batched user simulators: modules, presets, oracles and the Gymnasium slate environment."""

from marec_env.catalog.population import Population
from marec_env.users.base import Feedback, Users
from marec_env.users.composed import ComposedUsers
from marec_env.users.config import UsersConfig
from marec_env.users.oracles import ORACLES
from marec_env.users.presets import PRESETS, Preset, get_preset
from marec_env.users.registry import USER_MODELS, MarecUsers, make_users
from marec_env.users.slate_env import SlateEnv, SlateVectorEnv

__all__ = [
    "ORACLES",
    "PRESETS",
    "USER_MODELS",
    "ComposedUsers",
    "Feedback",
    "MarecUsers",
    "Population",
    "Preset",
    "SlateEnv",
    "SlateVectorEnv",
    "Users",
    "UsersConfig",
    "get_preset",
    "make_users",
]
