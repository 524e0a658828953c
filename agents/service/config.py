"""Configuration of the service: ``marec serve BUNDLE --config service.yaml``."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from marec_env.config import ConfigModel, Seed
from marec_env.errors import ConfigError


class ServiceConfig(ConfigModel):
    """How a service works; every key has a default."""

    explore: bool = Field(
        default=False,
        description="Components draw their actions instead of taking the most probable ones, and "
        "every decision is kept with its probability: what training from the log needs.",
    )
    seed: Seed = Field(default=0, description="Of the draws of slates and actions.")
    batch: int = Field(
        default=64, ge=1, le=1024, description="Requests that are answered at once, at most."
    )
    sessions: int = Field(
        default=2048,
        ge=16,
        le=1_000_000,
        description="Sessions kept in memory; others are read from the database when they go on.",
    )
    waiting: int = Field(
        default=1024, ge=1, description="Requests that may wait; more are refused with 503."
    )
    body_bytes: int = Field(
        default=262_144, ge=1024, le=67_108_864, description="Largest body of a request."
    )
    rate: float = Field(
        default=0.0,
        ge=0,
        description="Requests a second that one key (without keys: one address) may make, twice as "
        "many at a stroke; 0: no limit.",
    )
    keys: tuple[str, ...] = Field(
        default=(),
        description="Files of API keys, one a line; a request then needs 'Authorization: Bearer "
        "KEY'. Required where others than this machine can connect.",
    )
    pseudonyms: bool = Field(
        default=True,
        description="Keep of a user's name a keyed hash only; the key lies beside the database.",
    )
    retention_days: float = Field(
        default=90.0, gt=0, le=36_500, description="Sessions idle for longer are deleted."
    )
    synchronous: Literal["full", "normal"] = Field(
        default="full",
        description="When an answer is on disk before it is given: full, always; normal: what was "
        "acknowledged survives a killed process, but not a power failure.",
    )
    policies: str | None = Field(
        default=None,
        description="Folder of the bundles that PUT /policies may name; by default that in which "
        "the first bundle lies.",
    )


@dataclass(frozen=True, slots=True)
class Replica:
    """One of several processes that share the sessions of a service."""

    number: int = 0
    """From 0."""
    count: int = 1

    def __str__(self) -> str:
        return f"replica {self.number + 1} of {self.count}"

    def owner(self, session: str) -> int:
        """Return the number of the replica that keeps a session, as its name tells."""
        try:
            return int(session[8:16], 16) % self.count  # what is before decides on its team
        except ValueError:
            return 0


def check_reachable(host: str, keys: bool) -> None:
    """Refuse to be open to others without keys.

    Raises:
        ConfigError: it would be.
    """
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local and not keys:
        raise ConfigError(
            f"--host {host}: others can connect, and there are no keys; give files of keys in the "
            "configuration (keys: [keys.txt]), or --host 127.0.0.1"
        )
