"""The terminal as marec writes to it: colours are ours, text cannot give commands."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from marec_env.errors import visible


class Terminal(Console):
    r"""A console that spells out control characters in whatever it is told to print.

    ``Terminal().print("\x1b[2J")`` shows ``\x1b[2J``; styles, tables and progress bars work as in
    :class:`rich.console.Console`.
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield segments; see :class:`rich.console.Console`."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else visible(segment.text, keep="\n")
            yield segment if text is segment.text else segment._replace(text=text)
