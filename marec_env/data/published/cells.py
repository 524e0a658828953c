"""Functions that ``datasets.yaml`` names: of published cells, and of files that must be joined."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from marec_env.data.published.rows import LeftOutError, Row, rows_of

_MONTH_DAY_YEAR = ("%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %H:%M:%S")
_PRICE = re.compile(r"\d+(?:[.,]\d{3})*(?:\.\d+)?")
_TAGS = 5  # most frequent tags of an item kept as its genres
_RETAIL_RATING = {"view": 2, "addtocart": 4, "transaction": 5}
_PRICE_PROPERTY, _PRICE_MARK = "790", "n"  # RetailRocket's: prices as n12960.000
_WEEKS = 52  # of a year; fewer than this many prices tell no volatility
_CLASSES = (0.005, 0.02, 0.05, 0.10, 0.15, 0.25)  # volatility, CESR/10-673: seven risk classes
_LARGEST_SECONDS = 1e11  # beyond it a time is in milliseconds
_RISK_LIMIT = {"conservative": 2, "income": 3, "balanced": 5, "aggressive": 7}
_ANY_RISK = 7


def first_of(*cells: Any) -> Any:
    """Return the first cell that holds something."""
    return next((cell for cell in cells if cell not in (None, "", "None")), "")


def words(*cells: Any) -> str:
    """Return cells, or lists of texts, as one text."""
    parts = [
        " ".join(map(str, cell)) if isinstance(cell, list) else str(cell) for cell in cells if cell
    ]
    return ". ".join(part for part in parts if part)


def listed(*cells: Any) -> str:
    """Return names, or lists of them, as genres: apart by ``|``."""
    names: list[str] = []
    for cell in cells:
        names += map(str, cell if isinstance(cell, list) else [cell] if cell else [])
    return "|".join(dict.fromkeys(name.replace("|", "/").strip() for name in names))


def split_list(cell: Any) -> str:
    """Return names apart by commas as genres."""
    return listed([part.strip() for part in str(cell or "").split(",") if part.strip()])


def no_genres(cell: Any) -> str:
    """Return MovieLens's genres, apart by ``|``; none of ``(no genres listed)``."""
    return "" if str(cell).startswith("(no ") else str(cell)


def seconds(*cells: Any) -> float:
    """Return a time in seconds; one of 1973 or later in milliseconds is recognised.

    Raises:
        LeftOutError: there is none.
    """
    try:
        value = float(first_of(*cells))
    except ValueError:
        raise LeftOutError("no time") from None
    return value / 1e3 if value > _LARGEST_SECONDS else value


def minutes(cell: Any) -> str:
    """Return milliseconds as minutes; nothing where there are none."""
    return f"{float(cell) / 60_000:.4f}" if cell not in (None, "") else ""


def long_view(click: Any, long: Any) -> int:
    """Return 2 of a long view, 1 of a mere click.

    Raises:
        LeftOutError: it is no click.
    """
    if str(long) == "1":
        return 2
    return int(clicked(click))


def tags(cell: Any) -> str:
    """Return numbers of tags as genres."""
    return listed([f"tag {one}" for one in str(cell or "").split(",") if one.strip()])


def year(cell: Any) -> str:
    """Return a whole year, nothing where there is none or it is before our era."""
    try:
        value = int(float(cell))
    except (TypeError, ValueError):
        return ""
    return str(value) if value > 0 else ""


def amount(cell: Any) -> str:
    """Return the first number of a price such as ``$1,299.00``; nothing where there is none."""
    if str(cell).strip().lower().startswith("free"):
        return "0"
    found = _PRICE.search(str(cell or ""))
    return found.group().replace(",", "") if found else ""


def from_one(position: Any) -> int:
    """Return a position that counts from 1, counted from 0."""
    return int(position) - 1


def clicked(click: Any) -> str:
    """Return a click of 1; other rows are no interactions.

    Raises:
        LeftOutError: it is no click.
    """
    if seen(click) == "0":
        raise LeftOutError("not clicked")
    return "1"


def seen(click: Any) -> str:
    """Return whether something was clicked, 0 or 1."""
    return "1" if str(click) in ("1", "1.0", "True", "true") else "0"


def hash_of(*cells: Any) -> str:
    """Return one identifier for all rows whose cells are the same."""
    return hashlib.blake2b("\t".join(map(str, cells)).encode(), digest_size=8).hexdigest()


def retail_rating(cell: Any) -> int:
    """Return view 2, addtocart 4, transaction 5.

    Raises:
        LeftOutError: another event.
    """
    if cell not in _RETAIL_RATING:
        raise LeftOutError("another event than view, addtocart, transaction")
    return _RETAIL_RATING[cell]


def bought(cell: Any) -> str:
    """Return 1 of a purchase.

    Raises:
        LeftOutError: it is a sale.
    """
    if str(cell).lower() != "buy":
        raise LeftOutError("no purchase")
    return "1"


def risk_limit(cell: Any) -> int:
    """Return the highest of seven risk classes that suits a level of FAR-Trans; 7 if unknown."""
    level = str(cell or "").lower().removeprefix("predicted_")
    return _RISK_LIMIT.get(level, _ANY_RISK)


