import json
from itertools import pairwise

import pytest
import torch
import typer
from typer.testing import CliRunner

from agents.commands.explain import command
from agents.config import RunConfig
from agents.studies.explain.average import explain_team
from agents.studies.explain.names import decision_names, input_groups
from agents.studies.explain.request import explain_request
from agents.studies.explain.team import MaskedTeam, OpenTeam, expected_decisions
from agents.studies.explain.words import average_sentences, request_sentences
from marec_env.errors import ConfigError
from marec_env.evaluation.policies import TeamPolicy
from marec_env.evaluation.rollout import rollout
from marec_env.simulator import Simulator
from marec_env.world import build_world

SESSIONS, SEED = 24, 5


def test_ablation_finds_the_only_field_that_matters(world, exposure_only):
    average = explain_team(world, exposure_only, SESSIONS, SEED)
    for component in average.components:
        for group in component.groups:
            matters = component.agent == "ranking_0" and group.name == "exposure"
            assert (group.decision_change > 0.01) == matters
            assert (group.items_changed.value > 0) == matters
            assert (group.share > 0) == matters
            assert (group.worth["clicks"].difference.standard_error > 0) == matters
    [ranking] = [c for c in average.components if c.agent == "ranking_0"]
    assert ranking.ranked()[0].share == pytest.approx(1.0)
    assert "ranking_0 goes chiefly by exposure (100%)" in " ".join(average_sentences(average))


def test_groups_cover_the_input_and_carry_names(world, policy):
    simulator = Simulator(world, 1)
    for agent in policy.team.agents:
        groups = input_groups(simulator, agent, 0)
        assert groups[0].first == 0
        assert all(a.last == b.first for a, b in pairwise(groups))
        assert groups[-1].last == simulator.observation_spaces[agent].shape[0]
        assert all(len(g.columns) == g.last - g.first for g in groups)
        width = OpenTeam(policy).decisions(agent, simulator.observe(agent)).shape[1]
        names = decision_names(simulator, agent, width)
        assert len(set(names)) == width
        assert not any(name.startswith("decision ") for name in names)


def test_heard_messages_are_groups(world):
    pipeline = world.config.pipeline
    messages = pipeline.messages.model_copy(update={"kind": "fixed", "dim": 3})
    pipeline = pipeline.model_copy(update={"messages": messages})
    simulator = Simulator(build_world(world.config.model_copy(update={"pipeline": pipeline})), 1)
    groups = input_groups(simulator, "feature_0", 4)
    assert [g.name for g in groups][-3:] == [
        "message from profile_0", "message from recall_0", "memory"
    ]  # fmt: skip
    assert [g.last - g.first for g in groups][-3:] == [3, 3, 4]


def test_an_unmasked_team_plays_as_the_policy(world, recurrent_policy):
    masked = MaskedTeam(OpenTeam(recurrent_policy))
    assert isinstance(masked, TeamPolicy)
    ours = rollout(world, masked, SESSIONS, SEED).per_session
    theirs = rollout(world, recurrent_policy, SESSIONS, SEED).per_session
    assert torch.equal(ours["return"], theirs["return"])


def test_a_recurrent_teams_memory_is_a_group(world, recurrent_policy):
    average = explain_team(world, recurrent_policy, 8, SEED)
    for component in average.components:
        assert component.groups[-1].name == "memory"
        assert component.groups[-1].share > 0
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
        for reason in reasons:
            total = sum(reason.attributions.values())
            assert total == pytest.approx(reason.value - reason.usual, abs=0.01)
    everything = [m for groups in found.masked.values() for m in groups]
    shown = {item.title for item in found.slate}
    assert any(m.removed for m in everything)
    assert all(set(m.removed) <= shown for m in everything)
    assert all(len(m.removed) == len(m.added) for m in everything)
    lines = request_sentences(found)
    assert lines[0].startswith("Session 3 (seed 5), request 2 of 0")
    assert any(found.slate[0].title in line for line in lines)
    json.dumps([found.as_dict(), average.as_dict()], allow_nan=False)


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


def test_expected_decisions_of_all_kinds_of_spaces():
    from gymnasium import spaces

    space = spaces.Tuple([spaces.MultiDiscrete([2, 3]), spaces.Box(-1, 1, (2,))])
    inputs = torch.tensor([[0.0, 0.0, 0.0, 50.0, 0.0, 0.3, -0.4, 9.0, 9.0]])
    assert expected_decisions(space, inputs)[0].tolist() == pytest.approx([0.5, 1.0, 0.3, -0.4])
    with pytest.raises(ConfigError, match="cannot explain"):
        expected_decisions(spaces.Text(3), inputs)


def test_the_command_prints_and_writes(world, policy, tmp_path, monkeypatch):
    config = RunConfig(environment=world.config)
    monkeypatch.setattr(
        "agents.commands.evaluate.load_run_policy", lambda path: (config, world.config, policy)
    )
    app = typer.Typer()
    app.command()(command)
    arguments = [str(tmp_path), "--sessions", "8", "--session", "2"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "What each component goes by" in result.output
    assert "Session 2 (seed 1000003), request" in result.output
    document = json.loads((tmp_path / "explanation.json").read_text())
    assert set(document) == {"average", "sentences", "request", "request_sentences"}
    assert set(document["average"]["components"]) == set(policy.team.agents)
    refused = CliRunner().invoke(app, [str(tmp_path), "--request", "2"])
    assert isinstance(refused.exception, ConfigError)
    assert "--session" in str(refused.exception)
