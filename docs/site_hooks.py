"""What mkdocs calls while it builds the site (mkdocs.yml): pages that lie outside docs/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.structure.files import File, Files

from docs.make_notebook import NOTEBOOK, as_markdown

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "README.zh.md": "zh.md", "CHANGELOG.md": "changes.md"}
"""Files of the root and what they are in the site."""
_MERMAID = re.compile(r"```mermaid\n.*?```", re.DOTALL)
_PICTURE = "![A request's way through the pipeline](pictures/pipeline.svg)"
_TIGHT = re.compile(r"(\*\*)\n\* ")  # a list right below a line: one for GitHub, none for Markdown


def inside(text: str) -> str:
    """Return a page of the root as it reads within docs/: links, and a picture for the diagram,
    which would need a script from elsewhere.
    """
    for outside, name in PAGES.items():
        text = text.replace(f"]({outside}", f"]({name}")
    text = _TIGHT.sub(r"\1\n\n* ", text.replace("](docs/", "]("))
    return _MERMAID.sub(_PICTURE, text)


def on_files(files: Files, config: Any) -> Files:
    """Add the root's pages, and the notebook."""
    for outside, name in PAGES.items():
        content = inside((ROOT / outside).read_text(encoding="utf-8"))
        files.append(File.generated(config, name, content=content))
    page = as_markdown(nbformat.read(NOTEBOOK, as_version=4))
    files.append(File.generated(config, "start/notebook.md", content=page))
    return files


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Keep a number and its interval on one line."""
    return markdown.replace(" ± ", "\u00a0±\u00a0")
