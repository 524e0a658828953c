"""PettingZoo parallel environments that were written elsewhere, by configuration."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any, Literal

from pydantic import Field

from agents.pettingzoo_vector import PettingZooVectorEnv
from marec_env.config.base import ConfigModel
from marec_env.errors import ConfigError, PluginError
from marec_env.registry import load_object, naming

__all__ = ["PettingZooConfig", "make_pettingzoo", "makes_environments"]


class PettingZooConfig(ConfigModel):
    """A PettingZoo parallel environment that was written elsewhere."""

    kind: Literal["pettingzoo"] = "pettingzoo"
    entry_point: str = Field(
        pattern=r"^[\w.]+:[\w.]+$",
        description="Place of a function that returns a ParallelEnv: 'package.module:function',"
        " for example 'mpe2.simple_spread_v3:parallel_env'.",
    )
    kwargs: dict[str, Any] = Field(default={}, description="Arguments of the function.")
    num_envs: int = Field(default=8, ge=1, description="Copies stepped one after another.")
    state: Literal["own", "observations"] = Field(
        default="own",
        description="What a central critic sees: the environment's state() where it has one, or"
        " all observations one after another, which may cost less to make.",
    )


def make_pettingzoo(config: PettingZooConfig, num_envs: int | None = None) -> PettingZooVectorEnv:
    """Return the vector environment of a configuration.

    Args:
        config: entry point, its arguments, copies.
        num_envs: overrides ``config.num_envs``.

    Raises:
        ConfigError: the entry point cannot be imported or called so, or does not give a parallel
            environment.
    """
    function: Any = load_object(config.entry_point)
    if not makes_environments(function):
        raise ConfigError(
            f"'{config.entry_point}' is no PettingZoo environment: name a class of one, or a "
            "function of a module that uses pettingzoo; nothing was called"
        )
    try:
        inspect.signature(function).bind(**config.kwargs)
    except TypeError as error:
        raise ConfigError(f"kwargs of '{config.entry_point}': {error}") from error
    except ValueError:  # no signature to look at: the call itself will tell
        pass
    try:
        with naming(f"environment '{config.entry_point}'"):
            env = function(**config.kwargs)
    except PluginError as error:
        if isinstance(error.__cause__, TypeError):  # a wrong name that the function passed on
            raise ConfigError(f"kwargs of '{config.entry_point}': {error.__cause__}") from error
        raise
    if not hasattr(env, "possible_agents") or hasattr(env, "agent_iter"):
        raise ConfigError(
            f"'{config.entry_point}' gives {type(env).__name__}, not a PettingZoo ParallelEnv with"
            " possible_agents (an AEC environment's module has a parallel_env function for it)"
        )
    return PettingZooVectorEnv(
        partial(function, **config.kwargs), num_envs or config.num_envs, config.state
    )


def makes_environments(found: Any) -> bool:
    """Return whether an object looks like what makes PettingZoo environments; nothing is called.

    A class is asked for the methods of one, a function for traces of pettingzoo: where it is
    defined, and what it or its module uses.
    """
    if isinstance(found, type):
        return all(hasattr(found, name) for name in ("reset", "step", "observation_space"))
    if isinstance(found, partial):
        return makes_environments(found.func)
    code, module = getattr(found, "__code__", None), getattr(found, "__globals__", {})
    used = [found, *module.values()]
    return code is not None and (
        any(str(getattr(one, "__module__", "")).startswith("pettingzoo") for one in used)
        or any(str(getattr(one, "__name__", "")).startswith("pettingzoo") for one in used)
        or any(makes_environments(one) for one in module.values() if isinstance(one, type))
        or any("pettingzoo" in name for name in code.co_names)
    )
