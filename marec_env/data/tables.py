"""Delimited text files read strictly: every fault is named with its file, count and lines."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import itertools
import math
import re
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marec_env.errors import DataError, visible

T = TypeVar("T")
_SHOWN = 5  # line numbers quoted in an error
_LONGEST = 60  # characters of a cell quoted in an error
_CURE = "correct or remove them"
_CHUNK = 1 << 20  # bytes read at a time
_ROWS = 256  # rows taken in at a time: more would live long enough for the garbage collector
_LARGEST = 3.4028234663852886e38  # of float32, in which numbers are kept
UNKNOWN = frozenset(("", "na", "n/a", "nan", "null", "none", "<na>", "#n/a", "\\n"))
_INDEX = re.compile(
    r"|index|(__index_)?level_\d+(__)?|unnamed: \d+|(row_?)?id|row|rownames|row\.names",
    re.IGNORECASE,
)
_FEWEST_TO_COUNT = 10  # rows from which numbers k, k + 1, k + 2 ... are no coincidence


class UnfitError(ValueError):
    """A bad cell that another description fits better than its column's."""


def number(cell: str) -> float:
    """Return a finite number that float32 can hold; ``ValueError`` for anything else."""
    value = float(cell)
    if not math.isfinite(value) or "_" in cell:  # Python's own way to write thousands
        raise ValueError(cell)
    if abs(value) > _LARGEST:
        raise UnfitError("a number of at most 3.4e38")
    return value


def number_or_unknown(cell: str) -> float:
    """Return a number, or NaN for an empty cell or a word for it, such as ``NA``."""
    return math.nan if cell.lower() in UNKNOWN else number(cell)


def whole(cell: str) -> int:
    """Return a whole number, also of ``3.0``; ``ValueError`` for anything else."""
    value = number(cell)
    if value != round(value):
        raise ValueError(cell)
    return int(value)


class Column:
    """The cells of a column, of which each distinct text is kept, and converted, once."""

    __slots__ = ("codes", "texts")

    def __init__(self, texts: Sequence[str], codes: NDArray[np.int32]) -> None:
        """Args:
        texts: the distinct cells, in the order of their first rows.
        codes: the place of each row's cell among them.
        """
        self.texts, self.codes = texts, codes

    @classmethod
    def of(cls, cells: Iterable[str]) -> Column:
        """Return a column of cells."""
        coder = _Coder()
        coder.add(cells)
        return coder.column()

    def __len__(self) -> int:
        return len(self.codes)

    def __iter__(self) -> Iterator[str]:
        return map(self.texts.__getitem__, self.codes.tolist())

    def __getitem__(self, row: int) -> str:
        return self.texts[int(self.codes[row])]

    @property
    def distinct(self) -> bool:
        """Whether no cell is repeated; codes are then 0, 1, 2 ..."""
        return len(self.texts) == len(self.codes)


class _Coder:
    """Makes a column of cells that come some at a time."""

    def __init__(self) -> None:
        self._codes, self._place = array("i"), defaultdict[str, int](itertools.count().__next__)

    def add(self, cells: Iterable[str]) -> None:
        """Append cells; the loop over them is in C, since a log has millions."""
        self._codes.extend(map(self._place.__getitem__, cells))

    def column(self) -> Column:
        """Return the column."""
        return Column([*self._place], np.frombuffer(self._codes, np.int32))


