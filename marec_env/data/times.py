"""Timestamps in whatever unit a file has them: recognised, and told, or refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marec_env.data.tables import Table, number, quoted
from marec_env.errors import DataError

TimeUnit = Literal[
    "auto",
    "seconds",
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "minutes",
    "hours",
    "days",
    "spreadsheet_days",
    "years",
    "yyyymmdd",
    "yyyymmddhhmmss",
]
Floats = NDArray[np.float64]

_DAY = 86_400.0  # seconds
_SESSION_GAP = 1_800  # seconds: 30 minutes, the usual cut (Catledge and Pitkow 1995; web analytics)
_SPREADSHEET = 25_569  # days from 1899-12-30, where spreadsheets begin to count, to 1970
_FIRST, _LAST = 315_532_800.0, 4_102_444_800.0  # 1980 and 2100: where a log's times may lie
_LAST_DAY = 2_524_608_000.0  # 2050: beyond it days since 1970 would be a spreadsheet's since 1980
_TEXT_FIRST, _TEXT_LAST = -2_208_988_800.0, _LAST  # 1900: dates in words are meant as they are
_FORM = "a time: seconds since 1970, or text such as 2021-03-04T05:06:07"
_CURE = "correct or remove them, or set data.time_unit; of a log without times write 0 everywhere"


@dataclass(frozen=True, slots=True)
class Times:
    """A file's times."""

    seconds: Tensor
    """Int64 ``[R]``, since 1970, or since an origin of the log's own."""
    exact: Tensor
    """Float64 ``[R]``, in the file's own unit: the order within a second."""
    note: str | None
    """How they were read, unless plainly as seconds since 1970."""


def _calendar(values: Floats, form: str, digits: int) -> Floats:
    """Return the seconds of whole numbers that spell a date; NaN where they do not."""

    def one(value: float) -> float:
        text = f"{value:.0f}"
        if len(text) != digits or value != round(value) or not "1900" <= text[:4] <= "2099":
            return math.nan
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()
        except ValueError:
            return math.nan

    distinct, place = np.unique(values, return_inverse=True)
    return np.array([one(value) for value in distinct])[place]


_SECONDS: Mapping[str, Callable[[Floats], Floats]] = {
    "seconds": lambda values: values,
    "milliseconds": lambda values: values / 1e3,
    "microseconds": lambda values: values / 1e6,
    "nanoseconds": lambda values: values / 1e9,
    "minutes": lambda values: values * 60.0,
    "hours": lambda values: values * 3600.0,
    "days": lambda values: values * _DAY,
    "spreadsheet_days": lambda values: (values - _SPREADSHEET) * _DAY,
    "years": lambda values: _calendar(values, "%Y", 4),
    "yyyymmdd": lambda values: _calendar(values, "%Y%m%d", 8),
    "yyyymmddhhmmss": lambda values: _calendar(values, "%Y%m%d%H%M%S", 14),
}
"""From a unit to seconds since 1970. The windows of those below do not overlap."""
_COUNTS = ("seconds", "milliseconds", "microseconds", "nanoseconds")
_TRIED = dict.fromkeys(_COUNTS, _LAST) | {
    "yyyymmddhhmmss": _LAST,
    "yyyymmdd": _LAST,
    "days": _LAST_DAY,
    "spreadsheet_days": _LAST_DAY,
    "years": _LAST,
}
assert set(_SECONDS) == set(get_args(TimeUnit)) - {"auto"}


