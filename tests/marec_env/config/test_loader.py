from __future__ import annotations

import math
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, field_validator, model_validator

from marec_env.config import ConfigModel
from marec_env.config.loader import load, load_text
from marec_env.errors import ConfigError


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Ppo(ConfigModel):
    kind: Literal["ppo"] = "ppo"
    lr: float = Field(3e-4, gt=0, le=1, description="Step size of Adam.")
    clip: float = Field(0.2, ge=0)


class Vdn(ConfigModel):
    kind: Literal["vdn"] = "vdn"
    tau: float = 0.01


class Sizes(ConfigModel):
    low: int = 1
    high: int = Field(4, ge=1, le=64)
    shape: tuple[int, ...] = (2, 3)
    pair: tuple[int, float] = (1, 0.5)

    @model_validator(mode="after")
    def _ordered(self) -> Sizes:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) must not exceed high ({self.high})")
        return self


class Part(ConfigModel):
    name: str
    weight: float = 1.0


class Root(ConfigModel):
    name: str = "x"
    mode: Literal["auto", "online", "off"] = "auto"
    on: bool = False
    colour: Colour = Colour.RED
    folder: Path = Path("runs")
    limit: int | None = None
    share: float | Literal["all"] = 0.5
    algo: Annotated[Ppo | Vdn, Field(discriminator="kind")] = Ppo()
    must: Annotated[Ppo | Vdn | None, Field(discriminator="kind")] = None
    sizes: Sizes = Sizes()
    parts: tuple[Part, ...] = ()
    weights: dict[str, float] = Field(default_factory=dict)
    costs: dict[str, float] = Field(default_factory=lambda: {"a": 1.0, "b": 2.0})
    kwargs: dict[str, Any] = Field(default_factory=dict)
    plugin: str = ""

    @field_validator("plugin")
    @classmethod
    def _known(cls, value: str) -> str:
        if value == "boom":
            raise ConfigError("plug-in 'boom' is unknown")
        return value


