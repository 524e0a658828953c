import csv
import io
import json
from dataclasses import fields

import pytest
import torch
from scipy import stats

from marec_env.evaluation.comparison import compare_outcomes
from marec_env.evaluation.rollout import RolloutResult


def _outcomes(clicks, seed=0, privileged=False, **more):
    values = torch.tensor(clicks)
    sessions = torch.arange(len(clicks))
    return RolloutResult(
        seed=seed,
        sessions=sessions,
        per_session={"clicks": values, **more},
        user=sessions,
        group=sessions % 2,
        group_names=("F", "M"),
        is_new=sessions == 0,
        impressions=torch.tensor([2.0, 0.0, 2.0, 0.0]),
        clicks=torch.tensor([1.0, 0.0, 0.5, 0.0]),
        funnel={"relevant": torch.full((len(clicks),), 50.0)},
        item_groups={
            "provider": torch.tensor([0, 0, 1, 1]),
            "cold": torch.tensor([0, 1, 0, 1]),
        },
        privileged=privileged,
    )


@pytest.fixture
def comparison():
    objective = torch.tensor([0.5, 0.5, float("nan"), 0.6])
    outcomes = {
        "trained team": _outcomes([3.0, 5.0, 6.0, 8.0], **{"objective/recall_0": objective}),
        "oracle": _outcomes([9.0, 9.0, 9.0, 9.0], privileged=True),
        "static": _outcomes([2.0, 3.0, 4.0, 6.0]),
        "popularity": _outcomes([1.0, 2.0, 4.0, 5.0]),
    }
    return compare_outcomes(outcomes, ("popularity", "static", "oracle"))


def test_the_reference_is_the_best_unprivileged_baseline(comparison):
    assert comparison.reference == "static"
    team = comparison.policies["trained team"].outcomes
    assert team["clicks"].difference.mean == pytest.approx(1.75)
    assert comparison.policies["static"].outcomes["clicks"].difference is None
    assert team["objective/recall_0"].difference is None


def test_files_name_policies_in_the_order_of_tables_and_have_the_regret(comparison):
    order = ["trained team", "popularity", "static", "oracle"]
    assert list(comparison.policies) == order
    rows = list(csv.DictReader(io.StringIO(comparison.as_csv())))
    assert list(dict.fromkeys(row["policy"] for row in rows)) == order
    lost = {row["policy"]: float(row["mean"]) for row in rows if row["outcome"] == "regret"}
    assert lost == pytest.approx({"trained team": 3.5, "popularity": 6.0, "static": 5.25})


def test_groups_and_cohort(comparison):
    groups = comparison.policies["trained team"].groups["clicks"]
    assert groups["F"].mean == pytest.approx(4.5)
    assert groups["M"].mean == pytest.approx(6.5)
    assert groups["new users"].mean == pytest.approx(3.0)
    cohort = comparison.policies["static"].cohort
    assert cohort == {"coverage": 0.5, "gini": pytest.approx(0.5)}


def test_json_and_csv_hold_the_same_numbers(comparison):
    document = json.loads(json.dumps(comparison.as_dict(), allow_nan=False))
    team = document["policies"]["trained team"]["outcomes"]
    assert team["objective/recall_0"]["sessions"] == 3
    rows = list(csv.DictReader(io.StringIO(comparison.as_csv())))
    row = next(r for r in rows if (r["policy"], r["outcome"]) == ("trained team", "clicks"))
    assert float(row["mean"]) == pytest.approx(team["clicks"]["mean"])
    assert float(row["diff_low"]) == pytest.approx(team["clicks"]["difference"]["low"])


def test_regret_is_what_the_oracle_reaches_more_on_the_same_sessions(comparison):
    assert comparison.oracle == "oracle"
    regret = comparison.policies["static"].regret["clicks"]
    assert regret.mean == pytest.approx(9.0 - 3.75)
    document = comparison.as_dict()
    assert document["policies"]["static"]["regret"]["clicks"]["mean"] == pytest.approx(5.25)
    assert document["policies"]["oracle"]["regret"] == {}


def test_gaps_between_groups_have_welchs_interval(comparison):
    gaps = comparison.policies["trained team"].gaps["clicks"]
    # F: 3 and 6; M: 5 and 8. Only one user is new, so that gap has no interval.
    assert gaps["F - M"].mean == pytest.approx(-2.0)
    expected = stats.ttest_ind([3.0, 6.0], [5.0, 8.0], equal_var=False).confidence_interval()
    assert (gaps["F - M"].low, gaps["F - M"].high) == pytest.approx((expected.low, expected.high))
    assert gaps["known - new users"].mean == pytest.approx(19 / 3 - 3)
    assert gaps["known - new users"].low is None


def test_exposure_and_groups_are_written(comparison):
    policy = comparison.as_dict()["policies"]["static"]
    assert policy["groups"]["clicks"]["F"]["mean"] == pytest.approx(3.0)
    assert policy["exposure"]["provider"]["impressions"] == pytest.approx([0.5, 0.5])
    assert policy["exposure"]["provider"]["clicks"] == pytest.approx([2 / 3, 1 / 3])
    assert policy["exposure"]["provider"]["rates"] == [0.5, 0.25]
    assert policy["exposure"]["cold"]["rates"] == [0.375, None]  # no cold item was shown
    assert policy["gaps"]["clicks"]["known - new users"]["low"] is None


def test_other_sessions_are_refused():
    outcomes = {"a": _outcomes([1.0, 2.0]), "b": _outcomes([1.0, 2.0], seed=1)}
    with pytest.raises(ValueError, match="'b' was evaluated on other sessions"):
        compare_outcomes(outcomes, ("a",))


def test_what_came_of_a_policy_is_kept_in_a_file(tmp_path):
    clicks = torch.tensor([3.0, float("nan"), 6.0])
    found = _outcomes([1.0, 2.0, 4.0], seed=5, privileged=True, **{"objective/recall_0": clicks})
    found.save(tmp_path / "deep" / "static.safetensors")
    again = RolloutResult.load(tmp_path / "deep" / "static.safetensors")
    for item in fields(RolloutResult):
        first, second = getattr(found, item.name), getattr(again, item.name)
        if isinstance(first, dict):
            assert list(first) == list(second)  # the order of rows in files
            assert all(
                torch.equal(first[k].nan_to_num(-1), second[k].nan_to_num(-1)) for k in first
            )
        elif isinstance(first, torch.Tensor):
            assert first.dtype == second.dtype
            assert torch.equal(first, second)
        else:
            assert first == second