def read_times(table: Table, name: str, unit: TimeUnit = "auto") -> Times:
    """Return a column of times.

    Numbers are taken in the unit in which all of them lie between 1980 and 2100. If there is none,
    small numbers are taken as seconds since an origin of the log's own, and it is said.

    Args:
        table: a file.
        name: its column.
        unit: that of the numbers; ``auto`` finds it.

    Raises:
        DataError: cells that are no time, several units in one column, or none that fits.
    """
    cells = table.columns[name]
    rows = np.bincount(cells.codes)
    if 2 * rows[[_is_text(text) for text in cells.texts]].sum() > len(cells):
        seconds = table.array(name, _moment, _FORM, _CURE)
        return Times(_whole(seconds), torch.from_numpy(seconds), None)
    if unit == "auto":
        values = table.array(name, number, _FORM, _CURE)
        unit, note = _recognised(table, name, values)
    else:
        values = table.array(name, number, f"a number of {unit}", _CURE)
        note = None
    seconds = _SECONDS[unit](values)
    bad = np.flatnonzero(~(np.abs(seconds) < 2.0**53)).tolist()
    if bad:
        found = quoted(cells[bad[0]])
        raise table.fail(bad, f"'{name}' must be a time in {unit}, found {found}", _CURE)
    if note is None and unit != "seconds":
        note = f"are read as {_said(unit)}, {_span(seconds)}"
    said = None if note is None else f"{table.path.name}: the numbers in '{name}' {note}"
    return Times(_whole(seconds), torch.from_numpy(values), said)


def _whole(seconds: Floats) -> Tensor:
    return torch.from_numpy(np.trunc(seconds)).to(torch.int64)


def _is_text(cell: str) -> bool:
    try:
        number(cell)
    except ValueError:
        return True
    return False


def _recognised(table: Table, name: str, values: Floats) -> tuple[TimeUnit, str | None]:
    inside = {}
    for unit, last in _TRIED.items():
        seconds = _SECONDS[unit](values)
        inside[unit] = (seconds >= _FIRST) & (seconds < last)
        if inside[unit].all():
            return unit, None  # type: ignore[return-value]
    best = max((*_COUNTS, "yyyymmdd", "yyyymmddhhmmss"), key=lambda unit: inside[unit].sum())
    if 2 * int(inside[best].sum()) >= values.size:
        bad = np.flatnonzero(~inside[best]).tolist()
        found = quoted(table.columns[name][bad[0]])
        what = f"'{name}' is {_said(best)} from 1980 to 2100 elsewhere, found {found}"
        raise table.fail(bad, what, _CURE)
    low, high = float(values.min()), float(values.max())
    if low > -_FIRST and high < _FIRST:
        if low == high:
            return "seconds", None  # no times: said of the log as a whole
        return "seconds", (
            f"({low:g} ... {high:g}) are no times from 1980 to 2100 in any unit: they are read as "
            "seconds since an origin of the log's own; if they count something else, set "
            "data.time_unit"
        )
    raise DataError(
        f"{table.path}: '{name}' ({low:g} ... {high:g}): no unit puts these times between 1980 and "
        f"2100; set data.time_unit to one of {', '.join(_SECONDS)}, or correct them"
    )


def _said(unit: str) -> str:
    counted = unit.replace("_", " ")
    if unit == "spreadsheet_days":
        return f"{counted} since 1899-12-30"
    return counted if unit.startswith("yyyy") or unit == "years" else f"{counted} since 1970"


def _span(seconds: Floats) -> str:
    try:
        ends = [datetime.fromtimestamp(float(end), UTC) for end in (seconds.min(), seconds.max())]
    except (ValueError, OverflowError, OSError):
        return "far from today"
    return " to ".join(f"{end:%Y-%m-%d}" for end in ends)


def _moment(cell: str) -> float:
    """Return the seconds since 1970 of a date in ISO 8601; without a zone it is UTC."""
    text = cell.removesuffix(" UTC")
    if text[4:5] == "/" and text[7:8] == "/":
        text = text.replace("/", "-", 2)
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    value = moment.timestamp()
    if not _TEXT_FIRST <= value < _TEXT_LAST:
        raise ValueError(cell)
    return value


def session_lengths(user: Tensor, time: Tensor) -> Tensor:
    """Return the number of interactions in each session, int64 ``[S]``.

    Args:
        user: int64 ``[R]``, sorted; likewise ``time`` within a user.
        time: int64 ``[R]``, seconds; a pause longer than 30 minutes begins a new session.
    """
    begins = torch.ones(user.shape, dtype=torch.bool)
    begins[1:] = (user[1:] != user[:-1]) | (time[1:] - time[:-1] > _SESSION_GAP)
    return torch.bincount(torch.cumsum(begins, 0) - 1)
