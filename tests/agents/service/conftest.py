"""A small world, untrained teams for it, and their bundles."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import marec_env
from agents.learners.config import MAPPOConfig, NetworkConfig
from agents.learners.policy import TrainedPolicy
from agents.learners.team import TeamSpec
from agents.service.bundle import Bundle, load_bundle, save_bundle
from agents.service.databases import Place, Schema
from marec_env.simulator import Simulator
from marec_env.world import World
from tests.worlds import small_environment

RICH = {
    "components": ("trainer", "profile", "recall", "feature", "auditor", "ranking"),
    "messages": {"kind": "learned", "topology": "full", "delay": 1, "every": 2, "noise": 0.1},
    "trainer": {"every": 2},
    "sequential": True,
}
"""Everything that a team can remember beside the sessions' memory."""


@cache
def small_team(seed: int = 0, rich: bool = False) -> tuple[World, TrainedPolicy]:
    """Return a world and a team whose networks were drawn, not trained."""
    section = {"candidates": 20, "slate_size": 5, **(RICH if rich else {})}
    simulator = marec_env.make_vec(small_environment(pipeline=section), num_sessions=4)
    assert isinstance(simulator, Simulator)
    team = TeamSpec.of(simulator)
    network = NetworkConfig(recurrent_units=16) if rich else NetworkConfig()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        actors = {a: team.build_actor(MAPPOConfig(actor=network), a).eval() for a in team.agents}
        for actor in actors.values():  # decisions that depend on what is observed
            for weights in actor.parameters():
                weights.data += 0.3 * torch.randn_like(weights)
    return simulator.world, TrainedPolicy(team, actors)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the plain team."""
    place = tmp_path_factory.mktemp("bundles") / "plain"
    save_bundle(Bundle.of(*small_team()), place)
    return place


@pytest.fixture(scope="session")
def bundle(folder: Path) -> Bundle:
    return load_bundle(folder)


def history_of(bundle: Bundle, seed: int, items: int = 6) -> list[Any]:
    """Return identifiers of some items."""
    drawn = torch.randperm(len(bundle.ids), generator=torch.Generator().manual_seed(seed))
    return [bundle.ids[place] for place in drawn[:items].tolist()]


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL server of our own, which keeps nothing; one database."""
    pytest.importorskip("psycopg")
    installed = map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))
    found = shutil.which("initdb", path=os.pathsep.join([os.environ["PATH"], *installed]))
    if found is None:
        pytest.skip("PostgreSQL's initdb is not installed (apt-get install postgresql)")
    # A server will not run as root; the account is one that comes with the package.
    account: dict[str, Any] = {"user": "postgres"} if os.geteuid() == 0 else {}
    place = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # short, as a socket's path must be
    if account:
        shutil.chown(place, "postgres")

    def run(program: str, *arguments: str) -> None:
        command = [str(Path(found).with_name(program)), "-D", str(place / "data"), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=place, **account)

    try:
        run("initdb", "--no-sync", "--username=marec", "--auth=trust", "--encoding=UTF8")
        own = f"-F -k {place} -c listen_addresses= -c shared_buffers=16MB"
        run("pg_ctl", "start", "--wait", "--log", str(place / "log"), "-o", own)
        yield f"postgresql://marec@/postgres?host={place}"
        run("pg_ctl", "stop", "--mode=immediate")
    finally:
        shutil.rmtree(place)


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place that holds nothing yet, of each kind."""
    if request.param == "SQLite":
        return tmp_path / "service.sqlite"
    return Schema(request.getfixturevalue("postgresql"), f"marec{secrets.token_hex(4)}")
