import pytest

from agents.comparison.grouping import group_runs, seed_ranges
from agents.runs.manifest import CodeVersion
from marec_env.errors import RunError


def labels(runs):
    return [group.label for group in group_runs(runs).groups]


def test_runs_are_grouped_by_configuration_not_by_algorithm(make_run):
    slow = [
        make_run(seed=s, algorithm__kind="mappo", algorithm__learning_rate=1e-4) for s in (1, 0)
    ]
    fast = [
        make_run(seed=s, algorithm__kind="mappo", algorithm__learning_rate=1e-3) for s in (0, 1)
    ]
    found = group_runs([slow[0], fast[0], slow[1], fast[1]])
    assert [group.label for group in found.groups] == [
        "mappo learning_rate=0.0001",
        "mappo learning_rate=0.001",
    ]
    assert [group.seeds for group in found.groups] == [[0, 1], [0, 1]]
    assert found.differences() == {"algorithm.learning_rate": ["0.0001", "0.001"]}


def test_threads_and_saving_make_no_other_experiment(make_run):
    one = make_run(sampling__torch_threads=1, training__checkpoint_every=7)
    [group] = group_runs([one, make_run(seed=1, sampling__torch_threads=2)]).groups
    assert group.seeds == [0, 1]
    assert len(group_runs([one, make_run(seed=1, sampling__num_sessions=7)]).groups) == 2


def test_labels_are_name_and_algorithm_as_far_as_they_differ(make_run):
    assert labels([make_run()]) == ["mappo"]
    assert labels([make_run(), make_run(algorithm__kind="ippo")]) == ["mappo", "ippo"]
    named = [make_run(name="wide"), make_run(name="own", environment__rewards__mode="own")]
    assert labels(named) == ["wide", "own"]
    mixed = [make_run(name="a"), make_run(name="b-ippo", algorithm__kind="ippo")]
    assert labels(mixed) == ["a mappo", "b-ippo"]


def test_many_differences_are_named_by_a_piece_of_the_hash(make_run):
    other = make_run(
        algorithm__learning_rate=0.1,
        algorithm__critic_learning_rate=0.1,
        algorithm__clip=0.1,
        algorithm__epochs=1,
    )
    found = labels([make_run(), other])
    assert found[0].startswith("mappo #")
    assert found[1] == f"mappo #{other.experiment[:6]}"


def test_unsound_runs_are_marked_and_left_out(make_run):
    broken = make_run(seed=1, clicks=900.0, defects=("unfinished (1 of 2 env steps)",))
    found = group_runs([make_run(), broken])
    assert [group.seeds for group in found.groups] == [[0]]
    assert found.left_out == (broken,)
    assert any("left out: unfinished" in note for note in found.notes)
    with pytest.raises(RunError, match="no run can be compared"):
        group_runs([broken])


def test_what_the_recommender_reads_leaves_the_users_as_they_are(make_run):
    plain = make_run()
    fitted = make_run(environment__embeddings__finetune={"steps": 7})
    noted = make_run(environment__text__notes=True)
    assert len(group_runs([plain, fitted, noted]).groups) == 3
    other = make_run(environment__embeddings__encoder="hashing")
    with pytest.raises(RunError, match=r"different users.*embeddings\.encoder: hashing and auto"):
        group_runs([plain, other])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"environment__max_requests": 9}, "different users.*max_requests: 9 and 40"),
        ({"environment__measure__true_top": 10}, "different users.*true_top"),
        ({"environment__data__source": "synthetic/streaming"}, "different users"),
    ],
)
def test_other_users_are_refused(make_run, change, message):
    with pytest.raises(RunError, match=message):
        group_runs([make_run(), make_run(seed=1, **change)])


