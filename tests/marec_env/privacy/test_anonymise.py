"""A log to share: what it no longer says, and users who are taken out as if never in it."""

from __future__ import annotations

import hmac
from collections import Counter
from pathlib import Path

import pytest
import torch

from marec_env.data.config import DataConfig
from marec_env.data.readers import read_plain
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError, DataError
from marec_env.privacy.anonymise import (
    Coarsening,
    anonymise,
    forget,
    k_anonymous,
    pseudonym,
    secret_key,
)
from marec_env.world import build_world

KEY = b"a key that nobody can guess"
DAY = 86_400
START = 1_500_000_000 // (10 * DAY) * (10 * DAY)


def write(folder: Path, users: int = 12, left_out: int | None = None) -> Path:
    """Write a log: user n has items n, n+1 ... of 30, the last of which is his alone."""
    people = [n for n in range(users) if n != left_out]
    rows = [
        f"u{n},i{item},{(5, 2)[(n + item) % 2]},{START + 7_777 * n + DAY * item},{n / 7:.4f}"
        for n in people
        for item in (*range(n % 4, n % 4 + 8), 18 + n)
    ]
    folder.mkdir()
    header = "user_id,item_id,rating,timestamp,payment"
    (folder / "interactions.csv").write_text("\n".join([header, *rows]) + "\n")
    items = "".join(f"i{n},Title {n}\n" for n in range(30))
    (folder / "items.csv").write_text("item_id,title\n" + items)
    facts = "".join(f"u{n},{20 + n},{'FM'[n % 2]},{n % 5 + 1}\n" for n in people)
    (folder / "users.csv").write_text("user_id,age,gender,risk_limit\n" + facts)
    shown = "".join(f"u{n},i0,{START},0,0\n" for n in people)
    (folder / "impressions.csv").write_text("user_id,item_id,timestamp,position,click\n" + shown)
    pairs = "".join(f"u{n},u{(n + 1) % users}\n" for n in people if (n + 1) % users != left_out)
    (folder / "friends.csv").write_text("user_id,friend_id\n" + pairs)
    return folder


def rows_of(path: Path) -> list[list[str]]:
    return [line.split(",") for line in path.read_text().splitlines()]


def test_names_times_rare_items_and_amounts_are_gone(tmp_path: Path) -> None:
    source, out = write(tmp_path / "log"), tmp_path / "out"
    told = anonymise(str(source), out, KEY, Coarsening(days=10, events=6, k=3))
    header, *rows = rows_of(out / "interactions.csv")
    assert header == ["user_id", "item_id", "rating", "timestamp"]
    expected = hmac.digest(KEY, b"user\0u3", "sha256").hex()[:16]
    assert pseudonym(KEY, "u3") == expected and expected in {row[0] for row in rows}
    assert pseudonym(KEY + b"!", "u3") != expected
    assert not any(row[0].startswith("u") for row in rows)
    assert {int(row[3]) % (10 * DAY) for row in rows} == {0}
    assert set(Counter(row[0] for row in rows).values()) == {6}
    assert len(rows) == 12 * 6 and "i20" not in {row[1] for row in rows}
    assert told.counts["events of items that fewer than 3 users consumed"] == 12
    assert told.counts["events beyond 6 of a user"] == 12 * (8 - 6)
    assert told.counts["further columns of events"] == 1
    assert told.counts["file: impressions.csv"] == told.counts["file: friends.csv"] == 1
    assert rows == sorted(rows, key=lambda row: (row[0], row[3], row[1]))
    log = read_plain(DataConfig(source=str(out)))
    assert (
        log.num_users == 12 and log.item_ids == read_plain(DataConfig(source=str(source))).item_ids
    )
    again = tmp_path / "again"
    anonymise(str(source), again, KEY, Coarsening(days=10, events=6, k=3))
    assert (again / "interactions.csv").read_bytes() == (out / "interactions.csv").read_bytes()


