"""The curve over ε: cells that are measured once, wherever it was cut off."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from agents.config import RunConfig
from agents.studies.privacy import curve
from agents.studies.privacy.curve import RAW, Plan, curve_cells, curve_figures, curve_table
from marec_env.errors import RunError
from tests.worlds import small_environment

PLAN = Plan(seeds=1, models=4, sessions=4, cohort=3, train_steps=0)


class CutError(Exception):
    pass


def test_a_curve_goes_on_where_it_was_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve, "LEVELS", {RAW: None, "2": 2.0})
    run = RunConfig.model_validate({"environment": {"kind": "marec", **small_environment(40, 60)}})
    kept: list[dict[str, Any]] = []

    def cut(report: dict[str, Any]) -> None:
        kept.append({**report, "cells": dict(report["cells"])})
        if len(kept) == 3:
            raise CutError

    with pytest.raises(CutError):
        curve_cells(run, PLAN).measured(cut, lambda line: None)
    told: list[str] = []
    whole = curve_cells(run, PLAN).measured(lambda report: None, told.append, kept[-1])
    assert len(told) == 3 and len(whole["cells"]) == 6
    less = {name: cell for name, cell in whole["cells"].items() if name != told[0]}
    again = curve_cells(run, PLAN).measured(
        lambda report: None, lambda line: None, {**whole, "cells": less}
    )
    assert again == whole  # to the bit, whatever else is measured
    private, raw = (whole["cells"][f"attacks, {level}, seed 0"] for level in ("2", RAW))
    assert "auc_released" in private and "auc_released" not in raw

    rows = curve_table(whole).rows
    assert [row[0] for row in rows] == [RAW, "2"] and rows[0][4] == "–"  # none was trained
    assert "(" not in rows[0][1]
    two = {**whole, "plan": {**whole["plan"], "seeds": 2}}
    assert curve_table(two).rows[0][1] == f"{rows[0][1]} (1)"  # fewer seeds than planned are said
    assert len(curve_figures(whole)) == 3
    other = Plan(seeds=3, models=4, sessions=4, cohort=3, train_steps=0)
    with pytest.raises(RunError, match="made with another plan"):
        curve_cells(run, other).measured(lambda report: None, lambda line: None, whole)


def test_recall_is_of_the_best_unseen() -> None:
    rows, wanted = torch.zeros(3, 30), torch.zeros(3, 30, dtype=torch.bool)
    score = -torch.arange(30.0).repeat(3, 1)  # item 0 best
    rows[0, 0] = 1.0  # seen: the top twenty are 1 ... 20
    wanted[0, [20, 25]] = True
    wanted[1, :25] = True  # more than fit: all places are right
    assert curve.recall(score, rows, wanted) == pytest.approx((0.5 + 1.0) / 2)  # the third has none
