import json
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
import typer
from typer.testing import CliRunner

from agents.commands import studies as command_module
from agents.config import RunConfig
from agents.learners.policy import TrainedPolicy
from agents.studies.explain.average import average_sentences, explain_team
from agents.studies.explain.request import explain_request, request_sentences
from agents.studies.explain.team import MaskedTeam, OpenTeam, input_groups
from agents.studies.records import plain
from marec_env.errors import ConfigError
from marec_env.evaluation.policies import TeamPolicy
from marec_env.evaluation.rollout import rollout
from marec_env.pipeline.config import FixedMessages
from marec_env.pipeline.reasons import decision_names
from marec_env.simulator import Simulator
from marec_env.world import build_world

SESSIONS, SEED = 24, 5


def test_ablation_finds_the_only_field_that_matters(world, exposure_only):
    average = explain_team(world, exposure_only, SESSIONS, SEED)
    for agent, component in average.components.items():
        for name, group in component.groups.items():
            matters = agent == "ranking_0" and name == "exposure"
            assert (group.decision_change > 0.01) == matters
            assert (group.items_changed.value > 0) == matters
            assert (group.share > 0) == matters
            assert (group.worth["clicks"].standard_error > 0) == matters
    name, exposure = average.components["ranking_0"].ranked()[0]
    assert (name, exposure.share) == ("exposure", pytest.approx(1.0))
    assert "ranking_0 goes chiefly by exposure (100%)" in " ".join(average_sentences(average))


def test_groups_cover_the_input_and_carry_names(world, policy):
    simulator = Simulator(world, 1)
    for agent in policy.team.agents:
        groups = [*input_groups(simulator, agent, 0).values()]
        assert groups[0].start == 0
        assert all(a.stop == b.start for a, b in pairwise(groups))
        assert groups[-1].stop == simulator.observation_spaces[agent].shape[0]
        width = OpenTeam(policy).decisions(agent, simulator.observe(agent)).shape[1]
        names = decision_names(simulator.pipeline, agent, width)
        assert len(set(names)) == width
        assert not any(name.startswith("decision ") for name in names)


def test_heard_messages_are_groups(world):
    pipeline = world.config.pipeline
    pipeline = pipeline.model_copy(update={"messages": FixedMessages(dim=3)})
    simulator = Simulator(build_world(world.config.model_copy(update={"pipeline": pipeline})), 1)
    groups = input_groups(simulator, "feature_0", 4)
    assert [*groups][-3:] == [
        "message from profile_0", "message from recall_0", "memory"
    ]  # fmt: skip
    assert [g.stop - g.start for g in groups.values()][-3:] == [3, 3, 4]


def test_an_unmasked_team_plays_as_the_policy(world, recurrent_policy):
    masked = MaskedTeam(OpenTeam(recurrent_policy))
    assert isinstance(masked, TeamPolicy)
    ours = rollout(world, masked, SESSIONS, SEED).per_session
    theirs = rollout(world, recurrent_policy, SESSIONS, SEED).per_session
    assert torch.equal(ours["return"], theirs["return"])


def test_a_recurrent_teams_memory_is_a_group(world, recurrent_policy):
    average = explain_team(world, recurrent_policy, 8, SEED)
    for component in average.components.values():
        assert [*component.groups][-1] == "memory"
        assert component.groups["memory"].share > 0
        assert component.completeness_gap < 0.02


def test_one_slate_is_explained(world, policy):
    average = explain_team(world, policy, 8, SEED)
    found = explain_request(world, policy, average, session=3, seed=SEED, request=2)
    assert len(found.slate) == 5
    for item in found.slate:
        assert sum(item.parts.values()) == pytest.approx(item.score, abs=1e-3)
        assert item.title in world.catalog.titles
        assert item.channel
    for reasons in found.decisions.values():
        for reason in reasons.values():
            total = sum(reason.attributions.values())
            assert total == pytest.approx(reason.value - reason.usual, abs=0.01)
    everything = [m for groups in found.masked.values() for m in groups.values()]
    shown = {item.title for item in found.slate}
    assert any(m.removed for m in everything)
    assert all(set(m.removed) <= shown for m in everything)
    assert all(len(m.removed) == len(m.added) for m in everything)
    lines = request_sentences(found)
    assert lines[0].startswith("Session 3 (seed 5), request 2 of 0")
    assert any(found.slate[0].title in line for line in lines)
    json.dumps(plain([found, average]), allow_nan=False)


