"""MovieLens-100k from the asset package, which is read but never imported."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from agents.studies.calibration import click_model
from marec_env.data import movielens
from marec_env.data.config import DataConfig
from marec_env.data.factors import fit_factors
from marec_env.data.log import load_log
from marec_env.errors import AssetError

present = importlib.util.find_spec("recbole") is not None
needs_asset = pytest.mark.skipif(not present, reason="asset package not installed")


@needs_asset
def test_published_numbers() -> None:
    log = load_log(DataConfig())
    assert (log.num_users, log.num_items, log.num_interactions) == (943, 1682, 100_000)
    assert torch.bincount(log.rating.to(torch.int64)).tolist() == [
        0,
        6110,
        11370,
        27145,
        34174,
        21201,
    ]
    assert dict(zip(log.group_names, torch.bincount(log.group).tolist(), strict=True)) == {
        "F": 273,
        "M": 670,
    }
    first = log.item_ids.index("1")
    assert log.texts[first] == "Toy Story. Animation, Children's, Comedy"
    assert int(log.year[first]) == 1995
    assert "The Usual Suspects" in log.titles
    assert log.titles[log.item_ids.index("1412")] == (
        "Land Before Time III: The Time of the Great Giving"
    )
    assert int(log.year[log.item_ids.index("1412")]) == 1995  # from the title: its column is "V"
    order = log.user * 10**12 + log.time
    assert bool((order[1:] >= order[:-1]).all())
    assert "recbole" not in sys.modules


@needs_asset
def test_implicit_factors_foretell_choices_and_explicit_ones_do_not() -> None:
    """Why true taste is estimated by the implicit model."""
    log = load_log(DataConfig())
    test = click_model.split(log).interactions == click_model.TEST
    cases = click_model.cases_against_random(log, test, 4, seed=0)
    auc = {}
    for model, ridge in (("implicit", 30.0), ("explicit", 15.0)):
        factors = fit_factors(log.select(~test), 16, model=model, ridge=ridge)  # type: ignore[arg-type]
        score = factors.score(cases.user, cases.item).double().numpy()
        auc[model] = click_model.area_under_curve(score, cases.event.numpy())
    assert auc["implicit"] == pytest.approx(0.88, abs=0.01)
    assert auc["explicit"] == pytest.approx(0.65, abs=0.01)


def _as_package(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    spec = SimpleNamespace(submodule_search_locations=[str(folder)])
    monkeypatch.setattr(movielens.importlib.util, "find_spec", lambda name: spec)


def test_package_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(movielens.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AssetError, match=r"'recbole' is not installed; run: pip install"):
        movielens.movielens_folder()


@needs_asset
def test_altered_and_missing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "dataset_example" / "ml-100k"
    shutil.copytree(movielens.movielens_folder(), folder)
    _as_package(monkeypatch, tmp_path)
    assert movielens.movielens_folder() == folder
    with (folder / "ml-100k.item").open("a") as stream:
        stream.write("9999\tA film\t1999\tDrama\n")
    with pytest.raises(AssetError, match=r"ml-100k.item has SHA-256 \w{64}, expected 51d7"):
        movielens.movielens_folder()
    (folder / "ml-100k.item").unlink()
    with pytest.raises(AssetError, match=r"ml-100k\.item is missing"):
        movielens.movielens_folder()