@pytest.mark.parametrize(
    ("key", "value", "told"), [("seed", 8, "64 of seed 8"), ("sessions", 65, "65 of seed 7")]
)
def test_other_sessions_are_refused_with_the_command_that_makes_them_equal(
    make_run, key, value, told
):
    runs = [make_run(seed=seed) for seed in range(3)]
    setattr(runs[0].evaluation, key, value)
    with pytest.raises(RunError) as caught:
        group_runs(runs)
    assert f"{runs[0].path}: {told}; the others: 64 of seed 7" in str(caught.value)
    assert str(caught.value).endswith(
        f"python evaluate.py run {runs[0].path} --sessions 64 --seed 7 --replace"
    )


def test_a_seed_given_twice_is_refused(make_run):
    with pytest.raises(RunError, match="seed 3 of mappo is given twice"):
        group_runs([make_run(seed=3), make_run(seed=3, name="again")])


def test_other_rewards_and_pipelines_are_compared_and_marked(make_run):
    own = make_run(name="own", environment__rewards__mode="own")
    assert not any("F is not the same" in note for note in group_runs([make_run(), own]).notes)
    weighted = make_run(name="w", environment__rewards__team={"retention": 0.5})
    assert any("F is not the same sum" in n for n in group_runs([make_run(), weighted]).notes)
    wide = make_run(name="wide", environment__pipeline__candidates=200)
    assert any("candidates" in note for note in group_runs([make_run(), wide]).notes)


def test_different_seeds_and_budgets_are_marked(make_run):
    runs = [make_run(seed=s) for s in range(3)] + [make_run(seed=1, algorithm__kind="ippo")]
    assert any("mappo: 0-2; ippo: 1" in note for note in group_runs(runs).notes)
    longer = make_run(name="long", training__env_steps=9_000)
    assert any("numbers of requests" in note for note in group_runs([make_run(), longer]).notes)


def test_seeds_by_different_code_are_refused_or_marked(make_run):
    runs = [make_run(), make_run(seed=1, commit="c" * 40)]
    with pytest.raises(RunError, match=r"trained by different code.*--mixed-code"):
        group_runs(runs)
    found = group_runs(runs, mixed_code=True)
    assert any("mappo averages seeds trained by different code" in note for note in found.notes)
    assert len(found.groups) == 1


def test_experiments_by_different_code_and_uncommitted_code_are_marked(make_run):
    apart = group_runs([make_run(), make_run(algorithm__kind="ippo", commit="c" * 40)])
    assert any("different versions of the code" in note for note in apart.notes)
    dirty = group_runs([make_run(dirty=True), make_run(seed=1, dirty=True)])
    assert any("uncommitted changes" in note for note in dirty.notes)
    assert not any("code" in note for note in group_runs([make_run()]).notes)


def test_evaluations_by_different_code_are_marked(make_run):
    other = make_run(seed=1)
    other.evaluation.git = {"commit": "d" * 40, "dirty": False}
    assert any(
        "evaluated by different versions" in n for n in group_runs([make_run(), other]).notes
    )


def test_commits_with_the_same_decisive_source_are_one_version(make_run):
    runs = [
        make_run(seed=seed, codes=(CodeVersion(letter * 40, source="s"),))
        for seed, letter in enumerate("ab")
    ]
    assert not any("code" in note for note in group_runs(runs).notes)


def test_a_run_resumed_with_other_code_is_refused_or_marked(make_run):
    """Of one commit, but with other sources: uncommitted changes are told by their hash."""
    began, went_on = (CodeVersion("a" * 40, True, source) for source in ("one", "two"))
    runs = [make_run(codes=(began, went_on)), make_run(seed=1, codes=(began,))]
    for given in (runs, runs[:1]):
        with pytest.raises(RunError, match=r"trained by different code \(aaaaaaaaaa.*, then aaa"):
            group_runs(given)
        assert any("averages" in note for note in group_runs(given, mixed_code=True).notes)


def test_seed_ranges():
    assert seed_ranges([4, 0, 1, 2, 9]) == "0-2, 4, 9"
