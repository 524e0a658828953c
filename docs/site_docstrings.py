"""Docstrings as the site's Markdown takes them: without roles and literal blocks of Sphinx."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":\w+:`~?([^`]*)`")
_LITERAL = re.compile(r"::$", re.MULTILINE)
_SECTION = re.compile(r"(Args|Raises):\n(?! )")


class Plain(Extension):
    """Turns ``:class:`name```  into `` `name` ``, and a closing ``::`` into ``:``."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrite an object's docstring."""
        if obj.docstring is not None:
            told = _ROLE.sub(r"`\1`", _LITERAL.sub(":", obj.docstring.value))
            head, apart, rest = told.partition("\n\n")
            if _SECTION.match(
                head
            ):  # the first line's indent is not known: what is below it has none
                head = head.replace("\n", "\n    ")
            obj.docstring.value = head + apart + rest