def errors(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_text(text, "a.yaml", Root, overrides)
    return str(caught.value).splitlines()


def test_values_of_every_kind() -> None:
    config = load_text(
        """
name: 'yes'
mode: off
on: true
colour: blue
folder: /tmp/a
limit: 1_000
share: all
algo: {kind: vdn, tau: 3e-4}
sizes: {shape: [4, 5, 6], pair: [2, 1]}
parts:
  - {name: a}
  - name: b
    weight: 2
weights: {recall: 1, rank: 5.e-1}
kwargs: {a: [1, x], b: null}
""",
        "a.yaml",
        Root,
    )
    assert config == Root(
        name="yes",
        mode="off",
        on=True,
        colour=Colour.BLUE,
        folder=Path("/tmp/a"),
        limit=1000,
        share="all",
        algo=Vdn(tau=0.0003),
        sizes=Sizes(shape=(4, 5, 6), pair=(2, 1.0)),
        parts=(Part(name="a"), Part(name="b", weight=2.0)),
        weights={"recall": 1.0, "rank": 0.5},
        kwargs={"a": [1, "x"], "b": None},
    )
    assert isinstance(config.sizes.pair[1], float)


@pytest.mark.parametrize(
    ("text", "value"),
    [("3e-4", 3e-4), ("-1E3", -1000.0), (".5", 0.5), ("1_0", 10.0), ("+2", 2.0), ("1.", 1.0)],
)
def test_numbers(text: str, value: float) -> None:
    got = load_text(f"weights: {{a: {text}}}", "a", Root).weights["a"]
    assert got == value
    assert isinstance(got, float)


@pytest.mark.parametrize("text", ["1:30", "on", "2026-01-01", "0x1f", "1__", "1e", "'3'"])
def test_what_stays_text(text: str) -> None:
    assert load_text(f"name: {text}", "a", Root).name == text.strip("'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("on: yes", "a.yaml:1:5: on: must be true or false (got 'yes')"),
        ("limit: 1.5", "a.yaml:1:8: limit: must be a whole number (got 1.5)"),
        ("limit: 1e6", "a.yaml:1:8: limit: must be a whole number (got 1000000.0); write 1000000"),
        ("limit: true", "a.yaml:1:8: limit: must be a whole number (got true)"),
        ("name: 3", "a.yaml:1:7: name: must be text (got 3)"),
        (
            "mode: onlin",
            "a.yaml:1:7: mode: must be 'auto', 'online' or 'off' (got 'onlin'); "
            "did you mean 'online'?",
        ),
        (
            "colour: read",
            "a.yaml:1:9: colour: must be 'red' or 'blue' (got 'read'); did you mean 'red'?",
        ),
        (
            "algo:\n  kind: ppo\n  lr: 0",
            "a.yaml:3:7: algo.lr: must be above 0 (got 0); allowed: above 0 to 1",
        ),
        (
            "algo: {kind: pppo}",
            "a.yaml:1:14: algo.kind: must be one of ppo, vdn (got 'pppo'); did you mean 'ppo'?",
        ),
        ("must: {lr: 1}", "a.yaml:1:7: must.kind: is missing; choose one of ppo, vdn"),
        (
            "algo: {kind: ppo, tua: 1}",
            "a.yaml:1:19: algo.tua: unknown key (known: clip, kind, lr)",
        ),
        (
            "algo: {kind: vdn, tua: 1}",
            "a.yaml:1:19: algo.tua: unknown key; did you mean 'tau'? (known: kind, tau)",
        ),
        ("sizes:\n  low: 9", "a.yaml:2:3: sizes: low (9) must not exceed high (4)"),
        ("sizes: 3", "a.yaml:1:8: sizes: must be a section of 'key: value' lines (got 3)"),
        ("sizes: {shape: 3}", "a.yaml:1:16: sizes.shape: must be a list (got 3)"),
        (
            "sizes: {shape: [1, x]}",
            "a.yaml:1:20: sizes.shape.1: must be a whole number (got 'x')",
        ),
        ("parts:\n- weight: 1", "a.yaml:2:3: parts.0.name: is missing; give it a value"),
        ("weights: {a: .nan}", "a.yaml:1:14: weights.a: must be finite (got nan)"),
        ("weights: {a: .inf}", "a.yaml:1:14: weights.a: must be finite (got inf)"),
        (
            "share: most",
            "a.yaml:1:8: share: must be a number (got 'most'); or must be 'all' (got 'most')",
        ),
        ("plugin: boom", "a.yaml:1:9: plugin: plug-in 'boom' is unknown"),
        ("name: a\nname: b", "a.yaml:2:1: name: duplicate key; first given at a.yaml:1:1"),
        ("on:\n\ttrue", "a.yaml:2:1: a tab cannot indent YAML; use spaces"),
        ("- 1", "a.yaml:1:1: expected 'key: value' lines, found a list"),
        ("just words", "a.yaml:1:1: expected 'key: value' lines, found a single value"),
        (
            "a: 1\n---\nb: 1",
            "a.yaml:2:1: a second document begins here; one file holds one configuration",
        ),
        (
            "kwargs: {a: !!python/object:os.system 1}",
            "a.yaml:1:13: kwargs.a: tag 'tag:yaml.org,2002:python/object:os.system' is not "
            "accepted; remove it",
        ),
        ("kwargs: {a: !mine 1}", "a.yaml:1:13: kwargs.a: tag '!mine' is not accepted; remove it"),
        ("kwargs: {? [1] : 2}", "a.yaml:1:12: kwargs: a key must be a plain word"),
    ],
)
def test_one_error(text: str, message: str) -> None:
    assert errors(text) == [message]


def test_unknown_key_of_another_section_is_found() -> None:
    [message] = errors("clip: 0.1")
    assert message.startswith("a.yaml:1:1: clip: unknown key; did you mean 'algo.clip'?")


def test_all_errors_at_once_in_order_of_place() -> None:
    found = errors(
        "on: 3\nname: a\nname: b\nsizes: {high: 0, hihg: 2}\n", "limit=x", "sizes.nothing=1"
    )
    assert [line.split(": ")[0] for line in found] == [
        "a.yaml:1:5",
        "a.yaml:3:1",
        "a.yaml:4:15",
        "a.yaml:4:18",
        "--set limit=x",
        "--set sizes.nothing=1",
    ]
    assert "'high'" in found[3]


def test_syntax_error_has_a_place() -> None:
    [message] = errors("name: [a\nmode: auto\n")
    assert message.startswith("a.yaml:2:5: ")


def test_endless_anchor_is_refused() -> None:
    [message] = errors("kwargs: &a {b: *a}")
    assert "nested deeper" in message or "recursive" in message


def test_a_section_without_kind_is_of_the_default_kind() -> None:
    assert load_text("algo: {lr: 0.5}", "a", Root).algo == Ppo(lr=0.5)
    assert load_text("{}", "a", Root, ["algo.clip=0.5"]).algo == Ppo(clip=0.5)


