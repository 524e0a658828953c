import itertools
import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from agents.baselines.teams import StaticTeam
from agents.commands.equilibrium import command
from agents.config import RunConfig
from agents.learners.config import (
    ComponentOverrides,
    HAPPOConfig,
    MAPPOConfig,
    RLlibConfig,
    SamplingConfig,
)
from agents.learners.trainer import Trainer
from agents.studies.equilibrium import study as study_module
from agents.studies.equilibrium.anarchy import anarchy_curves
from agents.studies.equilibrium.best_response import nash_conv, static_response
from agents.studies.equilibrium.common import Settings
from agents.studies.equilibrium.credit import measure_credit
from agents.studies.equilibrium.decisions import PipelineGame
from agents.studies.equilibrium.exploitability import single_agent, train_response
from agents.studies.equilibrium.lineups import Replay
from agents.studies.equilibrium.study import Study, checked_parts, write_report
from marec_env.errors import ConfigError, MarecError, RunError
from marec_env.rewards.config import DISCOUNT
from marec_env.simulator import Simulator
from marec_env.world import build_world
from tests.worlds import small_environment

QUICK = Settings(
    train_sessions=8,
    held_out_sessions=16,
    budget=5,
    seeds=1,
    response_steps=0,
    response_start="current",
    checkpoints=2,
    widths=(10, 20),
    own_shares=(0.0, 1.0),
    rounds=1,
    starts=1,
    per="request",
)
CONFIG = RunConfig.model_validate(
    {
        "environment": {"kind": "marec", **small_environment(max_requests=5)},
        "sampling": {"num_sessions": 8, "rollout_length": 5},
    }
)


@pytest.fixture(scope="module")
def env():
    return Replay(build_world(CONFIG.environment))


@pytest.fixture(scope="module")
def run():
    """Two checkpoints of a barely trained run."""
    world = build_world(CONFIG.environment)
    trainer = Trainer(MAPPOConfig(epochs=1), CONFIG.sampling, 0, lambda n: Simulator(world, n))
    trainer.iterate()
    policy = trainer.policy()
    return Trained(CONFIG, policy)


@dataclass
class Trained:
    """What a study reads of a run."""

    config: RunConfig
    policy: object

    def policies(self):
        return [(20, self.policy), (40, self.policy)]


def test_replay_is_the_same_whatever_was_played_before(env):
    game = PipelineGame(env)
    first = game.play(game.default()[None], QUICK.train())
    game.play(np.zeros((1, len(game.default()))), QUICK.held_out())
    again = game.play(game.default()[None], QUICK.train())
    assert (first.team == again.team).all()
    two = game.play(np.stack([game.default()] * 2), QUICK.train())
    assert two.team[0] == pytest.approx(first.team[0], abs=1e-4)
    assert two.team[1] == pytest.approx(two.team[0], abs=1e-4)


def test_credit_in_the_simulator_sums_up_and_gives_an_idle_component_nothing(env):
    defaults = env.defaults
    static = StaticTeam(defaults)
    busy = dict(defaults)
    busy["ranking_0"] = -torch.as_tensor(defaults["ranking_0"])
    credit = measure_credit(env, StaticTeam(busy), static, QUICK.held_out())["team"]
    shares = dict(zip(credit.components, credit.shapley, strict=True))
    assert abs(shares["ranking_0"].value) > 0.01
    for idle in ("profile_0", "recall_0", "feature_0"):
        assert shares[idle].value == pytest.approx(0.0, abs=1e-6)
    assert sum(s.value for s in credit.shapley) == pytest.approx(credit.total.value, abs=1e-9)


def test_static_response_is_judged_against_what_is_played(env):
    static = StaticTeam(env.defaults)
    plan = QUICK.plan()
    responses = [static_response(env, static, c, plan) for c in env.agents]
    for response in responses:
        assert response.train_gain >= -1e-6  # the search starts at the default that is played
        assert response.gain.value == pytest.approx(response.gain_own.value)


def test_nash_conv_is_near_zero_at_an_equilibrium_and_covers_it():
    """Four components whose deviations gain nothing on average: the interval holds zero."""
    generator = np.random.default_rng(0)
    totals = [nash_conv([[generator.normal(0.0, 2.0, 512)] for _ in range(4)]) for _ in range(400)]
    assert np.mean([total.value for total in totals]) == pytest.approx(0.0, abs=0.02)
    assert np.mean([total.low > 0.0 for total in totals]) < 0.05


