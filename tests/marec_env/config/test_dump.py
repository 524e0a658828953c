from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from marec_env.config.base import ConfigModel
from marec_env.config.dump import dump, json_schema
from marec_env.config.loader import load_text


class A(ConfigModel):
    kind: Literal["a"] = "a"
    lr: float = Field(1e-5, gt=0, le=1, description="Step size.")


class B(ConfigModel):
    kind: Literal["b"] = "b"
    text: str = "no"


class Root(ConfigModel):
    name: str = Field("x: y", description="What to call it.")
    algo: Annotated[A | B, Field(discriminator="kind", description="Who learns.")] = A()
    parts: tuple[B, ...] = Field((), description="Several.")
    table: dict[str, Any] = Field(default_factory=dict)
    named: dict[str, A] = Field(default_factory=dict)
    limit: int | None = None


def test_every_key_has_its_description_and_what_is_allowed() -> None:
    assert dump(Root(parts=(B(),), named={"one": A()}, table={"k": ["a, b", 1, "1"]})) == (
        "# What to call it.\n"
        'name: "x: y"\n'
        "\n"
        "# Who learns. One of: a, b.\n"
        "algo:\n"
        "  kind: a\n"
        "  # Step size. (above 0 to 1)\n"
        "  lr: 1.0e-05\n"
        "# Several.\n"
        "parts:\n"
        "  -\n"
        "    kind: b\n"
        '    text: "no"\n'
        'table: {k: ["a, b", 1, "1"]}\n'
        "named:\n"
        "  one:\n"
        "    kind: a\n"
        "    # Step size. (above 0 to 1)\n"
        "    lr: 1.0e-05\n"
        "limit: null\n"
    )


def test_only_what_differs() -> None:
    assert dump(Root(limit=3), base=Root()) == "limit: 3\n"
    assert dump(Root(), base=Root()) == "{}\n"
    changed = Root(algo=A(lr=0.5))
    assert load_text(dump(changed, base=Root()), "x", Root, ["algo.kind=a"]) == changed
    other = Root(algo=B())
    assert load_text(dump(other, base=Root()), "x", Root) == other


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(st.text(st.characters(codec="utf-8")), st.floats(1e-300, 1), values)
def test_what_is_written_is_read_back_equal(text: str, lr: float, value: Any) -> None:
    config = Root(name=text, algo=A(lr=lr), parts=(B(text=text),), table={"v": value})
    written = dump(config)
    assert load_text(written, "x", Root) == config
    # An ordinary YAML 1.1 reader agrees.
    plain = yaml.safe_load(written)
    assert plain["name"] == text
    assert plain["algo"]["lr"] == lr


def test_schema_describes_fields() -> None:
    schema = json_schema(Root)
    assert schema["properties"]["name"]["description"] == "What to call it."
    assert schema["additionalProperties"] is False
