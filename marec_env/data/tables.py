"""Delimited text files read strictly: every fault is named with its file, count and lines."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from marec_env.errors import DataError

__all__ = ["Table", "read_table"]

T = TypeVar("T")
_SHOWN = 5  # line numbers or identifiers quoted in an error


class Table:
    """A file's columns as text, with the line each row came from."""

    def __init__(self, path: Path, columns: dict[str, list[str]], lines: list[int]) -> None:
        """Args:
        path: the file, for messages.
        columns: the cells of each column, stripped.
        lines: the line of each row, from 1.
        """
        self.path = path
        self.columns = columns
        self.lines = lines

    def __len__(self) -> int:
        return len(self.lines)

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def fail(self, bad: Sequence[int], what: str) -> DataError:
        """Return the error for bad rows (positions): how many of how many, what, which lines."""
        lines = ", ".join(str(self.lines[row]) for row in bad[:_SHOWN])
        more = ", ..." if len(bad) > _SHOWN else ""
        rows = "row" if len(bad) == 1 else "rows"
        return DataError(
            f"{self.path}: {len(bad)} bad {rows} of {len(self)}: {what} "
            f"(line{'s' if len(bad) > 1 else ''} {lines}{more}); correct or remove them"
        )

    def parse(self, name: str, convert: Callable[[str], T], what: str) -> list[T]:
        """Return a column converted; ``convert`` raises ``ValueError`` for a bad cell."""
        values: list[T] = []
        bad: list[int] = []
        for row, cell in enumerate(self.columns[name]):
            try:
                values.append(convert(cell))
            except ValueError:
                bad.append(row)
        if bad:
            found = self.columns[name][bad[0]]
            raise self.fail(bad, f"'{name}' must be {what}, found '{found}'")
        return values

    def numbers(self, name: str) -> list[float]:
        """Return a column of finite numbers."""
        return self.parse(name, _finite, "a finite number")

    def identifiers(self, name: str) -> list[str]:
        """Return a column of which no cell is empty."""
        return self.parse(name, _not_empty, "non-empty")

    def unique(self, name: str) -> list[str]:
        """Return a column of non-empty identifiers, each of which occurs once."""
        values = self.identifiers(name)
        seen: set[str] = set()
        bad = [row for row, value in enumerate(values) if value in seen or seen.add(value)]  # type: ignore[func-returns-value]
        if bad:
            raise self.fail(bad, f"duplicate '{name}', first '{values[bad[0]]}'")
        return values


def _finite(cell: str) -> float:
    value = float(cell)
    if not math.isfinite(value):
        raise ValueError(cell)
    return value


def _not_empty(cell: str) -> str:
    if not cell:
        raise ValueError(cell)
    return cell


def read_table(path: Path, required: Sequence[str], delimiter: str = ",") -> Table:
    """Read a delimited file with a header.

    Args:
        path: a UTF-8 file; a byte-order mark is skipped.
        required: columns that must be there; others are kept too.
        delimiter: ``","`` (quotes as in RFC 4180) or a tab (no quotes).

    Raises:
        DataError: the file is missing, unreadable, empty, not UTF-8, has a repeated or missing
            column, or rows with the wrong number of cells.
    """
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(
                stream,
                delimiter=delimiter,
                quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL,
            )
            header = [cell.strip() for cell in next(reader, [])]
            for row in reader:
                if row:  # a blank line is no row
                    rows.append(row)
                    lines.append(reader.line_num)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); convert it") from error
    except csv.Error as error:
        raise DataError(f"{path}: not a delimited text file: {error}") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if not header:
        raise DataError(f"{path}: the file is empty; it needs the columns {', '.join(required)}")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(f"{path}: repeated column '{repeated[0]}'; each column once")
    missing = [name for name in required if name not in header]
    if missing:
        raise DataError(
            f"{path}: missing column{'s' if len(missing) > 1 else ''} {', '.join(missing)} "
            f"(there are: {', '.join(header)}; needed: {', '.join(required)})"
        )
    if not rows:
        raise DataError(f"{path}: no rows below the header; it needs at least one")
    table = Table(path, {}, lines)
    bad = [index for index, row in enumerate(rows) if len(row) != len(header)]
    if bad:
        found = len(rows[bad[0]])
        raise table.fail(bad, f"{len(header)} cells expected, found {found}")
    cells = zip(*rows, strict=True)
    columns = {
        name: [cell.strip() for cell in column] for name, column in zip(header, cells, strict=True)
    }
    return Table(path, columns, lines)
