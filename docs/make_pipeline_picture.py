"""Draws pictures/pipeline.svg, a request's way: ``python -m docs.make_pipeline_picture``."""

from __future__ import annotations

from pathlib import Path

from marec_env.io import write_text
from marec_env.reporting.drawing import INK, PALETTE

PICTURE = Path(__file__).parent / "pictures/pipeline.svg"
WIDTH, ROW, BOX, HIGH = 400, 62, 150, 34
LEFT = 30
STAGES = ("user", "profile", "recall", "feature", "ranking", "user")
HANDED = ("request", "profile vectors", "C candidates", "feature blocks", "slate of K")
"""What goes from each stage to the next."""


def picture() -> str:
    """Return the picture: stages from top to bottom, and the memory that all of them read."""
    middle, bottom = LEFT + BOX / 2, 10 + ROW * (len(STAGES) - 1) + HIGH
    memory = 290
    parts = []
    for place, name in enumerate(STAGES):
        top = 10 + place * ROW
        color, round_ = (INK, 17) if name == "user" else (PALETTE[0], 4)
        parts.append(_box(LEFT, top, BOX, HIGH, name, color, round_))
        if place < len(HANDED):
            parts.append(_arrow(f"M{middle} {top + HIGH}V{top + ROW - 2}"))
            parts.append(_label(middle + 8, top + HIGH + 18, HANDED[place]))
        if name != "user":  # what the memory says goes to each
            parts.append(_arrow(f"M{memory} {top + HIGH / 2}H{LEFT + BOX + 2}", dashed=True))
    first, last = 10 + ROW, 10 + ROW * (len(STAGES) - 2) + HIGH
    parts.append(_box(memory, first, 90, last - first, "session memory", PALETTE[2], 4))
    parts.append(_label(LEFT + BOX + 26, first + HIGH / 2 - 6, "observations"))
    parts.append(_arrow(f"M{LEFT + BOX} {bottom - HIGH / 2}H{memory + 45}V{last + 2}"))
    parts.append(_label(LEFT + BOX + 8, bottom - HIGH / 2 + 16, "clicks, patience"))
    head = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8Z" fill="{INK}"/></marker></defs>'
    )
    size = f'width="{WIDTH}" height="{bottom + 16:g}" viewBox="0 0 {WIDTH} {bottom + 16:g}"'
    font = 'font-family="system-ui, sans-serif" font-size="13"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size} {font}>\n'
        "<title>A request goes from the user through profile, recall, feature and ranking and back "
        "as a slate; the session memory learns the clicks and is what all components observe"
        f"</title>\n{head}\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _box(
    x: float, y: float, width: float, height: float, text: str, color: str, round_: int
) -> str:
    lines = text.split() if height > HIGH else [text]
    rows = "".join(
        f'<tspan x="{x + width / 2:g}" dy="{16 if row else 0}">{line}</tspan>'
        for row, line in enumerate(lines)
    )
    first = y + height / 2 + 5 - 8 * (len(lines) - 1)
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{round_}" '
        f'fill="{color}" fill-opacity=".1" stroke="{color}"/>'
        f'<text y="{first:g}" text-anchor="middle" fill="{INK}">{rows}</text>'
    )


def _arrow(path: str, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<path d="{path}" fill="none" stroke="{INK}"{dash} marker-end="url(#tip)"/>'


def _label(x: float, y: float, text: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="12" fill="{INK}">{text}</text>'


if __name__ == "__main__":
    write_text(PICTURE, picture())