def test_nash_conv_adds_what_is_really_gained_by_the_better_response():
    noise = np.random.default_rng(1).normal(0.0, 1.0, (3, 512))
    total = nash_conv([[0.4 + noise[0], 1.0 + noise[1]], [-3.0 + noise[2]]])
    assert total.value == pytest.approx(1.0 + noise[1].mean())
    assert total.low < 1.0 < total.high


def test_trained_response_learns_the_known_best_response(tiny, constant):
    # f_profile = p on [0, 2] whatever the partner does: the response is p = 2.
    partners = constant(profile_0=[0.0], recall_0=[0, 0])
    algorithm = MAPPOConfig(learning_rate=3e-3, epochs=5)
    sampling = SamplingConfig(num_sessions=32, rollout_length=8)
    half, final = train_response(
        lambda n: tiny(n), "profile_0", partners, algorithm, sampling, 8_000, 0
    )
    seen = {"profile_0": torch.zeros(4, 2)}
    assert final.act(seen)["profile_0"].mean() > 1.7
    assert half.act(seen)["profile_0"].mean() < final.act(seen)["profile_0"].mean() + 0.05
    _, same = train_response(
        lambda n: tiny(n), "profile_0", partners, algorithm, sampling, 1, 1, 1.0, final
    )
    assert same.act(seen)["profile_0"].mean() > 1.5  # started from the given policy


def test_single_agent_settings_keep_only_the_component():
    algorithm = HAPPOConfig(
        components={
            "recall_0": ComponentOverrides(clip=0.1),
            "profile_0": ComponentOverrides(clip=0.3),
        }
    )
    alone = single_agent(algorithm, "recall_0")
    assert isinstance(alone, HAPPOConfig)
    assert list(alone.components) == ["recall_0"]
    assert isinstance(single_agent(RLlibConfig(), "recall_0"), MAPPOConfig)


def test_who_answers_looks_ahead_even_where_the_team_did_not():
    assert single_agent(MAPPOConfig(gamma=0.0), "recall_0").gamma == DISCOUNT
    assert single_agent(MAPPOConfig(gamma=0.95), "recall_0").gamma == 0.95


def test_every_part_runs_and_the_report_holds_it(run, tmp_path):
    study = Study(CONFIG, {"one": run, "two": run}, QUICK, lambda line: None)
    parts = checked_parts("all")
    found = {name: list(study.part(name))[-1] for name in parts}
    places = write_report(tmp_path, "T", "python evaluate.py ...", QUICK, found)
    document = json.loads(places[0].read_text())
    assert tuple(document["sections"]) == parts
    assert document["settings"]["budget"] == 5
    swaps = document["sections"]["swaps"]["clicks"]["recall_0"]
    assert all(entry["value"] == 0.0 for entry in swaps if entry["host"] == entry["donor"])
    curve = document["sections"]["anarchy"]
    assert set(curve) >= {"10", "20"}
    assert [point["own_share"] for point in curve["10"]["points"]] == [0.0, 1.0]
    assert curve["10"]["optimum"]["means"]["team"] > 0.0
    html = places[1].read_text()
    for one in found.values():
        assert f">{one.section.title}</h2>" in html
    assert html.count("<svg") == sum(len(one.section.figures) for one in found.values())
    assert "http-equiv" not in html
    assert "<script" not in html


def test_the_curve_is_told_after_every_width_and_widths_do_not_depend_on_each_other():
    two = replace(QUICK, widths=(10, 20), own_shares=(1.0,))
    first, both = Study(CONFIG, {}, two, lambda line: None).part("anarchy")
    assert set(first.record) == {"10"}
    assert first.section.figures == ()  # a curve of one point is not drawn
    assert first.record["10"] == both.record["10"]
    (figure,) = both.section.figures
    assert "funnel's width" in figure.caption
    (alone,) = Study(CONFIG, {}, replace(two, widths=(20,)), lambda line: None).part("anarchy")
    assert alone.record["20"] == both.record["20"]
    assert [*first.section.notes, *alone.section.notes] == [*both.section.notes]


def test_parts_without_runs_are_left_out():
    study = Study(CONFIG, {}, QUICK, lambda line: None)
    assert list(study.part("credit")) == []
    assert list(study.part("swaps")) == []
    assert checked_parts("credit, matrix") == ("credit", "matrix")
    with pytest.raises(ConfigError, match="did you mean 'credit'"):
        checked_parts("credits")


