import json

import pytest

from agents.tune import SearchConfig, _validate, overrides_of, points, run_search, run_trial
from marec_env.errors import ConfigError


@pytest.fixture(autouse=True)
def trusted(monkeypatch, tmp_path):
    """The runs' files lie outside the working directory and name an environment."""
    monkeypatch.setenv("MAREC_TRUSTED_FOLDERS", str(tmp_path))


RUN = """
environment:
  kind: pettingzoo
  entry_point: "mpe2.simple_spread_v3:parallel_env"
  kwargs: {max_cycles: 5}
sampling: {num_sessions: 2, rollout_length: 5}
algorithm: {kind: mappo, epochs: 1, actor: {hidden: [4]}, critic: {hidden: [4]}}
"""


@pytest.fixture
def search(tmp_path):
    pytest.importorskip("mpe2")
    (tmp_path / "run.yaml").write_text(RUN)

    def make(**keys):
        given = {
            "base": str(tmp_path / "run.yaml"),
            "env_steps": 20,
            "output": str(tmp_path / "out"),
            "space": {"algorithm.learning_rate": {"log_uniform": [1e-4, 1e-2]}},
        }
        return SearchConfig.model_validate({**given, **keys})

    return make


def test_random_points_repeat_by_seed_and_keep_their_bounds(search):
    space = {
        "algorithm.learning_rate": {"log_uniform": [1e-4, 1e-2]},
        "algorithm.epochs": {"integer": [2, 4]},
        "algorithm.clip": {"uniform": [0.1, 0.3]},
        "algorithm.actor.hidden": {"choice": [[4], [8, 8]]},
    }
    chosen = points(search(space=space, trials=40))
    assert chosen == points(search(space=space, trials=40))
    assert chosen != points(search(space=space, trials=40, seed=1))
    assert {p["algorithm.epochs"] for p in chosen} == {2, 3, 4}
    rates = [p["algorithm.learning_rate"] for p in chosen]
    assert all(1e-4 <= r <= 1e-2 for r in rates) and sum(r < 1e-3 for r in rates) > 8
    _validate(search(), chosen)


def test_grid_is_every_combination(search):
    space = {"algorithm.epochs": {"choice": [1, 2, 3]}, "algorithm.clip": {"choice": [0.1, 0.2]}}
    assert len(points(search(space=space, method="grid"))) == 6


def test_every_point_is_validated_before_the_first_trial(search, tmp_path):
    bad = search(space={"algorithm.clip": {"choice": [0.2, -1.0]}}, method="grid")
    with pytest.raises(ConfigError, match=r"point 2 .*clip"):
        run_search(bad)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="learning_rate"):
        run_search(search(space={"algorithm.learning_rte": {"uniform": [0.1, 0.2]}}))
    corner = search(space={"algorithm.gamma": {"uniform": [0.9, 1.5]}}, method="optuna")
    with pytest.raises(ConfigError, match="gamma"):
        run_search(corner)


@pytest.mark.parametrize(
    "axis",
    [
        {},
        {"uniform": [2, 1]},
        {"log_uniform": [0, 1]},
        {"choice": []},
        {"choice": [1], "integer": [1, 2]},
    ],
)
def test_bad_axes_are_refused(axis, search):
    with pytest.raises(ValueError, match=r"algorithm\.clip"):
        search(space={"algorithm.clip": axis})


def test_a_trial_averages_seeds_and_names_a_missing_metric(search):
    point = {"algorithm.learning_rate": 1e-3}
    both = run_trial(search(seeds=[0, 1]), point)
    alone = [run_trial(search(seeds=[s]), point) for s in (0, 1)]
    assert both == pytest.approx(sum(alone) / 2)
    with pytest.raises(ConfigError, match="did you mean 'episode/return'"):
        run_trial(search(metric="episode/retrn"), point)


def test_a_search_starts_ray_with_a_cpu_a_trial_and_ends_it(search, monkeypatch):
    ray, tune = pytest.importorskip("ray"), pytest.importorskip("ray.tune")
    told = []

    def fail(*parts, **more):
        raise RuntimeError("no trials")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **given: told.append(given["num_cpus"]))
    monkeypatch.setattr(ray, "shutdown", lambda: told.append("over"))
    monkeypatch.setattr(tune, "Tuner", fail)
    with pytest.raises(RuntimeError, match="no trials"):
        run_search(search(jobs=3))
    assert told == [3, "over"]


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:  # what is trusted here is trusted by its workers
        patch.setenv("MAREC_TRUSTED_FOLDERS", str(tmp_path_factory.getbasetemp()))
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.mark.ray
@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("method", ["random", "optuna"])
def test_a_search_ranks_its_trials(method, search, tmp_path):
    if method == "optuna":
        pytest.importorskip("optuna")
    trials = run_search(search(method=method, trials=3))
    scores = [t["score"] for t in trials]
    assert len(trials) == 3 and scores == sorted(scores, reverse=True)
    written = json.loads((tmp_path / "out" / "results.json").read_text())["trials"]
    assert written == trials
    assert trials[0]["set"] == overrides_of(
        {"algorithm.learning_rate": float(trials[0]["set"][0].partition("=")[2])}
    )
