"""What a component's inputs and decisions are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from marec_env.pipeline.fields import SESSION_STATISTICS

if TYPE_CHECKING:
    from marec_env.pipeline.component import Component
    from marec_env.simulator import Simulator

__all__ = ["InputGroup", "decision_names", "input_groups"]

MEMORY = "memory"
"""The group of a recurrent actor's own state."""


@dataclass(frozen=True, slots=True)
class InputGroup:
    """Columns of a component's input that are explained together."""

    name: str
    first: int
    last: int
    """One past the last column."""
    columns: tuple[str, ...]
    """A name for each column."""


def input_groups(simulator: Simulator, agent: str, memory: int) -> tuple[InputGroup, ...]:
    """Return the groups that make up an agent's input, in order and without gaps.

    There is one for each observation field, one for each component whose messages are heard, and
    one for a recurrent actor's memory. A component that makes its observation in a way of its own
    has one group, ``observation``.

    Args:
        simulator: of the environment.
        agent: whose input.
        memory: numbers of the actor's recurrent state, which follow the observation.
    """
    pipeline = simulator.pipeline
    component = pipeline.components[pipeline.agents.index(agent)]
    total = int(simulator.observation_spaces[agent].shape[0])
    table = pipeline.fields()
    widths = {name: int(table[name].shape[1]) for name in component.granted}
    heard = _heard(simulator, agent)
    width = simulator.config.pipeline.messages.dim
    if sum(widths.values()) + width * len(heard) == total:
        widths |= {f"message from {sender}": width for sender in heard}
    else:
        widths = {"observation": total}
    if memory:
        widths[MEMORY] = memory
    groups, first = [], 0
    for name, size in widths.items():
        groups.append(InputGroup(name, first, first + size, _columns(simulator, name, size)))
        first += size
    return tuple(groups)


def _heard(simulator: Simulator, agent: str) -> list[str]:
    messages = simulator.config.pipeline.messages
    if messages.kind == "none":
        return []
    agents = list(simulator.pipeline.agents)
    if messages.topology == "downstream":
        return agents[: agents.index(agent)]
    return [other for other in agents if other != agent]


def _columns(simulator: Simulator, field: str, size: int) -> tuple[str, ...]:
    config = simulator.config.pipeline
    topics = tuple(simulator.world.catalog.topic_names)
    known = {
        "session": SESSION_STATISTICS,
        "exposure": topics,
        "interest": topics,
        "channel_hits": tuple(config.recall.channels),
        "quotas": tuple(config.recall.channels),
        "block_use": tuple(config.blocks),
        "enabled": tuple(config.blocks),
    }.get(field, ())
    return known if len(known) == size else tuple(str(k) for k in range(size))


def decision_names(simulator: Simulator, agent: str, count: int) -> tuple[str, ...]:
    """Return a name for each number of an agent's action.

    Components other than the built-in four, and numbers beyond a component's own (learned
    messages), are numbered.
    """
    pipeline = simulator.pipeline
    component = pipeline.components[pipeline.agents.index(agent)]
    names = _built_in(component)[:count]
    return (*names, *(f"decision {k}" for k in range(len(names), count)))


def _built_in(component: Component) -> tuple[str, ...]:
    config = component.config
    blocks = tuple(config.blocks)
    scales = tuple(f"half-life {life:g}" for life in config.half_lives)
    own = {
        "profile": (*scales, "negative feedback", "population prior"),
        "recall": tuple(f"quota of {channel}" for channel in config.recall.channels),
        "feature": tuple(f"block {block}" for block in blocks),
        "ranking": (*(f"weight of {block}" for block in blocks), "diversity", "temperature"),
    }.get(component.name, ())
    size = sum(int(n) for n in component.action_space.shape or ())
    return own if len(own) == size else ()
