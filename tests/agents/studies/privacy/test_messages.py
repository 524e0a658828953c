"""Messages under noise: what is measured, and by what it is told."""

from __future__ import annotations

from typing import Any

import pytest

from agents.config import RunConfig
from agents.studies.privacy import messages
from agents.studies.privacy.curve import Plan
from agents.studies.privacy.messages import messages_cells, messages_table
from tests.worlds import small_environment


def test_noise_reaches_the_messages_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "LEVELS", {"∞": None, "1e6": 1e6, "2": 2.0})
    section = small_environment(60, 80)
    section["pipeline"]["messages"] = {"kind": "fixed", "dim": 2}
    run = RunConfig.model_validate(
        {"environment": {"kind": "marec", **section},
         "sampling": {"num_sessions": 16, "rollout_length": 4}}
    )  # fmt: skip
    plan, told = Plan(seeds=2, sessions=32, cohort=3, train_steps=64, requests=2), []
    report: dict[str, Any] = messages_cells(run, plan).measured(
        lambda report: None, told.append, only="*seed 0"
    )
    assert len(told) == 7 and told[0] == "none, ε –, seed 0"
    cells = report["cells"]
    open_, hardly, much = (cells[f"fixed, ε {e}, seed 0"] for e in ("∞", "1e6", "2"))
    # Noise of a millionth: the same team, but for a rare tie. Much noise: other play.
    assert hardly["clicks"] == pytest.approx(open_["clicks"], abs=0.3)
    assert much["age"] != open_["age"] and "age" not in cells[told[0]]
    rows = messages_table(report).rows
    assert [row[:2] for row in rows[:3]] == [("none", "–"), ("fixed", "∞"), ("fixed", "1e6")]
    gain = cells["learned, ε 2, seed 0"]["clicks"] - cells[told[0]]["clicks"]
    assert float(rows[-1][3]) == pytest.approx(gain, abs=0.06)
