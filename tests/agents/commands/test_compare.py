from dataclasses import replace
from pathlib import Path

import pytest

from agents.commands.compare import OUTCOMES, Run, compare_runs
from agents.commands.evaluate import TRAINED
from marec_env.errors import RunError
from marec_env.evaluation.page import render_page


def _run(algorithm, seed, value=1.0):
    outcomes = {name: {"mean": value + seed} for name in OUTCOMES}
    return Run(
        path=Path(f"runs/{algorithm}-{seed}"),
        algorithm=algorithm,
        seed=seed,
        environment={"max_requests": 40},
        config={"algorithm": {"kind": algorithm}, "seed": seed},
        commit="abc",
        metrics=[{"env_steps": 10.0 * k, "team_reward": value + k} for k in (1, 2)],
        evaluation={"seed": 7, "sessions": 64, "policies": {TRAINED: {"outcomes": outcomes}}},
        defects=(),
    )


def test_seeds_are_averaged_and_few_are_said():
    result = compare_runs([_run(a, s, v) for a, v in (("mappo", 5), ("ippo", 1)) for s in range(3)])
    clicks = result["document"]["algorithms"]["mappo"]["outcomes"]["clicks"]
    assert clicks["iqm"] == pytest.approx(6.0)
    assert clicks["low"] < 6.0 < clicks["high"]
    assert any("only 3 seeds" in note for note in result["notes"])
    page = render_page("A <b>", result["notes"], result["more"], result["figures"])
    assert "&lt;b&gt;" in page
    assert 'aria-label="Learning curves of F' in page
    assert "<script" not in page
    assert "algorithm.kind" in page


def test_unsound_runs_are_marked_and_left_out():
    broken = replace(_run("mappo", 1, 100.0), defects=("unfinished (1 of 2 env steps)",))
    result = compare_runs([_run("mappo", 0), broken])
    assert result["document"]["algorithms"]["mappo"]["seeds"] == [0]
    assert any("unfinished" in note for note in result["notes"])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(_run("ippo", 0), environment={"max_requests": 9}), "different environments"),
        (replace(_run("ippo", 0), evaluation={"seed": 8, "sessions": 64}), "different sessions"),
        (_run("mappo", 0), "given twice"),
        (_run("ippo", 4), "different seeds"),
        (replace(_run("mappo", 0), defects=("damaged",)), None),
    ],
)
def test_mixtures_are_refused(other, message):
    if message is None:
        with pytest.raises(RunError, match="no run can be compared"):
            compare_runs([other])
        return
    with pytest.raises(RunError, match=message):
        compare_runs([_run("mappo", 0), other])


def test_other_code_versions_are_marked():
    result = compare_runs([_run("mappo", 0), replace(_run("mappo", 1), commit="def")])
    assert any("different versions" in note for note in result["notes"])
