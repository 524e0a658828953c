"""One row of distinct values for each observation field, state column and metric, worked out here.

Every number that a field is made of is set to a value of its own, so that a test fails when two
columns change places, one is dropped, or a scale is another. Terms have theirs in rewards/.
"""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

import marec_env
from marec_env.pipeline.observations import FIELDS

SMALL_WORLD = {
    "max_requests": 4,
    "data": {"source": "synthetic/streaming", "synthetic": {"num_users": 40, "num_items": 120}},
    "embeddings": {"encoder": "hashing", "reduction": {"dimension": 8}},
    "catalog": {"num_topics": 5},
    "population": {"history": 12},
    "pipeline": {"candidates": 20, "slate_size": 5},
}


@pytest.fixture(scope="module")
def simulator():
    made = marec_env.make_vec(SMALL_WORLD, 6)
    made.reset(2)
    made.step(made.default_actions())
    return made


@pytest.fixture
def memory(make):
    """The memory of three sessions in which no two numbers of session 1 are equal."""
    pipeline = make.pipeline()
    memory = pipeline.memory
    memory.requests[:] = torch.tensor([0, 3, 5])
    memory.history_length[1] = 1.0
    memory.last_rate[1], memory.fast_rate[1], memory.slow_rate[1] = 0.2, 0.35, 0.05
    memory.exposure[1] = torch.tensor([0.1, 0.4, 0.3, 0.15])
    memory.interest[1] = torch.tensor([0.02, 0.08, 0.06, 0.04])
    memory.since_click[1] = 2.0
    memory.channel_hits[1] = torch.linspace(0.1, 0.16, 7)
    memory.block_use[1] = torch.linspace(-0.2, 0.3, 6)
    memory.group[1] = torch.tensor([0.0, 1.0])
    memory.limits = torch.tensor([[torch.inf], [3.0], [7.0]])
    return memory


SUMMARIES = {
    "profile": torch.linspace(-0.4, 0.6, 11).expand(3, -1),
    "quotas": torch.linspace(0.01, 0.07, 7).expand(3, -1),
    "candidates": torch.linspace(0.11, 0.18, 8).expand(3, -1),
    "enabled": torch.linspace(0.31, 0.36, 6).expand(3, -1),
}


def similarity(one, two):
    return float(one @ two / one.norm() / two.norm())


def expected_fields(memory):
    """Session 1's row of every built-in field."""
    shares = np.array([0.1, 0.4, 0.3, 0.2])
    entropy = -(shares * np.log(shares)).sum() / math.log(4)
    tastes = [
        [taste[1, scale] for scale in range(3)] for taste in (memory.taste_text, memory.taste_cf)
    ]
    return {
        "session": [3 / 6, 1 / 4, 0.0, 0.4, 0.7, 0.1, 0.4, entropy, math.tanh(2 / 5)],
        "exposure": [0.1, 0.4, 0.3, 0.15],
        "interest": [0.02, 0.08, 0.06, 0.04],
        "taste_text": normalize(tastes[0][1], dim=0).tolist(),
        "taste_cf": normalize(tastes[1][1], dim=0).tolist(),
        "taste_change": [similarity(t[k + 1], t[k]) for t in tastes for k in (0, 1)],
        "channel_hits": torch.linspace(0.2, 0.32, 7).tolist(),
        "block_use": torch.linspace(-0.2, 0.3, 6).tolist(),
        "group": [0.0, 1.0],
        "limits": [math.tanh(3 / 7)],
        **{name: value[1].tolist() for name, value in SUMMARIES.items()},
    }


def test_every_field_by_hand(memory):
    expected = expected_fields(memory)
    assert set(FIELDS) == set(expected)
    for name, row in expected.items():
        found = FIELDS.get(name)(memory, SUMMARIES)
        assert found[1].tolist() == pytest.approx(row, abs=1e-5), name
    assert FIELDS.get("limits")(memory, {})[0].tolist() == [1.0]  # no limit
    memory.history_length[1] = 0.0
    assert FIELDS.get("session")(memory, {})[1, 1:3].tolist() == [0.0, 1.0]
    memory.interest[1] = 0.0
    assert FIELDS.get("session")(memory, {})[1, 7].item() == 0.0


STATE = (
    ("session", 9),
    ("exposure", 5),
    ("interest", 5),
    ("taste_change", 4),
    ("channel_hits", 7),
    ("block_use", 6),
    ("quotas", 7),
    ("candidates", 9),
)


def test_the_critics_state_holds_these_fields_in_this_order(simulator):
    state, fields = simulator.state(), simulator.pipeline.fields()
    first = 0
    for name, width in STATE:
        part = state[:, first : first + width]
        assert torch.equal(part, fields[name]), name
        assert bool(part.any()), f"{name} is 0 everywhere: the test would not see it dropped"
        first += width
    assert state.shape == (6, first)
    assert simulator.state_space.shape == (first,)