def test_overrides() -> None:
    config = load_text(
        "sizes: {low: 2}\nparts: [{name: a}]",
        "a.yaml",
        Root,
        [
            "sizes.high=8",
            "algo={kind: vdn, tau: 1e-2}",
            "parts.0.weight=3",
            "weights.a=1",
            "name=b",
        ],
    )
    assert config.sizes == Sizes(low=2, high=8)
    assert config.algo == Vdn(tau=0.01)
    assert config.parts[0].weight == 3.0
    assert config.weights == {"a": 1.0}
    assert config.name == "b"


@pytest.mark.parametrize(
    ("text", "override", "costs"),
    [
        ("{}", "costs.c=3", {"a": 1.0, "b": 2.0, "c": 3.0}),
        ("{}", "costs.b=3", {"a": 1.0, "b": 3.0}),
        ("costs: {d: 4}", "costs.c=3", {"d": 4.0, "c": 3.0}),
        ("{}", "costs={c: 3}", {"c": 3.0}),
        ("{}", "weights.c=3", {"a": 1.0, "b": 2.0}),
    ],
)
def test_an_override_of_one_entry_leaves_the_others(
    text: str, override: str, costs: dict[str, float]
) -> None:
    assert load_text(text, "a.yaml", Root, [override]).costs == costs
    assert load_text("{}", "a.yaml", Root).costs == {"a": 1.0, "b": 2.0}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("limit", "--set limit: expected section.key=value"),
        ("=3", "--set =3: expected section.key=value"),
        ("a..b=3", "--set a..b=3: expected section.key=value"),
        ("name.b=3", "--set name.b=3: 'name' is a value ('n'), not a section"),
        (
            "parts.1.name=3",
            "--set parts.1.name=3: 'parts' is a list of 1; '1' is not an index from 0 to 0",
        ),
        (
            "sizes.high=99",
            "--set sizes.high=99: sizes.high: must be at most 64 (got 99); allowed: from 1 to 64",
        ),
        ("mod=auto", "--set mod=auto: mod: unknown key; did you mean 'mode'?"),
        ("name=[1", "--set name=[1"),
    ],
)
def test_override_is_blamed_by_name(override: str, message: str) -> None:
    [got] = errors("name: n\nparts: [{name: a}]", override)
    assert got.startswith(message)


def test_check_between_keys_names_the_override() -> None:
    [message] = errors("sizes: {high: 4}", "sizes.low=5")
    assert message == (
        "a.yaml:1:8: sizes: low (5) must not exceed high (4) (with --set sizes.low=5)"
    )


def test_files(tmp_path: Path) -> None:
    good = tmp_path / "good.yaml"
    good.write_text("﻿name: ü\n", encoding="utf-8")
    assert load(good, Root).name == "ü"
    good.write_bytes(b"name: \xff\n")
    with pytest.raises(ConfigError, match="byte 6 is not UTF-8"):
        load(good, Root)
    good.write_text(" \n")
    with pytest.raises(ConfigError, match=r"is empty; write \{\}"):
        load(good, Root)
    with pytest.raises(ConfigError, match=r"no such configuration file \(there are: .*good.yaml"):
        load(tmp_path / "godo.yaml", Root)
    with pytest.raises(ConfigError, match="is a folder"):
        load(tmp_path, Root)
    good.write_text("{}")
    assert load(good, Root) == Root()
    good.write_text("# all defaults\n  # and more\n")
    with pytest.raises(ConfigError, match="is empty"):
        load(good, Root)
    with pytest.raises(ConfigError, match=r"good\.yaml/x: cannot be read: Not a directory"):
        load(good / "x", Root)
    good.write_text("name: \x00\n")
    with pytest.raises(ConfigError, match="not readable as YAML"):
        load(good, Root)


def test_infinite_value_round_trip_is_refused_only_for_numbers() -> None:
    assert math.isinf(load_text("kwargs: {a: .inf}", "a", Root).kwargs["a"])


@pytest.mark.parametrize("key", ["environment.measure.true_top", "training.env_steps"])
def test_whole_numbers_that_no_tensor_holds_are_refused(key: str) -> None:
    from agents.config import RunConfig

    with pytest.raises(ConfigError, match=f"{key}: .*beyond any use"):
        load_text("{}", "t.yaml", RunConfig, [f"{key}={10**30}"])
