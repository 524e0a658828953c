"""Runs examples/first_look.ipynb and keeps its outputs: ``python -m docs.make_notebook``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marec_env.io import write_text

NOTEBOOK = Path(__file__).parents[1] / "examples/first_look.ipynb"
SETTINGS = "settings"
"""Tag of the cell whose variables :func:`executed` may set."""


def executed(settings: Mapping[str, Any] | None = None) -> Any:
    """Return the notebook with the outputs of a fresh run from the checkout's root.

    Args:
        settings: values that stand instead of those in the cell of that tag.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed that is not tagged so.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if SETTINGS in cell.metadata.get("tags", ()):
            cell.source += "".join(
                f"\n{name} = {value!r}" for name, value in (settings or {}).items()
            )
    root = {"metadata": {"path": str(NOTEBOOK.parents[1])}}
    client = NotebookClient(notebook, timeout=600, resources=root, record_timing=False)
    client.execute()
    for cell in notebook.cells:  # what libraries say of this machine is no output of the notebook
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    return notebook


def as_markdown(notebook: Any) -> str:
    """Return a notebook with its outputs as a page; pictures lie within it."""
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for out in cell.outputs:
            data = out.get("data", {})
            if "image/png" in data:
                png = data["image/png"].replace("\n", "")
                parts.append(
                    f'<img alt="What the code above draws" src="data:image/png;base64,{png}">'
                )
            else:
                told = out.get("text") or data.get("text/plain") or "\n".join(out["traceback"])
                parts.append(f"```text\n{told.strip()}\n```")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    import nbformat

    write_text(NOTEBOOK, nbformat.writes(executed()) + "\n")