OBSERVATIONS = {
    "profile_0": ("session", "taste_change", "taste_text", "taste_cf", "interest"),
    "recall_0": ("session", "profile", "channel_hits", "exposure", "interest"),
    "feature_0": ("session", "block_use", "quotas", "candidates", "exposure"),
    "ranking_0": ("session", "candidates", "enabled", "block_use", "exposure", "interest"),
}


@pytest.mark.parametrize("agent", OBSERVATIONS)
def test_each_component_sees_these_fields_in_this_order(simulator, agent):
    fields = simulator.pipeline.fields()
    expected = torch.cat([fields[name] for name in OBSERVATIONS[agent]], dim=1)
    assert torch.equal(simulator.observe(agent), expected)


def test_what_a_request_leaves_for_the_observations_by_hand(simulator):
    """Topic shares, popularity, freshness and scores of the candidates; quotas; blocks; profile."""
    request, found = simulator.last.request, simulator.pipeline.summaries
    knowledge = request.knowledge
    best = request.candidates[:, :10]
    for row in range(6):
        items = request.candidates[row]
        shares = torch.bincount(knowledge.topics[items], minlength=5) / 20
        rest = [
            knowledge.popularity[items].mean(),
            knowledge.freshness[items].mean(),
            (knowledge.cf[best[row]] @ request.profile_cf[row]).mean(),
            (knowledge.text[best[row]] @ request.profile_text[row]).mean(),
        ]
        assert len({round(float(value), 4) for value in rest}) == 4
        expected = [*shares.tolist(), *map(float, rest)]
        assert found["candidates"][row].tolist() == pytest.approx(expected, abs=1e-5)
    assert torch.allclose(found["quotas"], request.quotas / 20)
    assert torch.equal(found["enabled"], request.enabled)
    assert torch.equal(found["profile"], torch.cat([request.profile_text, request.profile_cf], 1))


def test_metrics_of_a_step_by_hand():
    simulator = marec_env.make_vec(SMALL_WORLD, 6)
    simulator.reset(5)
    actions = simulator.default_actions()
    actions["feature_0"] = torch.tensor([[1, 1, 0, 1, 0, 1]] * 6)
    step = simulator.step(actions)
    request, feedback, truth = simulator.last.request, simulator.last.feedback, simulator.last.truth
    expected = {
        "clicks": feedback.behaviours["click"].sum(1),
        "engagement": feedback.engagement,
        "satisfaction": feedback.satisfaction,
        **feedback.outcomes,
    }
    probe = request.scores_of("cf", truth.probe) + request.scores_of("text", truth.probe)
    quality = (correlations(probe, truth.probe_probability) + 1) / 2
    ranking = (correlations(request.scores, truth.candidate_probability) + 1) / 2
    cost = 0.02 + 0.03 + 0.005 + 0.01
    before = simulator.last.request.memory.seen.scatter(1, request.slate, False)
    found = []
    for row in range(6):
        wanted = [item for item in truth.top[row].tolist() if not before[row, item]][:50]
        found.append(len(set(wanted) & set(request.candidates[row].tolist())) / len(wanted))
    objectives = {
        "profile": quality,
        "recall": torch.tensor(found),
        "feature": (ranking - cost).clamp(0, 1),
        "ranking": feedback.engagement,
    }
    stays = 1.0 - feedback.left.float()
    team = 0.1 * stays + objectives["ranking"]
    team = team + 0.02 * sum(objectives[name] for name in ("profile", "recall", "feature"))
    expected |= {f"objective/{name}_0": value for name, value in objectives.items()}
    expected["team_reward"] = team
    assert set(step.metrics) == set(expected)
    for name, value in expected.items():
        assert step.metrics[name].tolist() == pytest.approx(value.tolist(), abs=1e-5), name
    assert all(torch.equal(reward, step.metrics["team_reward"]) for reward in step.rewards.values())


def correlations(scores, probability):
    """Pearson's correlation of each row with the log-odds, by numpy."""
    target = torch.logit(probability, eps=1e-6)
    rows = zip(scores.tolist(), target.tolist(), strict=True)
    return torch.tensor([np.corrcoef(a, b)[0, 1] for a, b in rows], dtype=torch.float32)


def test_episodes_add_up_and_begin_anew():
    made = marec_env.make_vec({**SMALL_WORLD, "users": {"patience": {"kind": "none"}}}, 3)
    made.reset(1)
    steps = [made.step(made.default_actions()) for _ in range(8)]
    for first in (0, 4):
        part = steps[first : first + 4]
        assert part[-1].truncated.tolist() == [True] * 3
        outcomes = part[-1].episodes
        totals = {
            name: sum(step.metrics[name] for step in part).tolist() for name in part[0].metrics
        }
        assert outcomes["length"].tolist() == [4.0] * 3
        assert outcomes["return"].tolist() == pytest.approx(totals["team_reward"])
        assert outcomes["clicks"].tolist() == pytest.approx(totals["clicks"])
        for name in set(totals) - {"clicks", *made.last.feedback.outcomes}:
            mean = [value / 4 for value in totals[name]]
            assert outcomes[f"{name}_per_request"].tolist() == pytest.approx(mean), name
    assert [step.episodes == {} for step in steps] == [True, True, True, False] * 2
