"""README.md and its translation say the same: commands, code, numbers and links."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENGLISH, CHINESE = (ROOT / name for name in ("README.md", "README.zh.md"))
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def parts(file):
    """Return code blocks without comments, inline code, numbers and places of links."""
    text = file.read_text(encoding="utf-8")
    blocks = [(kind, body) for kind, body in BLOCK.findall(text) if kind != "mermaid"]
    code = [(kind, re.sub(r"[ \t]+#.*", "", body)) for kind, body in blocks]
    prose = BLOCK.sub("", text)
    links = Counter(re.findall(r"\]\(([^)]*)\)", prose)) - Counter({"README.md": 1})
    links -= Counter({"README.zh.md": 1})
    prose = re.sub(r"\]\([^)]*\)", "", prose)
    inline = Counter(re.findall(r"`([^`]*)`", prose))
    numbers = Counter(re.findall(r"\d+(?:[.,]\d+)*", re.sub(r"`[^`]*`", "", prose)))
    return code, inline, numbers, links, text


def test_the_translation_has_the_same_code_numbers_and_links():
    english, chinese = parts(ENGLISH), parts(CHINESE)
    assert english[0] == chinese[0]
    for told, translated in zip(english[1:4], chinese[1:4], strict=True):
        assert told - translated == Counter(), "not in README.zh.md"
        assert translated - told == Counter(), "not in README.md"


def test_the_translation_has_the_same_sections_tables_and_diagram():
    shapes, arrows = [], []
    for *_, text in (parts(ENGLISH), parts(CHINESE)):
        shapes.append(re.findall(r"^(?:#+ |\| |\|-|\* )", text, re.MULTILINE))
        diagram = text.split("```mermaid")[1].split("```")[0]
        arrows.append(re.findall(r"^ +(\w+).*?([\w &]+?)(?:\[.*)?$", diagram, re.MULTILINE))
    assert shapes[0] == shapes[1]
    assert arrows[0] == arrows[1] and len(arrows[0]) == 7