def month_day(cell: Any) -> str:
    """Return the ISO date of MIND's times, such as ``11/15/2019 8:55:22 AM``.

    Raises:
        LeftOutError: it is none.
    """
    for form in _MONTH_DAY_YEAR:
        try:
            return datetime.strptime(str(cell), form).replace(tzinfo=UTC).isoformat()
        except ValueError:
            continue
    raise LeftOutError("no time")


def tags_of(folder: Path) -> Mapping[str, Row]:
    """Return the most frequent tags of Last.fm's artists by their identifier."""
    tags = {
        str(row["tagID"]): str(row["tagValue"])
        for row in rows_of(folder, "tags.dat", "tsv", "latin-1")
    }
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in rows_of(folder, "user_taggedartists.dat", "tsv"):
        counts[str(row["artistID"])][tags.get(str(row["tagID"]), "")] += 1
    return {
        artist: {"tags": listed([tag for tag, _ in count.most_common(_TAGS) if tag])}
        for artist, count in counts.items()
    }


def properties(folder: Path) -> Iterator[Row]:
    """Yield RetailRocket's items with their last category and price."""
    found: dict[str, dict[str, str]] = {}
    times: dict[tuple[str, str], int] = {}
    for row in rows_of(folder, "item_properties_part*.csv", "csv"):
        item, name = str(row["itemid"]), str(row["property"])
        if name not in ("categoryid", _PRICE_PROPERTY):
            continue
        time = int(row["timestamp"])
        if time >= times.get((item, name), 0):
            times[item, name] = time
            found.setdefault(item, {"itemid": item, "category": "", "price": ""})
            value = str(row["value"])
            key = "category" if name == "categoryid" else "price"
            found[item][key] = value.split()[0].removeprefix(_PRICE_MARK) if value else ""
    yield from found.values()


def prices_paid(folder: Path) -> Mapping[str, Row]:
    """Return the mean price of the Complete Journey's products by their identifier."""
    paid: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for row in rows_of(folder, "transactions.parquet", "parquet"):
        sums = paid[str(row["product_id"])]
        sums[0] += row["sales_value"]
        sums[1] += row["quantity"]
    return {
        item: {"price": f"{value / quantity:.4f}" if quantity else ""}
        for item, (value, quantity) in paid.items()
    }


def risk_classes(folder: Path) -> Mapping[str, Row]:
    """Return the class 1 to 7 of FAR-Trans's assets by the volatility of their closing prices, the
    deviation of a year's returns, over about a week each.
    """
    last: dict[str, tuple[datetime, float]] = {}
    sums: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for row in rows_of(folder, "close_prices.csv", "csv"):
        asset = str(row["ISIN"])
        try:
            day, price = datetime.fromisoformat(str(row["timestamp"])), float(row["closePrice"])
        except ValueError:
            continue
        before = last.get(asset)
        if price <= 0 or (before and (day - before[0]).days < 7):
            continue
        last[asset] = (day, price)
        if before:
            change = math.log(price / before[1])
            for place, value in enumerate((1.0, change, change * change)):
                sums[asset][place] += value
    found = {}
    for asset, (count, total, squares) in sums.items():
        if count >= _WEEKS:
            variance = max(0.0, squares / count - (total / count) ** 2)
            deviation = math.sqrt(_WEEKS * variance)
            found[asset] = {"risk": 1 + sum(deviation >= bound for bound in _CLASSES)}
    return found


def named(word: str, *cells: Any) -> str:
    """Return a title of a word and an identifier; nothing without one."""
    told = [str(cell) for cell in cells if cell not in (None, "")]
    return " ".join([word, *told]) if told else ""


def event(kind: str, cell: Any) -> int:
    """Return whether an event is of a kind, 1 or 0."""
    return int(cell == kind)


def told(what: str, cell: Any) -> float:
    """Return a number.

    Raises:
        LeftOutError: it is not told.
    """
    try:
        return float(cell)
    except (TypeError, ValueError):
        raise LeftOutError(f"no {what}") from None


def at_most(bound: str, cell: Any) -> float:
    """Return a number, at most so much.

    Raises:
        LeftOutError: it is not told.
    """
    return min(told("watch ratio", cell), float(bound))


def caption(*cells: Any) -> str:
    """Return the first text that is one; ``UNKNOWN`` is none."""
    return next((str(cell) for cell in cells if cell not in (None, "", "UNKNOWN")), "")


def each_shown(cell: Any) -> Iterator[Row]:
    """Yield what MIND's list of impressions says of each item, such as ``N1-0 N2-1``."""
    for place, one in enumerate(str(cell or "").split()):
        item, _, click = one.rpartition("-")
        yield {"item": item, "position": place, "click": click}


def each_friend(cell: Any) -> Iterator[Row]:
    """Yield each of a list of friends, as a list or as text: ``a, b`` or ``[1, 2]``."""
    names = cell if isinstance(cell, list) else str(cell or "").strip("[]").split(",")
    for one in map(str, names):
        if one.strip() not in ("", "None"):
            yield {"friend": one.strip()}
