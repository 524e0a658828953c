"""``evaluate.py suite`` end to end on a small environment with a tiny budget."""

import json
import shutil

import pytest

from agents.cli import run
from agents.commands.suite import command
from agents.suite.algorithms import ALGORITHMS, columns
from agents.suite.runs import plan
from agents.suite.tasks import TASKS
from marec_env.errors import ConfigError, RunError
from marec_env.shipped import PRESETS
from tests.worlds import small_environment

SMALL = small_environment(max_requests=4)
SETTINGS = [
    *(f"environment.{k}={json.dumps(SMALL[k])}" for k in ("max_requests", "data", "embeddings")),
    "environment.catalog.num_topics=6", "environment.population.history=12",
    "sampling.num_sessions=16", "sampling.rollout_length=4", "evaluation.sessions=16",
]  # fmt: skip


def suite(place, **options):
    given = {
        "algorithms": "claims", "seeds": "0-1", "tasks": "motives", "budget": 64, "jobs": 1,
        "output": place, "baselines": "random,oracle", "overrides": SETTINGS, "rows": None,
        "markdown": None, "mixed_code": False,
    }  # fmt: skip
    return command(**{**given, **options})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("suite")
    assert suite(place, markdown=place / "suite.md") == 0
    return place


def test_the_leaderboard_has_tasks_algorithms_claims_settings_and_hashes(made, capsys):
    board = json.loads((made / "suite.json").read_text())
    task = board["tasks"]["motives"]
    assert set(task["experiments"]) == {"ippo", "ippo-own"}
    assert task["experiments"]["ippo"]["seeds"] == [0, 1]
    assert set(task["policies"]) == {"random", "oracle"}
    assert task["preset"]["training"]["env_steps"] == 64
    assert set(task["manifest"]["inputs"]) >= {"topics"}
    assert task["manifest"]["versions"]["torch"]
    by_seed = {n: e["values"]["clicks"]["by_seed"] for n, e in task["experiments"].items()}
    claim = board["claims"]["motives"]
    assert claim["by_seed"] == {"better": by_seed["ippo"], "worse": by_seed["ippo-own"]}
    assert {s["algorithm"] for s in board["standings"]} == {"ippo", "ippo-own"}
    page, text = (made / "suite.html").read_text(), (made / "suite.md").read_text()
    assert "Performance profile" in page
    for told in ("Clicks a session (place)", "What the tasks claim", "rewards.mode=own"):
        assert told in page.replace("\\", "")
        assert told in text.replace("\\", "")


def test_what_is_finished_is_kept_and_what_was_stopped_goes_on(made, tmp_path, capsys):
    place = tmp_path / "copy"
    shutil.copytree(made, place)
    runs = place / "motives" / "ippo"
    before = {p: p.read_bytes() for p in place.rglob("evaluation.json")}
    shutil.rmtree(runs / "seed1")  # never begun
    stopped = place / "motives" / "ippo-own" / "seed0"
    (stopped / "evaluation.json").unlink()  # killed before its evaluation
    assert suite(place) == 0
    told = capsys.readouterr().err
    assert "2 of 4 runs are finished" in told
    assert {line.split(":")[0] for line in told.splitlines() if ": done" in line} == {
        "motives, ippo, seed 1", "motives, ippo-own, seed 0",
    }  # fmt: skip
    for path, content in before.items():
        ours, theirs = json.loads(path.read_bytes()), json.loads(content)
        assert ours["policies"] == theirs["policies"], path
    with pytest.raises(RunError, match=r"seed0 is a run of other settings \(training.env_steps\)"):
        suite(place, budget=128)


def test_ones_own_settings_and_rows_join(made, tmp_path, capsys):
    place = tmp_path / "copy"
    shutil.copytree(made, place)
    (tmp_path / "slow.yaml").write_text("algorithm: {kind: happo, epochs: 1}\n")
    theirs = json.loads((place / "motives" / "baselines.json").read_text())
    theirs["policies"] = {"somebody": theirs["policies"]["random"]}
    (tmp_path / "rows.json").write_text(json.dumps(theirs))
    rows = [f"motives={tmp_path / 'rows.json'}"]
    names = f"ippo,{tmp_path / 'slow.yaml'}"
    assert suite(place, algorithms=names, rows=rows) == 0
    task = json.loads((place / "suite.json").read_text())["tasks"]["motives"]
    assert set(task["experiments"]) == {"ippo", "slow happo"}
    assert task["configuration"]["algorithm.kind"] == ["ippo", "happo"]
    assert "somebody" in task["policies"]


def test_what_is_asked_for_wrongly_is_told(tmp_path):
    for wrong, told in (
        ({"tasks": "memry"}, "--tasks: .*memry"),
        ({"algorithms": "mapo"}, "--algorithms: .*mappo"),
        ({"algorithms": ","}, "name at least one"),
        ({"rows": ["x.json"]}, "expected TASK=FILE"),
        ({"overrides": ["training.steps=3"]}, "training.steps"),
    ):
        with pytest.raises(ConfigError, match=told):
            suite(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())
    assert run("suite", ["--tasks", "none"]) == 2


def test_every_task_has_a_short_preset_and_takes_every_algorithm(tmp_path):
    for name in TASKS:
        file = PRESETS / "suite" / f"{name}.yaml"
        assert len(file.read_text().splitlines()) <= 20
    tasks = {name: columns(list(ALGORITHMS)) for name in TASKS}
    for task in plan(tasks, [0], [], tmp_path):
        made = [run.algorithm for run in task.runs]
        away = bool(task.config.evaluation.environment)
        assert ("mappo-continued" in made, "mappo-home" in made) == (away, away)
        # One that sets what the preset has already is not trained twice.
        assert ("mappo-myopic" in made) == (task.config.algorithm.gamma != 0)
        assert len({run.experiment for run in task.runs}) == len(task.runs)
    for task in TASKS.values():
        assert {task.better, task.worse} <= set(ALGORITHMS)