@dataclass
class Table:
    """A file's columns as text, with the line each row came from."""

    path: Path
    columns: dict[str, Column]
    """The cells of each column, stripped."""
    lines: Sequence[int]
    """The line of each row, from 1."""
    digest: str = ""
    """SHA-256 of the file that was read."""
    notes: list[str] = field(default_factory=list)
    """What was left out of it, one line each."""

    def __len__(self) -> int:
        return len(self.lines)

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def fail(self, bad: Sequence[int], what: str, cure: str = _CURE) -> DataError:
        """Return the error for bad rows (positions): how many of how many, what, which lines."""
        lines = ", ".join(str(self.lines[row]) for row in bad[:_SHOWN])
        more = ", ..." if len(bad) > _SHOWN else ""
        rows, line = ("row", "line") if len(bad) == 1 else ("rows", "lines")
        return DataError(
            f"{self.path}: {len(bad)} bad {rows} of {len(self)}: {what} "
            f"({line} {lines}{more}); {cure}"
        )

    def parse(
        self, name: str, convert: Callable[[str], T], what: str, cure: str = _CURE
    ) -> list[T]:
        """Return a column converted; ``convert`` raises ``ValueError`` for a bad cell."""
        values = self._converted(name, convert, what, cure)
        return [*map(values.__getitem__, self.columns[name].codes.tolist())]

    def array(
        self, name: str, convert: Callable[[str], float], what: str, cure: str = _CURE
    ) -> NDArray[Any]:
        """Return a column converted to numbers, as int64 or float64 ``[R]``."""
        return np.array(self._converted(name, convert, what, cure))[self.columns[name].codes]

    def _converted(
        self, name: str, convert: Callable[[str], T], what: str, cure: str = _CURE
    ) -> list[T]:
        """Return the distinct cells of a column, converted."""
        column, values = self.columns[name], list[T]()
        wrong: dict[int, ValueError] = {}
        for code, cell in enumerate(column.texts):
            try:
                values.append(convert(cell))
            except ValueError as error:
                wrong[code] = error
        if wrong:
            bad = np.flatnonzero(np.isin(column.codes, [*wrong])).tolist()
            first = wrong[column.codes[bad[0]]]
            what = str(first) if isinstance(first, UnfitError) else what
            found = quoted(column[bad[0]])
            raise self.fail(bad, f"'{visible(name)}' must be {what}, found {found}", cure)
        return values

    def numbers(self, name: str, cure: str = _CURE) -> NDArray[Any]:
        """Return a column of finite numbers, float64 ``[R]``."""
        return self.array(name, number, "a finite number", cure)

    def identifiers(self, name: str) -> list[str]:
        """Return a column of which no cell is empty."""
        return self.parse(name, _not_empty, "non-empty")

    def different(self, name: str) -> list[str]:
        """Return the distinct cells of such a column."""
        return self._converted(name, _not_empty, "non-empty")

    def unique(self, name: str) -> list[str]:
        """Return a column of non-empty identifiers, each of which occurs once."""
        values = self.identifiers(name)
        if self.columns[name].distinct:
            return values
        seen: set[str] = set()
        bad = [row for row, value in enumerate(values) if value in seen or seen.add(value)]  # type: ignore[func-returns-value]
        if bad:
            raise self.fail(bad, f"duplicate '{name}', first {quoted(values[bad[0]])}")
        return values

    def places(self, name: str, known: dict[str, int], where: Path) -> Tensor:
        """Return where each identifier of a column stands in another file, int64 ``[R]``.

        Raises:
            DataError: one of them does not stand there.
        """
        of_text = np.array([known.get(text, -1) for text in self.different(name)])
        found = of_text[self.columns[name].codes]
        bad = np.flatnonzero(found < 0).tolist()
        if bad:
            first = quoted(self.columns[name][bad[0]])
            raise self.fail(bad, f"'{name}' is not in {where.name}, first {first}")
        return torch.from_numpy(found)

    def drop_indices(self, known: Sequence[str]) -> None:
        """Leave out columns that only count rows, as tables saved with their index have.

        These are columns without a name, those with an index's usual name and distinct whole
        numbers, and those that count up from row to row.

        Args:
            known: columns that are needed whatever they hold.
        """
        for name in [name for name in self.columns if name not in known]:
            if name and not self._counts_rows(name):
                continue
            del self.columns[name]
            label = f"the column '{visible(name)}'" if name else "a column without a name"
            self.notes.append(f"{self.path.name}: {label} is left out as an index of the rows")

    def _counts_rows(self, name: str) -> bool:
        if not self.columns[name].distinct:
            return False
        try:
            values = [whole(cell) for cell in self.columns[name].texts]
        except ValueError:
            return False
        if _INDEX.fullmatch(name):
            return len(set(values)) == len(values)
        up = all(value == values[0] + row for row, value in enumerate(values))
        return up and len(values) >= _FEWEST_TO_COUNT


