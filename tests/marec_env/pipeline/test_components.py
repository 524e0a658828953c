"""Teams of two to six components, their order, the versions they share, and one of one's own."""

import dataclasses
from pathlib import Path

import pytest
import torch
from gymnasium import spaces
from pettingzoo.test import parallel_api_test

import marec_env
from marec_env.errors import ConfigError
from marec_env.pipeline import COMPONENTS, Component

ROOT = Path(__file__).parents[3]
SMALL = {"embeddings": {"encoder": "hashing", "reduction": {"dimension": 8}}}
SIX = ("trainer", "profile", "recall", "feature", "auditor", "ranking")


class ForeignProfile(Component):
    """Writes profile vectors of spaces that the items are not in."""

    name = "foreign"

    @property
    def action_space(self):
        return spaces.Discrete(2)

    def act(self, request, action):
        request.profile_cf = request.knowledge.cf[:1].expand(request.num_sessions, -1)
        request.profile_text = request.knowledge.text[:1].expand(request.num_sessions, -1)
        request.profile_version = "v0"

    def default_action(self):
        return torch.tensor(0)


@pytest.mark.parametrize(
    "team",
    [
        ("ranking",),
        ("recall", "ranking"),
        ("profile", "auditor", "ranking"),
        ("profile", "recall", "feature", "auditor", "ranking"),
        SIX,
    ],
)
def test_teams_of_any_size_show_full_slates(make, team):
    pipeline = make.pipeline(components=team)
    assert pipeline.agents == tuple(f"{name}_0" for name in team)
    request = pipeline.begin(make.keys())
    for agent, action in pipeline.default_actions().items():
        pipeline.act(request, agent, action)
    slate = pipeline.finish(request)
    assert all(len(set(row)) == 5 for row in slate.tolist())
    pipeline.learn(request, torch.zeros(3, 5))


@pytest.mark.parametrize("team", [("recall", "ranking"), SIX])
@pytest.mark.parametrize("messages", ["none", "learned"])
def test_small_and_large_teams_conform_to_pettingzoo(team, messages):
    config = {**SMALL, "pipeline": {"components": team, "messages": {"kind": messages}}}
    parallel_api_test(marec_env.parallel_env(config), num_cycles=30)


def test_what_nobody_decides_is_decided_by_hand(make):
    """A team without recall and feature shows what the full team shows with their defaults."""
    full, small = make.pipeline(), make.pipeline(components=("profile", "ranking"))
    slates = []
    for pipeline in (full, small):
        request = pipeline.begin(make.keys())
        for agent, action in pipeline.default_actions().items():
            pipeline.act(request, agent, action)
        slates.append(pipeline.finish(request))
    assert torch.equal(*slates)


def test_an_order_in_which_a_decision_comes_too_late_is_refused(make):
    with pytest.raises(ConfigError, match="'profile' must come before 'recall'"):
        make.pipeline(components=("recall", "profile"))
    with pytest.raises(ConfigError, match="'auditor' must come before 'ranking'"):
        make.pipeline(components=("ranking", "auditor"))
    with pytest.raises(
        ConfigError, match="component 'rankings' is unknown; did you mean 'ranking'"
    ):
        make.pipeline(components=("rankings",))


def test_components_must_use_one_version_of_the_spaces(make):
    pipeline = make.pipeline(components=(f"{__name__}:ForeignProfile", "recall", "ranking"))
    request = pipeline.begin(make.keys())
    actions = pipeline.default_actions()
    pipeline.act(request, "foreign_0", actions["foreign_0"])
    with pytest.raises(ConfigError, match="space version 'v0', the items of 'v1'"):
        pipeline.act(request, "recall_0", actions["recall_0"])


def test_the_version_follows_the_items_not_the_class(make):
    other = make.knowledge(seed=1)
    object.__setattr__(other, "version", "v0")
    pipeline = make.pipeline(
        knowledge=other, components=(f"{__name__}:ForeignProfile", "recall", "ranking")
    )
    request = pipeline.begin(make.keys())
    for agent, action in pipeline.default_actions().items():
        pipeline.act(request, agent, action)
    assert request.slate is not None