def test_what_is_asked_for_is_kept(tmp_path: Path) -> None:
    source, out = write(tmp_path / "log"), tmp_path / "out"
    told = anonymise(str(source), out, KEY, Coarsening(0, 0, 1, ("payment",)))
    _, *rows = rows_of(out / "interactions.csv")
    _, *before = rows_of(source / "interactions.csv")
    assert sorted(row[1:] for row in rows) == sorted(row[1:] for row in before)
    assert told.lines() == ["1 file: impressions.csv", "1 file: friends.csv"]
    with pytest.raises(DataError, match="name a new folder"):
        anonymise(str(source), out, KEY, Coarsening())
    with pytest.raises(ConfigError, match="--keep watch_time: no column"):
        anonymise(str(source), tmp_path / "other", KEY, Coarsening(keep=("watch_time",)))


def test_every_combination_of_attributes_is_shared(tmp_path: Path) -> None:
    cells = {
        "age": [str(20 + (7 * n) % 50) for n in range(40)],
        "gender": ["F" if n % 3 else "M" for n in range(40)],
        "risk_limit": [str(1 + n % 7) for n in range(40)],
        "town": [f"town {n}" for n in range(40)],
    }
    made, hidden, coarser = k_anonymous(cells, 4)
    shared = Counter(zip(*made.values(), strict=True))
    assert min(shared.values()) >= 4 and len(shared) >= 5
    assert all(
        int(new) <= int(old)
        for new, old in zip(made["risk_limit"], cells["risk_limit"], strict=True)
    )  # a limit never rises
    assert hidden == sum(
        bool(old and not new)
        for name in cells
        for new, old in zip(made[name], cells[name], strict=True)
    )
    changed = sum(a != b for name in cells for a, b in zip(made[name], cells[name], strict=True))
    assert coarser == changed - hidden and set(made["town"]) == {""}
    assert k_anonymous(cells, 1)[0]["age"] == cells["age"]
    with pytest.raises(DataError, match="40 users cannot be 41-anonymous"):
        k_anonymous(cells, 41)


def test_the_key_is_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAREC_PRIVACY_KEY", raising=False)
    with pytest.raises(ConfigError, match="MAREC_PRIVACY_KEY: 0 characters of a key"):
        secret_key(None)
    place = tmp_path / "key.txt"
    place.write_text("0123456789abcdef\n")
    assert secret_key(place) == b"0123456789abcdef"
    monkeypatch.setenv("MAREC_PRIVACY_KEY", "fedcba9876543210")
    assert secret_key(None) == b"fedcba9876543210"


def test_forgotten_is_as_never_there(tmp_path: Path) -> None:
    """Files, factors, neighbours, popularity and drawn users, bit for bit."""
    whole, never = write(tmp_path / "whole"), write(tmp_path / "never", left_out=5)

    def built(folder: Path, epsilon: float | None) -> dict[str, torch.Tensor]:
        section = {
            "max_requests": 2,
            "data": {"source": str(folder)},
            "embeddings": {"encoder": "hashing", "cache": False},
            "catalog": {"num_topics": 3},
            "population": {"history": 4, "dim": 2},
            "knowledge": {"dim": 2},
            "pipeline": {"candidates": 8, "slate_size": 2},
        }
        if epsilon:
            section["data"] |= {"privacy": {"epsilon": epsilon}}  # type: ignore[operator]
        world = build_world(EnvironmentConfig.model_validate(section))
        return {
            "cf": world.knowledge.cf,
            "neighbours": world.knowledge.neighbours,
            "popularity": world.knowledge.popularity,
            "users": world.population.user_factors,
            "visible": world.visible_log.item,
        }

    before = built(whole, None)
    lost = forget(whole, ["u5"])
    assert lost == {"interactions.csv": 9, "users.csv": 1, "impressions.csv": 1, "friends.csv": 2}
    for name in lost:
        assert (whole / name).read_text().splitlines() == (never / name).read_text().splitlines()
    for epsilon in (None, 2.0):
        after, expected = built(whole, epsilon), built(never, epsilon)
        assert all(torch.equal(after[name], expected[name]) for name in expected)
    assert not torch.equal(before["popularity"], built(whole, None)["popularity"])
    with pytest.raises(DataError, match="no user 'u5'"):
        forget(whole, ["u5", "u6"])
    assert rows_of(whole / "users.csv")[-1][0] == "u11" and len(rows_of(whole / "users.csv")) == 12
