"""The world is kept between calls only as long as the log's files hold the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from marec_env import world
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError, DataError

ROWS = [f"u{n % 8},i{n % 30},{(5, 2)[n % 2]},{1_500_000_000 + 9_000 * n}" for n in range(120)]


def write(folder: Path, rows: list[str]) -> None:
    lines = ["user_id,item_id,rating,timestamp", *rows]
    (folder / "interactions.csv").write_text("\n".join(lines))
    (folder / "items.csv").write_text(
        "item_id,title\n" + "".join(f"i{n},T{n}\n" for n in range(30))
    )


def config(folder: Path) -> EnvironmentConfig:
    return EnvironmentConfig.model_validate(
        {
            "max_requests": 2,
            "data": {"source": str(folder)},
            "embeddings": {"encoder": "hashing", "cache": False},
            "catalog": {"num_topics": 3},
            "population": {"history": 4, "dim": 2},
            "knowledge": {"dim": 2},
            "pipeline": {"candidates": 8, "slate_size": 2},
        }
    )


def test_changed_files_are_read_again_and_the_same_are_not(tmp_path: Path) -> None:
    write(tmp_path, ROWS)
    first = world.build_world(config(tmp_path))
    assert first.log.num_interactions == 120
    assert world.build_world(config(tmp_path)).log is first.log
    times = os.stat(tmp_path / "interactions.csv")
    write(tmp_path, [*ROWS[:-1], ROWS[-1].replace(",2,", ",3,")])  # as long, and as old
    os.utime(tmp_path / "interactions.csv", ns=(times.st_atime_ns, times.st_mtime_ns))
    again = world.build_world(config(tmp_path)).log
    assert 3.0 in again.rating.tolist()
    (tmp_path / "users.csv").write_text("user_id,gender\n" + "".join(f"u{n},F\n" for n in range(8)))
    assert world.build_world(config(tmp_path)).log.group_names == ("F",)


def test_files_that_change_while_they_are_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, ROWS)
    monkeypatch.setattr(world, "files_fingerprint", lambda data: "another")
    with pytest.raises(DataError, match="changed while they were read; try again"):
        world.build_world(config(tmp_path))


def test_sizes_beyond_memory_are_refused_with_the_key_that_takes_most(tmp_path: Path) -> None:
    write(tmp_path, ROWS)
    small = config(tmp_path)
    longer = small.population.model_copy(update={"history": 10_000})
    monster = small.model_copy(update={"population": longer})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("marec_env.memory.available_memory", lambda: 10**6)
        with pytest.raises(ConfigError, match=r"8 users and 30 items: .*lower population\.history"):
            world.build_world(monster)