def test_the_example_of_ones_own_component_through_yaml(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.chdir(tmp_path)  # a file outside the working directory may not name code
    place = tmp_path / "own.yaml"
    place.write_text(
        "embeddings: {encoder: hashing, reduction: {dimension: 8}}\n"
        "pipeline:\n"
        '  components: [profile, recall, feature, "examples.own_component:Newsroom", ranking]\n'
        "rewards:\n"
        "  weights: {ranking: 1.0, newsroom: 0.05}\n"
    )
    parallel_api_test(marec_env.parallel_env(place), num_cycles=30)
    simulator = marec_env.make_vec(place, 64)
    freshness = {}
    for push in (-1.0, 1.0):
        simulator.reset(0)
        step = simulator.step({"newsroom_0": torch.full((64, 1), push)})
        freshness[push] = simulator.world.knowledge.freshness[simulator.last.slate].mean().item()
        metrics = step.metrics
        own = metrics["objective/newsroom_0"]
        retention = 1.0 - simulator.last.feedback.left.float()
        expected = metrics["objective/ranking_0"] + 0.05 * own + 0.1 * retention
        assert torch.allclose(metrics["team_reward"], expected, atol=1e-6)
        seen = simulator.observe("newsroom_0")[:, -1]
        left = simulator.last.feedback.left
        pushed = torch.full((64,), 0.1 * (push + 1)).masked_fill(left, 0.0)
        assert torch.allclose(seen, pushed, atol=1e-6)
    assert freshness[1.0] > freshness[-1.0] + 0.03


def test_the_example_of_ones_own_channel_through_yaml(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.chdir(tmp_path)  # a file outside the working directory may not name code
    place = tmp_path / "own.yaml"
    place.write_text(
        "embeddings: {encoder: hashing, reduction: {dimension: 8}}\n"
        "pipeline:\n"
        "  recall:\n"
        '    channels: [cf, "examples.own_channel:same_topic"]\n'
    )
    simulator = marec_env.make_vec(place, 64)
    for _ in range(2):
        simulator.step(simulator.default_actions())
    request, knowledge = simulator.last.request, simulator.world.knowledge
    for row in range(64):
        latest = int(request.memory.recent[row, 0])
        own = request.candidates[row][request.candidate_channel[row] == 1]
        before = simulator.last.feedback.clicks[row].sum() == 0  # else the latest is newer
        if latest >= 0 and before and not simulator.last.feedback.left[row]:
            assert own.numel() > 0
            assert bool((knowledge.topics[own] == knowledge.topics[latest]).all())
            popularity = knowledge.popularity[own]
            assert bool((popularity[:-1] >= popularity[1:]).all())


def test_the_example_of_ones_own_reward_through_yaml(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.chdir(tmp_path)  # a file outside the working directory may not name code
    place = tmp_path / "own.yaml"
    place.write_text(
        "embeddings: {encoder: hashing, reduction: {dimension: 8}}\n"
        "rewards:\n"
        '  team: {"examples.own_reward:tail_clicks": 1.0}\n'
        "  weights: {}\n"
    )
    simulator = marec_env.make_vec(place, 64)
    step = simulator.step(simulator.default_actions())
    popularity = simulator.world.knowledge.popularity
    tail = popularity[simulator.last.slate] <= popularity.median()
    expected = (simulator.last.feedback.clicks * tail).sum(1) / 10
    assert torch.allclose(step.rewards["profile_0"], expected)
    assert float(expected.sum()) > 0


def test_every_component_is_described_by_its_spaces(make):
    plain = make.knowledge()
    kinds = 1 + plain.num_topics**2 * (plain.num_topics + 1) // 2
    knowledge = dataclasses.replace(plain, user_texts=torch.eye(kinds, plain.text.shape[1]))
    for name in COMPONENTS:
        pipeline = make.pipeline(components=(name,), knowledge=knowledge)
        (agent,) = pipeline.agents
        space = pipeline.action_spaces[agent]
        default = pipeline.components[0].default_action().numpy()
        assert space.contains(default.astype(space.dtype)), name
        assert pipeline.observe(agent).shape[0] == 3


def test_summaries_for_messages_have_one_row_a_session(make):
    pipeline = make.pipeline(components=SIX)
    request = pipeline.begin(make.keys())
    for component, action in zip(
        pipeline.components, pipeline.default_actions().values(), strict=True
    ):
        component.act(request, action)
        assert component.summary(request, action).shape[0] == 3
    request.need("slate")


def test_what_several_components_add_to_a_request_is_summed(make):
    request = make.pipeline().begin(make.keys())
    for add, name in (
        (request.add_bonus, "bonus"), (request.add_veto, "veto"),
        (request.spend, "extra_cost"), (request.shift_profile, "profile_shift"),
    ):  # fmt: skip
        add(torch.full((3, 2), 1.5))
        add(torch.tensor([[0.0, 2.0]] * 3))
        assert getattr(request, name).tolist() == [[1.5, 3.5]] * 3


def test_recalls_message_is_its_quotas_as_shares(make):
    pipeline = make.pipeline()
    request = pipeline.begin(make.keys())
    levels = torch.tensor([[1, 0, 0, 0, 0, 0, 1], [0, 3, 0, 0, 0, 0, 1], [1, 1, 1, 1, 0, 0, 0]])
    pipeline.act(request, "recall_0", levels)
    shares = pipeline.components[1].summary(request, levels)
    assert shares.tolist() == [
        [0.5, 0, 0, 0, 0, 0, 0.5], [0, 0.75, 0, 0, 0, 0, 0.25], [0.25, 0.25, 0.25, 0.25, 0, 0, 0],
    ]  # fmt: skip
