"""Rows of published files, read one at a time and made rows of the plain format."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from marec_env.config import ConfigModel
from marec_env.data.tables import UNKNOWN, number
from marec_env.errors import DataError, visible

Row = Mapping[str, Any]
Form = Literal["csv", "tsv", "dat", "words", "json", "python", "parquet"]
_ROW = "#row"  # a column that every file has: the number of the row
_CONSTANT = "="
_IDENTIFIERS = ("user_id", "item_id", "friend_id")
_NUMBERS = ("rating", "position", "click", "propensity")
_GZIP = b"\x1f\x8b"


class LeftOutError(ValueError):
    """A row that is left out; the message is the reason."""


class Part(ConfigModel):
    """One file of the plain format: where its rows come from."""

    file: str = Field(description="below the folder; may hold *, then all that match are read")
    columns: dict[str, str | tuple[str, ...]] = Field(
        description="of the plain format: a published column, '=' and a constant, '#row' for the "
        "row's number, or a function of published.cells and its arguments"
    )
    form: Form = Field(
        default="csv",
        description="dat: cells apart by '::'; words: by blanks or tabs; json, python: an object, "
        "or a literal, a line; parquet: a table with its types",
    )
    header: tuple[str, ...] = Field(default=(), description="names, where the file has none")
    encoding: str = Field(default="utf-8", description="of the text")
    lines: tuple[str, ...] = Field(
        default=(), description="a function that makes several rows of a line, and its arguments"
    )
    made: str = Field(default="", description="a function that makes the rows of the folder")
    look_up: tuple[str, ...] = Field(
        default=(), description="a column, and a function that makes a table by its values"
    )

    def published(self) -> tuple[str, ...]:
        """Return the published columns that are relied on."""
        found = [
            name
            for cell in self.columns.values()
            for name in (cell[1:] if isinstance(cell, tuple) else (cell,))
        ]
        return tuple(dict.fromkeys(n for n in found if n != _ROW and not n.startswith(_CONSTANT)))


@dataclass(slots=True)
class Report:
    """What was kept of each file, and what was dropped for which reason."""

    kept: Counter[str] = field(default_factory=Counter)
    dropped: dict[str, Counter[str]] = field(default_factory=dict)
    first: dict[tuple[str, str], str] = field(default_factory=dict)
    """Where a reason was met first."""
    notes: list[str] = field(default_factory=list)

    def drop(self, name: str, reason: str, where: str) -> None:
        """Count a row that was left out of a file."""
        self.dropped.setdefault(name, Counter())[reason] += 1
        self.first.setdefault((name, reason), where)

    def lines(self) -> Iterator[str]:
        """Yield it for readers."""
        for name in dict.fromkeys([*self.kept, *self.dropped]):
            yield f"{name}: {self.kept[name]:,} rows kept"
            for reason, count in self.dropped.get(name, Counter()).most_common():
                yield f"  {count:,} left out: {reason} (first {self.first[name, reason]})"
        yield from self.notes


def _opened(path: Path, encoding: str) -> io.TextIOWrapper:
    file = path.open("rb")
    packed = file.read(2) == _GZIP
    file.seek(0)
    raw: Any = gzip.GzipFile(fileobj=file) if packed else file
    return io.TextIOWrapper(raw, encoding=encoding, errors="replace", newline="")


def _table(part: Part, text: io.TextIOWrapper) -> Iterator[tuple[int, Row | None]]:
    """Yield the rows of a Parquet file, some thousand at a time."""
    try:
        from pyarrow import ArrowInvalid  # type: ignore[import-untyped]
        from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]
    except ImportError as error:
        raise DataError(f"{part.file}: reading it needs pip install pyarrow") from error
    place = 0
    try:
        for batch in ParquetFile(text.buffer).iter_batches(batch_size=1 << 14):
            for row in batch.to_pylist():
                place += 1
                yield place, row
    except ArrowInvalid as error:
        raise DataError(f"{part.file}: {error}, after {place:,} rows") from error


def _cells(part: Part, text: io.TextIOWrapper) -> Iterator[tuple[int, Row | None]]:
    """Yield each line's number and its cells by name; ``None`` where it cannot be read."""
    if part.form == "parquet":
        yield from _table(part, text)
        return
    if part.form in ("json", "python"):
        from ast import literal_eval

        read = json.loads if part.form == "json" else literal_eval
        for place, line in enumerate(text, 1):
            if line.strip():
                try:
                    found = read(line)
                except (ValueError, SyntaxError, RecursionError, MemoryError):
                    found = None
                yield place, found if isinstance(found, dict) else None
        return
    lines: Iterator[tuple[int, list[str]]]
    if part.form in ("dat", "words"):
        apart = "::" if part.form == "dat" else None
        lines = ((n, line.strip("\r\n").split(apart)) for n, line in enumerate(text, 1))
    else:
        tabs = part.form == "tsv"
        reader = csv.reader(
            text,
            delimiter="\t" if tabs else ",",
            quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
        )
        lines = ((reader.line_num, row) for row in reader)
    header = list(part.header)
    for place, row in lines:
        if not header:
            header = [name.strip().lstrip("\ufeff") for name in row]
            continue
        if row and row != [""]:
            yield place, dict(zip(header, row, strict=True)) if len(row) == len(header) else None


