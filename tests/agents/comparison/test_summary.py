import csv
import io
import json
import math
import re

import pytest

from agents.comparison.figures import curve_figures
from agents.comparison.report import run_page
from agents.comparison.rows import rows_of_file
from agents.comparison.summary import summarise
from agents.comparison.tables import cold_table, difference_table, outcomes_table
from marec_env.errors import ConfigError
from marec_env.evaluation.comparison import Numbers
from marec_env.evaluation.statistics import Estimate
from marec_env.reporting.drawing import interval


@pytest.fixture
def summary(make_run):
    runs = [make_run(clicks=40.0 + s, seed=s) for s in range(5)]
    runs += [make_run(clicks=20.0 + s, seed=s, algorithm__kind="ippo") for s in range(5)]
    return summarise(runs)


def test_experiments_are_interquartile_means_over_seeds(summary):
    mappo = summary.experiments[0]
    assert (mappo.label, mappo.over, mappo.count) == ("mappo", "seeds", 5)
    assert mappo.values["clicks"].value == pytest.approx(42.0)  # of 41, 42 and 43
    assert mappo.values["clicks"].low < 42.0 < mappo.values["clicks"].high
    assert mappo.values["regret"].value == pytest.approx(58.0)
    assert mappo.nested("groups")["clicks"]["F"].value == pytest.approx(43.0)
    assert mappo.part("passing")["candidates"].value == pytest.approx(0.2)
    assert mappo.exposure["provider"].impressions == pytest.approx([0.3, 0.7])


def test_cold_items_have_a_table_of_means_over_seeds(make_run):
    rows = cold_table(summarise([make_run(clicks=c, seed=s) for s, c in enumerate((40, 50))])).rows
    told = {row[0]: row[1:] for row in rows}
    assert told["mappo"] == ["10 %", "2 %", "4.5 %", "0.0225", "0.2"]
    assert told["popularity"] == ["10 %", "2 %", "0.5 %", "-", "0.2"]


def test_regret_says_in_what_it_is_and_has_its_paired_interval(make_run):
    table = outcomes_table(summarise([make_run()]))
    column = table.header.index("regret in clicks")
    assert {row[0]: row[column] for row in table.rows} == {
        "mappo": "70.0\n[69.0, 71.0]",
        "popularity": "95.0\n[94.0, 96.0]",
        "random": "90.0\n[89.0, 91.0]",
        "oracle (p)": "0",
    }


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ((6.083, 0.271, 11.9), "+6.1 [+0.3, +11.9]"),
        ((0.0625, 0.00156, 0.1234), "+0.062 [+0.002, +0.123]"),
        ((-0.0004, -0.31, 0.31), "+0.00 [-0.31, +0.31]"),
        ((1234.5, 1204.5, 1264.5), "+1,234 [+1,204, +1,264]"),
        ((5.0, 5.0, 5.0), "+5.00 [+5.00, +5.00]"),
        ((0.0, 0.0, 0.0), "+0 [+0, +0]"),
        ((2.5, math.nan, math.nan), "+2.5"),
    ],
)
def test_numbers_are_rounded_to_their_interval(ends, told):
    assert interval(Estimate(*ends), sign="+") == told


def test_a_policy_has_one_name_and_one_place(make_run):
    run = make_run()
    run.metrics[-1] |= {
        f"evaluation/clicks{name}": 1.0 for name in ("", "/oracle", "/random", "/popularity")
    }
    page = run_page(run)
    order = ["trained team", "popularity", "random", "oracle (p)"]
    [curves] = re.findall("Learning curves of clicks a session of the evaluation[^.]*", page)
    places = [
        [text.index(name) for name in order] for text in (curves, page[page.index("<tbody>") :])
    ]
    assert all(found == sorted(found) for found in places)
    assert "mappo" not in page[page.index("<tbody>") : page.index("</tbody>")]


def test_differences_are_to_the_best_baseline_and_starred(make_run):
    run = make_run()
    run.evaluation.reference = "random"
    outcomes = run.evaluation.policies["trained team"].outcomes
    outcomes["clicks"].difference = Numbers(mean=20.0, low=1.0, high=39.0)
    outcomes["length"].difference = Numbers(mean=3.0, low=-1.0, high=7.0)
    summary = summarise([run])
    table = difference_table(summary)
    assert "to random, the best by clicks of" in table.title
    assert table.rows == [["mappo", "+20*\n[+1, +39]", "+3.0\n[-1.0, +7.0]"]]
    run.evaluation.reference = None
    assert difference_table(summarise([run])) is None


def test_baselines_come_once_with_intervals_over_sessions(summary):
    assert [row.label for row in summary.others] == ["popularity", "random", "oracle"]
    random = summary.others[1]
    assert (random.kind, random.over, random.count) == ("baseline", "sessions", 64)
    assert (random.values["clicks"].low, random.values["clicks"].high) == (9.0, 11.0)
    assert summary.others[2].kind == "oracle"
    assert "candidates" not in summary.others[0].part("passing")