def quoted(cell: str) -> str:
    """Return a cell as errors show it: in quotes, short, on one line."""
    return f"'{visible(cell if len(cell) <= _LONGEST else cell[: _LONGEST - 3] + '...')}'"


def _not_empty(cell: str) -> str:
    if not cell:
        raise ValueError(cell)
    return cell


class _Hashed(io.FileIO):
    """A file that is hashed as it is read."""

    def __init__(self, path: Path, digest: hashlib._Hash) -> None:
        super().__init__(path)
        self._digest = digest

    def readinto(self, buffer: Any) -> int:
        """Read bytes into a buffer."""
        count = super().readinto(buffer) or 0
        self._digest.update(memoryview(buffer)[:count])
        return count


def read_table(
    path: Path, required: Sequence[str], optional: Sequence[str] = (), delimiter: str = ","
) -> Table:
    """Read a delimited file with a header.

    Args:
        path: a UTF-8 file; a byte-order mark is skipped.
        required: columns that must be there.
        optional: further columns that have a meaning; others are kept unless they count rows.
        delimiter: ``","`` (quotes as in RFC 4180) or a tab (no quotes; a name of the header ends at
            a colon, after which RecBole's files state the type).

    Raises:
        DataError: the file is missing, unreadable, empty, not UTF-8, has a repeated or missing
            column, or rows with the wrong number of cells.
    """
    tabs = delimiter == "\t"
    lines, columns, bad, found = array("q"), list[_Coder](), list[int](), 0
    digest = hashlib.sha256()
    try:
        raw = io.BufferedReader(_Hashed(path, digest), _CHUNK)
        with io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(
                text, delimiter=delimiter, quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
            )
            header = [cell.strip() for cell in next(reader, [])]
            columns = [_Coder() for _ in header]
            some: list[list[str]] = []
            while True:
                for row in reader:
                    if not row:  # a blank line is no row
                        continue
                    if len(row) != len(header):
                        found = found if bad else len(row)
                        bad.append(len(lines))
                    lines.append(reader.line_num)
                    some.append(row)
                    if len(some) == _ROWS:
                        break
                if not some:
                    break
                if not bad:
                    for column, cells in zip(columns, zip(*some, strict=True), strict=True):
                        column.add(map(str.strip, cells))
                some = []
    except UnicodeDecodeError as error:
        place = _not_utf8(path)
        raise DataError(f"{path}: not UTF-8 text (byte {place}); convert it") from error
    except csv.Error as error:
        raise DataError(f"{path}: not a delimited text file: {error}") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if tabs:
        header = [cell.split(":")[0] for cell in header]
    if not header:
        raise DataError(f"{path}: the file is empty; it needs the columns {', '.join(required)}")
    repeated = sorted({name for name in header if name and header.count(name) > 1})
    if repeated:
        raise DataError(f"{path}: repeated column '{visible(repeated[0])}'; each column once")
    missing = [name for name in required if name not in header]
    if missing:
        raise DataError(
            f"{path}: missing column{'s' if len(missing) > 1 else ''} {', '.join(missing)} "
            f"(there are: {visible(', '.join(header))}; needed: {', '.join(required)})"
        )
    if not lines:
        raise DataError(f"{path}: no rows below the header; it needs at least one")
    rows = range(2, len(lines) + 2)  # of a file without blank lines or cells of several
    table = Table(path, {}, rows if lines[-1] == rows[-1] else lines, digest.hexdigest())
    if bad:
        raise table.fail(bad, f"{len(header)} cells expected, found {found}")
    table.columns.update(zip(header, (one.column() for one in columns), strict=True))
    table.drop_indices((*required, *optional))
    return table


def _not_utf8(path: Path) -> int:
    """Return the first byte of a file that is not UTF-8 text."""
    decoder, place = codecs.getincrementaldecoder("utf-8")(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            kept = len(decoder.getstate()[0])  # bytes of a character that the chunk before cut
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                return place - kept + error.start
            place += len(chunk)
    return place