def rows_of(folder: Path, file: str, form: Form, encoding: str = "utf-8") -> Iterator[Row]:
    """Yield the rows of a file that others are joined with; none where it is missing."""
    part = Part(file=file, columns={}, form=form, encoding=encoding)
    for path in sorted(folder.glob(file)):
        with _opened(path, encoding) as text:
            yield from (row for _, row in _cells(part, text) if row is not None)


def _value(name: str, cell: str | tuple[str, ...], row: Row) -> str:
    """Return a cell of the plain format."""
    made = _called(cell, row) if isinstance(cell, tuple) else _argument(cell, row)
    text = "" if made is None or (isinstance(made, float) and math.isnan(made)) else str(made)
    text = " ".join(text.split())
    if name in _IDENTIFIERS and not text:
        raise LeftOutError(f"no {name}")
    if name in _NUMBERS and not (name == "propensity" and text.lower() in UNKNOWN):
        try:
            number(text)
        except ValueError:
            raise LeftOutError(f"{name} is no number") from None
    if name == "timestamp" and not _is_time(text):
        raise LeftOutError("no time")
    return text


def _called(call: tuple[str, ...], row: Row) -> Any:
    from marec_env.data.published import cells

    return getattr(cells, call[0])(*(_argument(one, row) for one in call[1:]))


def _argument(name: str, row: Row) -> Any:
    return name[1:] if name.startswith(_CONSTANT) else row.get(name)


def _is_time(text: str) -> bool:
    if text.lower() in UNKNOWN:
        return False
    for convert_text in (number, datetime.fromisoformat):
        try:
            convert_text(text)
            return True
        except ValueError:
            continue
    return False


def read_rows(
    part: Part, folder: Path, name: str, report: Report
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield where each row stands and its cells in the plain format; count what is left out.

    Args:
        part: of the data set.
        folder: with the published files.
        name: of the file of the plain format.
        report: where rows that are left out are counted.

    Raises:
        DataError: a published column is missing.
    """
    from marec_env.data.published import cells

    table = getattr(cells, part.look_up[1])(folder) if part.look_up else {}
    checked = part.form in ("json", "python") or bool(part.made)
    for path in sorted(folder.glob(part.file)):
        with _opened(path, part.encoding) as text:
            made = getattr(cells, part.made)(folder) if part.made else None
            for place, line in enumerate(made, 1) if made else _cells(part, text):
                where = f"{path.name} line {place}"
                if line is None:
                    report.drop(name, "line cannot be read", where)
                    continue
                known = {**table.get(str(line.get(part.look_up[0])), {})} if part.look_up else {}
                line = {**known, **line, _ROW: place}
                if not checked:
                    checked = True
                    _check_columns(part, path, line)
                for row in _several(part, line):
                    try:
                        yield where, {n: _value(n, cell, row) for n, cell in part.columns.items()}
                    except LeftOutError as reason:
                        report.drop(name, str(reason), where)


def _several(part: Part, line: Row) -> Iterable[Row]:
    """Return the rows of a line."""
    if not part.lines:
        return (line,)
    added: Iterable[Row] = _called(part.lines, line)
    return ({**line, **more} for more in added)


def _check_columns(part: Part, path: Path, line: Row) -> None:
    """Refuse a table without a published column, unless other columns are added to its own."""
    missing = [name for name in part.published() if name not in line]
    if missing and not (part.lines or part.look_up):
        raise DataError(
            f"{path}: missing column{'s' if len(missing) > 1 else ''} {', '.join(missing)} "
            f"(there are: {visible(', '.join(line))}); the published file has them"
        )
