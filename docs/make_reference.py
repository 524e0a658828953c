"""What is made from the configuration's Python types: ``make configs`` writes docs/reference.md
(and docs/fields.md, see :mod:`docs.make_fields`).

``python -m docs.make_reference schema`` prints the JSON Schema, with which editors complete and
check YAML.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from agents.config import RunConfig
from docs import make_fields
from marec_env import io
from marec_env.config.fields import allowed_range, choices, members
from marec_env.config.moved import GONE, MOVED

_HEAD = "| key | type | default | allowed | meaning |\n|---|---|---|---|---|"
_FIRST = (
    "Every key of a run's file, made from the code by `make configs`. A file need only name what "
    "differs from these defaults; `extends: FILE` builds on another; `--set key=value` overrides "
    "one key, and what lies beside it stays, in a section of the user's own (blocks, weights) too: "
    "`--set environment.pipeline.blocks.notes=0.03` adds a block to those of the default, "
    "`blocks={notes: 0.03}` and a file's `blocks:` are all there are, but for those of a file that "
    "it extends. Each run's folder holds its complete configuration."
)


def page() -> str:
    """Return the reference of a run's configuration as Markdown."""
    lines = ["# Configuration", "", _FIRST, ""]
    _section(RunConfig, "", "", lines)
    lines += ["## Keys of the version before", "", "An old file keeps working for one version.", ""]
    lines += [f"* `{old}` is `{new}` now" for old, new in MOVED.items()]
    lines += [f"* `{old}`: gone; {instead}" for old, (_, instead) in GONE.items() if instead]
    return "\n".join(lines) + "\n"


def _section(model: type[BaseModel], path: str, when: str, lines: list[str]) -> None:
    """Add a section's table, then those of the sections below it."""
    rows, below = [], []
    for key, field in model.model_fields.items():
        where = f"{path}{key}"
        if key == "kind" and len(choices(field)) == 1:
            continue  # said by the heading
        found = members([model], key, None)
        if not found:
            rows.append(_row(where, field))
            continue
        if field.discriminator:
            kinds = ", ".join(map(str, choices(field)))
            default = field.get_default(call_default_factory=True)
            shown = f"`{getattr(default, 'kind', '-')}`"
            rows.append(f"| `{where}.kind` | kind | {shown} | {kinds} | {_words(field)} |")
        for member in found:
            kind = member.model_fields.get("kind") if field.discriminator else None
            names = ", ".join(f"`{name}`" for name in get_args(kind.annotation)) if kind else ""
            below.append((member, f"{where}.", f"with kind {names}" if names else ""))
    words = " ".join((model.__doc__ or "").split("\n\n")[0].split())
    if rows:
        heading = path.rstrip(".") or "the run"
        lines += [f"## {heading}{f' ({when})' if when else ''}", "", words, "", _HEAD, *rows, ""]
    for section in below:
        _section(*section, lines)


def _row(where: str, field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    shown = "required" if field.is_required() else f"`{json.dumps(default, default=str)}`"
    allowed = ", ".join(str(one) for one in choices(field)) or allowed_range(field) or ""
    return f"| `{where}` | {_type(field.annotation)} | {shown} | {allowed} | {_words(field)} |"


def _words(field: FieldInfo) -> str:
    return " ".join((field.description or "").split()).replace("|", "\\|")


def _type(annotation: Any) -> str:
    """Return an annotation in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(argument) for argument in arguments)
    if origin is Literal:
        return "word"
    if origin in (list, tuple, set, frozenset):
        inner = [_type(argument) for argument in arguments if argument is not Ellipsis]
        return f"list of {inner[0] if inner else 'values'}"
    if origin is dict or annotation is dict:
        return "section of the user's own"
    if origin is not None:
        return _type(arguments[0])
    words = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    return "null" if annotation is type(None) else words.get(annotation, "text")


def main(arguments: list[str], folder: Path = Path("docs")) -> None:
    """Print the schema, or write the two pages."""
    if arguments == ["schema"]:
        dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
        print(json.dumps({**dialect, **RunConfig.model_json_schema()}, indent=2))
    else:
        io.write_text(folder / "reference.md", page())
        io.write_text(folder / "fields.md", make_fields.page())


if __name__ == "__main__":
    main(sys.argv[1:])