def test_a_baseline_that_came_out_differently_is_two_rows(make_run):
    other = make_run(algorithm__kind="ippo")
    other.evaluation.policies["random"].outcomes["clicks"].mean = 11.0
    found = [row.label for row in summarise([make_run(), other]).others]
    assert "random (beside mappo, seed 0)" in found
    assert "random (beside ippo, seed 0)" in found


def test_pairs_and_profile(summary):
    (pair,) = summary.pairs["clicks"]
    assert (pair.first, pair.second) == ("ippo", "mappo")
    assert pair.improvement.value == 0.0
    assert pair.difference.value == pytest.approx(-20.0)
    assert pair.difference.significant
    profile = summary.profile
    assert profile.normalised
    middle, low, high = profile.bands["mappo"]
    # (40 - 10) / (100 - 10) is reached by all five seeds.
    assert middle[profile.thresholds < 30 / 90] == pytest.approx(1.0)
    assert ((low <= middle) & (middle <= high)).all()


def test_one_seed_has_intervals_over_sessions_and_a_warning(make_run):
    summary = summarise([make_run()])
    assert summary.experiments[0].over == "sessions"
    assert summary.experiments[0].values["clicks"].low == 29.0
    assert summary.profile is None
    assert any("one seed" in note for note in summary.notes)


@pytest.mark.parametrize(("seeds", "warned"), [(9, True), (10, False)])
def test_fewer_than_ten_seeds_are_said(make_run, seeds, warned):
    notes = summarise([make_run(seed=s) for s in range(seeds)]).notes
    assert any(f"only {seeds} seeds" in note for note in notes) is warned


def test_json_and_csv_hold_the_same_numbers(summary):
    document = json.loads(json.dumps(summary.as_dict(), allow_nan=False))
    mappo = document["experiments"]["mappo"]
    assert mappo["values"]["clicks"]["by_seed"] == [40.0, 41.0, 42.0, 43.0, 44.0]
    assert mappo["seeds"] == [0, 1, 2, 3, 4]
    rows = list(csv.DictReader(io.StringIO(summary.as_csv())))
    row = next(r for r in rows if (r["name"], r["quantity"]) == ("mappo", "clicks"))
    assert float(row["low"]) == pytest.approx(mappo["values"]["clicks"]["low"])
    assert (row["over"], row["count"]) == ("seeds", "5")


def game(cohort=7, **more):
    level = {name: {"mean": 33.0, "low": 32.0, "high": 34.0} for name in ("clicks", "return")}
    levels = {"best static (seed 0)": level, "oracle_myopic": level, "trained: x": level}
    return {"plan": {"cohort": cohort, "sessions": 1024}, "levels": levels, **more}


def test_searched_static_play_is_a_row(make_run, tmp_path):
    (tmp_path / "game.json").write_text(json.dumps(game()))
    summary = summarise([make_run()], [tmp_path / "game.json"])
    row = next(row for row in summary.others if row.label == "best static (seed 0)")
    assert (row.kind, row.count, row.values["clicks"].high) == ("baseline", 1024, 34.0)
    assert summary.others[-1].kind == "oracle"
    assert not any("trained" in row.label for row in summary.others)
    assert any("1024 sessions of the same seed" in note for note in summary.notes)
    assert any("not checked" in note for note in summary.notes)


def test_another_runs_baselines_are_rows_and_its_team_is_not(make_run, evaluation, tmp_path):
    other = evaluation(30.0)
    other["policies"]["als"] = other["policies"].pop("random")
    (tmp_path / "evaluation.json").write_text(json.dumps(other))
    summary = summarise([make_run()], [tmp_path / "evaluation.json"])
    assert [row.label for row in summary.others] == ["popularity", "random", "als", "oracle"]
    [note] = [note for note in summary.notes if "left out" in note]
    assert note.startswith("popularity, oracle of ")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (game(cohort=8), "other sessions"),
        (game(environment={"kind": "other"}), "another environment"),
        ({"x": 1}, "neither an evaluation.json nor"),
    ],
)
def test_rows_that_do_not_fit_are_refused(make_run, tmp_path, document, message):
    (tmp_path / "rows.json").write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=message):
        rows_of_file(tmp_path / "rows.json", make_run())


def test_curves_of_baselines_go_as_far_as_the_longest_run(make_run):
    short, long = make_run(), make_run(algorithm__kind="ippo")
    for run, clicks in ((short, 11.0), (long, 12.0)):
        for row in run.metrics:
            row |= {"evaluation/clicks": 1.0, "evaluation/clicks/random": clicks}
    long.metrics.append({**long.metrics[-1], "env_steps": 500_000.0})
    summary = summarise([short, long])
    figure = curve_figures(summary.grouping.groups, summary.others)[0]
    assert "random 12" in figure.alt
