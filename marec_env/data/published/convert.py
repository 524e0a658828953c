"""From a data set's published files to a folder of the plain format, row by row.

What a data set is stands in ``datasets.yaml``: its files, and which columns become which. Rows are
never held: memory grows with the number of distinct items and users, whose identifiers are kept.
"""

from __future__ import annotations

import csv
import secrets
import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import yaml
from pydantic import Field, TypeAdapter

from marec_env.config import ConfigModel
from marec_env.data.published.rows import Part, Report, read_rows
from marec_env.data.times import TimeUnit
from marec_env.errors import ConfigError, DataError, unknown_name


class Dataset(ConfigModel):
    """A published data set; of several parts for a file the first is taken that is there."""

    title: str = Field(description="its name, and which of its forms are known")
    terms: str = Field(description="on what terms it may be used")
    meaning: str = Field(description="what a rating is, and what counts as liked")
    like_threshold: float = Field(description="the data.like_threshold that says so")
    time_unit: TimeUnit = Field(default="auto", description="the data.time_unit of its times")
    note: str = Field(default="", description="what else to know")
    interactions: tuple[Part, ...] = Field(description="where interactions.csv comes from")
    items: tuple[Part, ...] = Field(default=(), description="where items.csv comes from")
    users: tuple[Part, ...] = Field(default=(), description="where users.csv comes from")
    impressions: tuple[Part, ...] = Field(default=(), description="where impressions.csv does")
    friends: tuple[Part, ...] = Field(default=(), description="where friends.csv comes from")


@cache
def datasets() -> Mapping[str, Dataset]:
    """Return the data sets by name."""
    text = (Path(__file__).parent / "datasets.yaml").read_text("utf-8")
    return TypeAdapter(dict[str, Dataset]).validate_python(yaml.safe_load(text), strict=False)


def dataset(name: str) -> Dataset:
    """Return a data set by name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in datasets():
        raise ConfigError(unknown_name("data set", name, datasets()))
    return datasets()[name]


def _chosen(parts: tuple[Part, ...], folder: Path) -> Part | None:
    return next((part for part in parts if any(folder.glob(part.file))), None)


def convert(known: Dataset, folder: Path, out: Path) -> Report:
    """Write a data set's files as a new folder of the plain format.

    Items that the data set describes are all kept; items and users that only interactions name are
    added. The folder appears when it is whole.

    Args:
        known: what its files are like.
        folder: where they are, as published; packed by gzip or not.
        out: must not exist.

    Raises:
        DataError: no such folder, none of its files there, a column that is missing, ``out`` is
            there, or nothing was kept.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give the one with the published files")
    if out.exists():
        raise DataError(f"{out} is there already; give a new folder")
    interactions = _chosen(known.interactions, folder)
    if interactions is None:
        wanted = " or ".join(part.file for part in known.interactions)
        raise DataError(f"{folder}: none of the files {wanted} ({known.title})")
    report = Report()
    partial = out.with_name(f".{out.name}.{secrets.token_hex(6)}")
    partial.mkdir(parents=True)
    try:
        _write_all(known, interactions, folder, partial, report)
        partial.rename(out)
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report


def _write_all(known: Dataset, interactions: Part, folder: Path, out: Path, report: Report) -> None:
    users: dict[str, None] = {}
    items: dict[str, None] = {}
    for name, part in (
        ("impressions.csv", _chosen(known.impressions, folder)),
        ("interactions.csv", interactions),
    ):
        if part is None:
            continue
        with _Writer(out / name, part.columns) as writer:
            for _, row in read_rows(part, folder, name, report):
                users[row["user_id"]] = items[row["item_id"]] = None
                writer.write(row)
                report.kept[name] += 1
    if not report.kept["interactions.csv"]:
        reasons = "; ".join(report.lines())
        raise DataError(f"{folder}: no interaction was kept: {reasons}")
    _write_listed("items.csv", "item_id", _chosen(known.items, folder), items, folder, out, report)
    if part := _chosen(known.users, folder):
        _write_listed("users.csv", "user_id", part, users, folder, out, report)
    if part := _chosen(known.friends, folder):
        with _Writer(out / "friends.csv", part.columns) as writer:
            for where, row in read_rows(part, folder, "friends.csv", report):
                if row["user_id"] in users and row["friend_id"] in users:
                    writer.write(row)
                    report.kept["friends.csv"] += 1
                else:
                    report.drop("friends.csv", "one of the two has no interaction", where)


def _write_listed(
    name: str,
    key: str,
    part: Part | None,
    wanted: dict[str, None],
    folder: Path,
    out: Path,
    report: Report,
) -> None:
    """Write a file with a row for each item or user; those the source does not describe come last.

    Users without an interaction are left out.
    """
    columns = part.columns if part else {key: key, "title": key}
    written: set[str] = set()
    with _Writer(out / name, columns) as writer:
        for where, row in read_rows(part, folder, name, report) if part else ():
            one = row[key]
            if one in written:
                report.drop(name, "described before", where)
                continue
            if key == "user_id" and one not in wanted:
                report.drop(name, "no interaction", where)
                continue
            row = {**row, **{n: text for n, text in _filled(one).items() if not row.get(n)}}
            written.add(one)
            writer.write(row)
        rest = [one for one in wanted if one not in written]
        for one in rest:
            writer.write({**dict.fromkeys(columns, ""), key: one, **_filled(one)})
        report.kept[name] = len(written) + len(rest)
    if rest and part:
        what = "titled by their identifier" if key == "item_id" else "added without attributes"
        report.notes.append(f"{name}: {len(rest):,} that the source does not describe, {what}")


def _filled(identifier: str) -> dict[str, str]:
    """Return what stands where an item has none: these columns may not be empty."""
    return {"title": f"item {identifier}", "provider": "unknown"}


class _Writer:
    """A CSV file of fixed columns."""

    def __init__(self, path: Path, columns: Iterable[str]) -> None:
        self._stack = ExitStack()
        file = self._stack.enter_context(path.open("w", encoding="utf-8", newline=""))
        self._columns = list(columns)
        self._writer = csv.writer(file)
        self._writer.writerow(self._columns)

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def write(self, row: Mapping[str, str]) -> None:
        """Write a row by names; others are left out."""
        self._writer.writerow([row[name] for name in self._columns])
