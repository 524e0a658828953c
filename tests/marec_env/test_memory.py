"""What does not fit is refused with the estimate, before it is allocated."""

from __future__ import annotations

import pytest

from marec_env import memory
from marec_env.errors import ConfigError


def test_what_fits_passes_and_what_does_not_is_refused_with_the_estimate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 3 * 10**9)
    memory.require_memory("a table", 2.9e9, "lower rows")
    with pytest.raises(
        ConfigError,
        match=r"a table: needs about 3\.1 GB of memory, 3\.0 GB are free; lower rows",
    ):
        memory.require_memory("a table", 3.1e9, "lower rows")


def test_a_silent_system_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    memory.require_memory("a table", 1e30, "lower rows")


def test_this_system_tells() -> None:
    there = memory.available_memory()
    assert there is None or 10**6 < there < 10**15
