from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from marec_env.config import ConfigModel
from marec_env.config.loader import load_text
from marec_env.config.yaml_source import dump


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


def test_every_value_is_written_plainly() -> None:
    assert dump(Root(parts=(B(),), named={"one": A()}, table={"k": ["a, b", 1, "1", "3e-4"]})) == (
        "name: 'x: y'\n"
        "algo: {kind: a, lr: 1.0e-05}\n"
        "parts:\n"
        "- {kind: b, text: 'no'}\n"
        "table:\n"
        "  k:\n"
        "  - a, b\n"
        "  - 1\n"
        '  - "1"\n'
        '  - "3e-4"\n'
        "named:\n"
        "  one: {kind: a, lr: 1.0e-05}\n"
        "limit: null\n"
    )


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