def test_the_explained_slate_is_the_one_shown(world, policy):
    average = explain_team(world, policy, 8, SEED)
    found = explain_request(world, policy, average, session=1, seed=SEED, request=1)
    simulator = Simulator(world, 3, autoreset=False)
    simulator.begin(torch.arange(3), SEED)
    for _ in range(2):
        observations = {agent: simulator.observe(agent) for agent in simulator.agents}
        simulator.step(policy.act(observations))
    titles = [world.catalog.titles[item] for item in simulator.last.slate[1].tolist()]
    assert [item.title for item in found.slate] == titles


def test_a_request_after_the_end_is_refused(world, policy):
    average = explain_team(world, policy, 2, SEED)
    with pytest.raises(ConfigError, match="ends after"):
        explain_request(world, policy, average, session=0, seed=SEED, request=6)


@dataclass
class _Run:
    """What the command reads of a run."""

    config: RunConfig
    policy: TrainedPolicy

    @property
    def environment(self):
        return self.config.environment


def _explain(monkeypatch, world, policy, *arguments):
    run = _Run(RunConfig(environment=world.config), policy)
    monkeypatch.setattr(command_module, "open_runs", lambda paths: {"run": run})
    app = typer.Typer()
    app.command()(command_module.explain)
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_the_command_prints_and_writes(world, policy, tmp_path, monkeypatch):
    arguments = tmp_path, "--sessions", 8, "--session", 2
    result = _explain(monkeypatch, world, policy, *arguments)
    assert result.exit_code == 0, result.output
    assert "What each component goes by" in result.output
    assert "Session 2 (seed 1000003), request" in result.output
    document = json.loads((tmp_path / "explanation.json").read_text())
    assert set(document) == {"average", "sentences", "request", "request_sentences"}
    assert set(document["average"]["components"]) == set(policy.team.agents)
    again = _explain(monkeypatch, world, policy, *arguments)
    assert "--replace" in str(again.exception)
    assert again.output == ""
    told = _explain(monkeypatch, world, policy, *arguments, "--replace", "--words", "zh")
    assert told.exit_code == 0
    document = json.loads((tmp_path / "explanation.json").read_text())
    titles = [item["title"] for item in document["request"]["slate"]]
    assert len(document["reasons"]) == len(titles) == 5
    for title, reason in zip(titles, document["reasons"], strict=True):
        assert reason.startswith(f"《{title}》:")
        assert reason in told.output.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--request", 2), "--session"),
        (("--words", "en"), "--session"),
        (("--session", 2, "--request", 6), "ends after"),
    ],
)
def test_a_wrong_request_is_told_before_any_work(
    world, policy, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.setattr("agents.studies.explain.average.explain_team", None)
    result = _explain(monkeypatch, world, policy, tmp_path, *arguments)
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)
    assert result.output == ""


def test_titles_cannot_command_the_terminal(world, policy, tmp_path, monkeypatch):
    """Nor can markup in them colour it, or a link in them be opened."""
    hostile = "\x1b[2J\x1b]0;owned\x07[red]x[/red]"
    catalog = replace(world.catalog, titles=[f"{hostile}{t}" for t in world.catalog.titles])
    hostile_world = replace(world, catalog=catalog)
    monkeypatch.setattr("marec_env.world.build_world", lambda config: hostile_world)
    result = _explain(monkeypatch, world, policy, tmp_path, "--sessions", 2, "--session", 1)
    assert result.exit_code == 0, result.output
    assert not {"\x1b", "\x07"} & set(result.output)
    assert "[red]x[/red]" in result.output
    titles = json.loads((tmp_path / "explanation.json").read_text())["request"]["slate"]
    assert all(item["title"].startswith(hostile) for item in titles)
