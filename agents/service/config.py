"""Configuration of the service: ``marec serve BUNDLE --config service.yaml``."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from marec_env.config import ConfigModel, Seed
from marec_env.errors import ConfigError

__all__ = [
    "Replica", "ServiceConfig", "check_files", "check_reachable", "database_file", "files_of",
]  # fmt: skip

_OTHERS = ("postgresql", "postgres", "redis", "rediss", "mysql")


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

    def file(self, database: Path) -> Path:
        """Return where this one keeps its sessions."""
        if self.count == 1:
            return database
        return database.with_name(f"{database.name}-{self.number + 1}-of-{self.count}")


def files_of(database: Path) -> list[Path]:
    """Return the files that there are of a database: one, or one for each replica."""
    name = re.compile(rf"{re.escape(database.name)}(-\d+-of-\d+)?")
    there = database.parent.iterdir() if database.parent.is_dir() else ()
    return sorted(file for file in there if name.fullmatch(file.name))


def check_files(database: Path, replicas: int) -> None:
    """Refuse a database that another number of replicas has written: sessions have one owner.

    Raises:
        ConfigError: it is such.
    """
    own = {Replica(number, replicas).file(database) for number in range(replicas)}
    for file in files_of(database):
        if file not in own:
            raise ConfigError(
                f"--replicas {replicas}: {file} was written by another number of replicas; start "
                "as many, or name another --database"
            )


def database_file(database: str) -> str:
    """Return the file of a database, ``FILE`` or ``sqlite:///FILE``.

    Raises:
        ConfigError: it is another kind of database.
    """
    kind, separator, rest = database.partition("://")
    if not separator:
        return database
    if kind == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return rest[1:]
    if kind in _OTHERS:
        raise ConfigError(
            f"--database: {kind} is not supported; sessions and events are kept in SQLite: name a "
            "file, such as service.sqlite"
        )
    raise ConfigError(f"--database: '{database}' is no file; name one, such as service.sqlite")


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
