import json

import pytest

from agents.comparison.rows import _topics
from agents.comparison.runs import experiment_hash, read_run
from agents.config import RunConfig
from marec_env.errors import RunError


def test_a_finished_run_is_sound(write_run):
    run = read_run(write_run(clicks=30.0, seed=4, name="a"))
    assert run.defects == ()
    assert (run.seed, run.name, run.algorithm) == (4, "a", "mappo")
    assert run.evaluated.policies["trained team"].clicks == 30.0
    assert [str(code) for code in run.codes] == ["b" * 10]


def cut_metrics(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:2]))


def half_a_line(folder):
    text = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(text[:-20])


def damage_metrics(folder):
    text = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text("{" + text)


def lose_rows(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    last = json.dumps({**json.loads(lines[-1]), "iterations": 4}) + "\n"
    (folder / "metrics.jsonl").write_text(lines[2] + last)


def edit_config(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "seeds": {"run": 7}}))


def evaluated_earlier(folder):
    document = json.loads((folder / "evaluation.json").read_text())
    (folder / "evaluation.json").write_text(json.dumps({**document, "env_steps": 9}))


def damage_evaluation(folder):
    text = (folder / "evaluation.json").read_text()
    (folder / "evaluation.json").write_text(text[: len(text) // 2])


def no_team(folder):
    document = json.loads((folder / "evaluation.json").read_text())
    del document["policies"]["trained team"]
    (folder / "evaluation.json").write_text(json.dumps(document))


def no_number(folder):
    document = json.loads((folder / "evaluation.json").read_text())
    document["policies"]["trained team"]["outcomes"]["clicks"]["mean"] = None
    (folder / "evaluation.json").write_text(json.dumps(document))


def wrong_shapes():
    """JSON of another shape in every part of an evaluation that is read."""
    team = ("policies", "trained team")
    for place in (
        (), ("seed",), ("sessions",), ("policies",), team, (*team, "outcomes"), (*team, "regret"),
        (*team, "outcomes", "clicks"), (*team, "outcomes", "clicks", "mean"), (*team, "funnel"),
        (*team, "cohort"), (*team, "groups"), (*team, "groups", "clicks"), (*team, "gaps"),
        (*team, "exposure"), (*team, "exposure", "provider"), ("policies", "random"),
        (*team, "exposure", "provider", "items"), ("policies", "oracle", "privileged"), ("git",),
    ):  # fmt: skip
        for value in ("x", [1], 3.5, None):
            if value is None and place[-1:] in (("git",), ("reference",)):
                continue
            if value == 3.5 and place[-1:] == ("mean",):
                continue
            yield place, value


@pytest.mark.parametrize(("place", "value"), list(wrong_shapes()))
def test_an_evaluation_of_another_shape_is_a_defect(write_run, evaluation, place, value):
    folder, document = write_run(), {"whole": evaluation(30.0)}
    *sections, last = ("whole", *place)
    inner = document
    for section in sections:
        inner = inner[section]
    inner[last] = value
    (folder / "evaluation.json").write_text(json.dumps(document["whole"]))
    [defect] = read_run(folder).defects
    assert defect.startswith("damaged evaluation.json (")
    assert defect.endswith(f"make it anew: python evaluate.py run {folder}")
    assert len(defect.splitlines()) == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_metrics, "unfinished \\(200,000 of 400,000"),
        (half_a_line, "unfinished"),
        (damage_metrics, "damaged metrics"),
        (lambda folder: (folder / "metrics.jsonl").unlink(), "unfinished \\(0 of"),
        (lose_rows, "lacks 2 iterations"),
        (edit_config, "was edited since the run began \\(seed: 7 then, 0 now\\)"),
        (evaluated_earlier, "evaluated at 9 of 400,000"),
        (damage_evaluation, "damaged evaluation"),
        (no_team, "damaged evaluation"),
        (no_number, "damaged evaluation"),
        (lambda folder: (folder / "evaluation.json").unlink(), "not evaluated"),
        (lambda folder: (folder / "manifest.json").unlink(), "no usable manifest"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "no usable manifest"),
        (
            lambda folder: (folder / "config.yaml").write_text("algorithm: {kind: none}"),
            "unreadable config",
        ),
    ],
)
def test_damage_is_a_defect_that_says_what_is_wrong(write_run, damage, message):
    folder = write_run()
    damage(folder)
    run = read_run(folder)
    assert len(run.defects) == 1
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(run.defects[0])


def test_a_folder_that_is_no_runs_is_an_error(tmp_path):
    with pytest.raises(RunError, match=r"no config\.yaml"):
        read_run(tmp_path)
    with pytest.raises(RunError, match="no such run"):
        read_run(tmp_path / "missing")


def test_seeds_labels_and_bookkeeping_do_not_make_an_experiment():
    def hash_of(**changes):
        return experiment_hash(RunConfig.model_validate(changes))

    plain = hash_of()
    assert hash_of(seed=3, name="b", output="x", tracking={"project": "y"}) == plain
    assert hash_of(evaluation={"sessions": 9}, training={"checkpoint_every": 7}) == plain
    assert hash_of(training={"env_steps": 9}) != plain
    assert hash_of(algorithm={"kind": "ippo"}) != plain
    assert hash_of(algorithm={"kind": "mappo", "learning_rate": 0.01}) != plain


def test_topics_of_training_say_nothing_of_users_met_elsewhere(write_run):
    here = write_run(seed=0)
    there = write_run(seed=1, evaluation__environment={"users": {"new_user_share": 1.0}})
    for folder in (here, there):
        manifest = json.loads((folder / "manifest.json").read_text())
        config = read_run(folder).config
        manifest |= {"config": config, "inputs": {"topics": "a1"}}
        (folder / "manifest.json").write_text(json.dumps(manifest))
    assert read_run(here).topics == "a1"
    assert read_run(there).topics is None
    # Nor where a file of the run gives rows of another comparison.
    assert _topics(here / "evaluation.json", {}) == "a1"
    assert _topics(there / "evaluation.json", {}) is None
