"""The notebook runs from top to bottom, and is as its script leaves it."""

import pytest

from docs.make_notebook import NOTEBOOK, executed
from tests.worlds import small_environment

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")


def text_of(cell):
    """Return what a cell printed or showed."""
    parts = [out.get("text") or out.get("data", {}).get("text/plain", "") for out in cell.outputs]
    return "\n".join(parts)


def test_the_notebook_runs_and_shows_what_it_says():
    small = {"environment": small_environment(60, 200), "requests": 64, "sessions": 4}
    cells = [cell for cell in executed(small).cells if cell.cell_type == "code"]
    said = [text_of(cell) for cell in cells]
    assert said[1].startswith("VecStep of 64 sessions: ")
    assert said[2].startswith("Outcome of a request of 64 sessions: slates of 5 of 20 candidates")
    [slip] = cells[4].outputs
    assert slip.ename == "ConfigError" and len(slip.traceback) == 1  # a line, no traceback
    assert "unknown key; did you mean 'max_requests'?" in slip.traceback[0]
    pictures = [out for cell in cells for out in cell.outputs if "image/png" in out.get("data", {})]
    assert len(pictures) == 3
    assert "requests; F a request" in said[5]
    assert "ranking_0" in said[8]
    assert "Recommender of 200 items of synthetic/streaming: profile, recall, feature" in said[9]
    assert len(said[9].splitlines()) == 6


def test_the_committed_notebook_has_the_outputs_of_one_run():
    cells = [c for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all(out.output_type != "error" for cell in cells[:4] + cells[5:] for out in cell.outputs)
    assert NOTEBOOK.stat().st_size < 400_000