def test_runs_of_other_environments_are_refused(run):
    other = CONFIG.model_copy(
        update={"environment": CONFIG.environment.model_copy(update={"max_requests": 6})}
    )
    with pytest.raises(ConfigError, match="another environment"):
        Study(CONFIG, {"a": run, "b": Trained(other, run.policy)}, QUICK, print)


def _invoke(*arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize(("k", "expected"), [("0", "1.778"), ("-25", "7.556"), ("-100", "40.889")])
def test_command_shows_the_known_answers(k, expected, tmp_path):
    result = _invoke("--game", f"penalty:{k}", "--output", str(tmp_path))
    assert result.exit_code == 0
    assert expected in result.output
    document = json.loads((tmp_path / "equilibrium.json").read_text())
    record = document["sections"][f"penalty-{k}"]
    pure = [e for e in record["equilibria"] if e["kind"] == "pure"]
    assert len(pure) == 3
    assert all(abs(e["nash_conv"]) < 1e-9 for e in pure)
    assert record["complete"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a run"),
        (("--game", "penalt"), "did you mean"),
        (("nowhere", "--config", "x.yaml"), "not both"),
        (("--config", "x.yaml", "--widths", "20,a"), "--widths"),
        (("--config", "x.yaml", "--set", "a=b", "RUN"), "not both"),
        (("RUN", "--set", "a=b"), "--set goes with"),
        (("nowhere",), "nowhere"),
        (("--config", "x.yaml", "--mixing", "0,1.5"), "outside 0 ... 1"),
        (("--config", "x.yaml", "--parts", "nothing"), "part 'nothing'"),
        (("--config", "x.yaml", "--parts", ","), "--parts"),
    ],
)
def test_command_names_what_is_wrong(arguments, message):
    result = _invoke(*arguments)
    assert isinstance(result.exception, MarecError)
    assert message in str(result.exception)


@pytest.mark.parametrize(("width", "message"), [(4, "slate_size 5 exceeds"), (400, "the catalog")])
def test_widths_that_cannot_be_are_refused_before_the_first(width, message):
    settings = replace(QUICK, widths=(10, width))
    with pytest.raises(ConfigError, match=message):
        next(Study(CONFIG, {}, settings, lambda line: None).part("anarchy"))


def test_parts_that_need_runs_are_not_nothing(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.model_dump_json())
    result = _invoke("--config", str(config), "--parts", "credit", "--output", str(tmp_path))
    assert isinstance(result.exception, ConfigError)
    assert "nothing to do: --parts credit needs runs" in str(result.exception)


def test_a_stopped_study_keeps_the_widths_that_are_done(tmp_path, monkeypatch):
    def stopped(game_of_width, settings, say):
        yield from itertools.islice(anarchy_curves(game_of_width, settings, say), 1)
        raise OSError("no space left")

    monkeypatch.setattr(study_module, "anarchy_curves", stopped)
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.model_dump_json())  # JSON is YAML
    quick = "--sessions 8 --held-out 16 --budget 5 --seeds 1 --rounds 1 --starts 1 --mixing 1"
    what = f"--config {config} --parts anarchy --widths 10,20 --output {tmp_path}"
    result = _invoke(*what.split(), *quick.split())
    assert isinstance(result.exception, OSError)
    document = json.loads((tmp_path / "equilibrium.json").read_text())
    assert "10" in document["sections"]["anarchy"]
    assert "20" not in document["sections"]["anarchy"]


def test_results_are_not_written_over_unless_told(tmp_path):
    arguments = ("--game", "chicken", "--output", str(tmp_path))
    assert _invoke(*arguments).exit_code == 0
    before = (tmp_path / "equilibrium.json").read_bytes()
    again = _invoke("--game", "climbing", "--output", str(tmp_path))
    assert isinstance(again.exception, RunError)
    assert "--replace" in str(again.exception)
    assert again.output == "", "told before any work"
    assert (tmp_path / "equilibrium.json").read_bytes() == before
    assert _invoke(*arguments, "--replace").exit_code == 0
    inside = _invoke(*arguments[:3], str(tmp_path / "equilibrium.json"))
    assert "cannot write" in str(inside.exception)
