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
from marec_env.pipeline import ranking
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
    # Of 5 items shown, topics 0 to 3 (by item number) had 0, 2, 2 and 1, channels 1, 4 and 6 (and
    # the fallback, which is no channel) 1, 2, 1 and 1; the first, third and last were clicked.
    memory.session_items[1, 2] = torch.tensor([1, 2, 5, 6, 3])
    memory.session_items[1, 1] = 0  # older
    memory.session_clicks[1, 2] = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0])
    memory.last_channel[1] = torch.tensor([4, 4, 6, 7, 1])
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
        "feedback": [
            *(0.0, 0.4, 0.4, 0.2),  # topics shown
            *(0.0, 0.8, 0.0, 0.4),  # and clicked, twice the share
            *(1.0, 0.0, 1.0, 0.0, 1.0),
            *(0.0, 0.2, 0.0, 0.0, 0.4, 0.0, 0.2),
            *(0.0, 0.4, 0.0, 0.0, 0.4, 0.0, 0.4),
        ],
        **{
            f"feedback_{space}": torch.cat([vectors[[1, 5, 3]].sum(0), vectors[[2, 6]].sum(0)])
            .div(5)
            .tolist()
            for space, vectors in (("text", memory.knowledge.text), ("cf", memory.knowledge.cf))
        },
        **{name: value[1].tolist() for name, value in SUMMARIES.items()},
    }


def test_every_field_by_hand(memory):
    expected = expected_fields(memory)
    assert set(FIELDS) == set(expected)
    for name, row in expected.items():
        found = FIELDS.get(name)(memory, SUMMARIES)
        assert found[1].tolist() == pytest.approx(row, abs=1e-5), name
    assert FIELDS.get("limits")(memory, {})[0].tolist() == [1.0]  # no limit
    for name in ("feedback", "feedback_text", "feedback_cf"):
        assert not FIELDS.get(name)(memory, {})[0].any()  # nothing was shown
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
    expected |= {
        "term/probe_quality": quality,
        "term/recall": objectives["recall"],
        "term/ranking_quality": ranking,
        "term/compute_cost": torch.full((6,), cost),
        "term/engagement": feedback.engagement,
        "term/retention": stays,
        "term/extra_cost": torch.zeros(6),
    }
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


def test_the_profile_by_hand(make):
    pipeline = make.pipeline()
    request, memory = pipeline.begin(make.keys()), pipeline.memory
    weights = torch.tensor([0.9, 0.5, 0.2, 0.3, 0.7])  # three time scales, dislikes, the prior
    pipeline.act(request, "profile_0", (2 * weights - 1).expand(3, -1))
    for space in ("text", "cf"):
        taste = normalize(getattr(memory, f"taste_{space}")[1], dim=-1)
        dislike = normalize(getattr(memory, f"dislike_{space}")[1], dim=-1)
        centre = getattr(request.knowledge, f"centre_{space}")
        expected = (weights[:3, None] * taste).sum(0) - 0.3 * dislike + 0.7 * centre
        found = getattr(request, f"profile_{space}")[1]
        assert found.tolist() == pytest.approx(normalize(expected, dim=0).tolist(), abs=1e-5)


def test_scores_and_logits_of_the_ranking_by_hand(make):
    pipeline = make.pipeline()
    request = pipeline.begin(make.keys())
    shares = torch.tensor([0.1, 0.2, 0.35, 0.5, 0.65, 0.9, 0.3, 0.25])
    bonus = torch.linspace(-1.0, 1.0, 20).expand(3, -1)
    request.add_bonus(bonus)
    pipeline.act(request, "ranking_0", (2 * shares - 1).expand(3, -1))
    scores = sum(2 * shares[k] * request.blocks[1, :, k] for k in range(6))
    assert request.scores[1].tolist() == pytest.approx(scores.tolist(), abs=1e-5)
    ranked, topics = (scores + bonus[1]).tolist(), request.topics_of(request.candidates)[1].tolist()
    better = [
        sum(t == topics[c] and s > ranked[c] for s, t in zip(ranked, topics, strict=True))
        for c in range(20)
    ]
    expected = [(ranked[c] - 0.6 * better[c]) / (0.01 * 100**0.25) for c in range(20)]
    assert request.slate_logits[1].tolist() == pytest.approx(expected, rel=1e-3, abs=1e-2)
    assert torch.equal(request.slate, request.candidates.gather(1, request.slate_slot))


def test_what_a_veto_outbids_by_hand():
    scores = torch.tensor([[0.0, 3.0, 1.0], [2.0, 2.0, 2.0]])
    found = ranking._outbid(scores, torch.tensor([0.5, 0.0]), torch.tensor([0.1, 0.2]))
    assert found.tolist() == pytest.approx([3.0 + 0.5 * 3 + 20 * 0.1, 20 * 0.2])


def test_hand_set_decisions(make):
    found = {
        agent: action[0].tolist() for agent, action in make.pipeline().default_actions().items()
    }
    assert found["profile_0"] == pytest.approx([1.0, 1.0, 1.0, -0.6, -0.8])
    assert found["recall_0"] == [1] * 7
    assert found["feature_0"] == [1] * 6
    temperature = 2 * math.log(5) / math.log(100) - 1
    assert found["ranking_0"] == pytest.approx([0.0] * 6 + [-0.7, temperature], abs=1e-6)
    six = make.pipeline(components=("trainer", "auditor", "ranking")).default_actions()
    assert six["trainer_0"].tolist() == [1] * 3
    assert six["auditor_0"].tolist() == [[0.0, 0.0]] * 3


def test_what_is_learned_of_channels_and_blocks_is_of_what_was_shown(make):
    pipeline = make.pipeline()
    request = pipeline.begin(make.keys())
    pipeline.finish(request)
    clicks = torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.0]] * 3)
    pipeline.learn(request, clicks)
    for row in range(3):
        shown = [request.candidates[row].tolist().index(i) for i in request.slate[row].tolist()]
        assert request.slate_slot[row].tolist() == shown
        channel = request.candidate_channel[row][shown]
        for place in range(7):
            of = channel == place
            rate = float(clicks[row][of].mean()) if bool(of.any()) else 0.0
            assert pipeline.memory.channel_hits[row, place].item() == pytest.approx(0.1 * rate)
        for block in range(6):
            values = request.blocks[row, shown, block].numpy()
            expected = 0.1 * np.corrcoef(values, clicks[row].numpy())[0, 1] if values.std() else 0.0
            found = pipeline.memory.block_use[row, block].item()
            assert found == pytest.approx(expected, abs=1e-5)


def test_what_knowledge_derives_by_hand(make):
    knowledge = make.knowledge(items=6, topics=2)
    popularity, age = knowledge.popularity.tolist(), knowledge.age.tolist()
    oldest_last = sorted(range(6), key=lambda item: age[item])
    assert knowledge.num_items == 6
    assert knowledge.by_freshness.tolist() == oldest_last
    assert knowledge.by_popularity.tolist() == sorted(range(6), key=lambda i: -popularity[i])
    for rank, item in enumerate(oldest_last):
        assert knowledge.freshness[item].item() == pytest.approx(1 - rank / 5)
    weight = [sum(popularity[t::2]) + 0.5 for t in (0, 1)]
    assert knowledge.topic_share.tolist() == pytest.approx([w / sum(weight) for w in weight])
    assert knowledge.topic_indicator.tolist() == [[1.0, 0.0], [0.0, 1.0]] * 3
    assert torch.equal(knowledge.items_of_topic, knowledge.topic_indicator.T)
    for space in ("text", "cf"):
        mean = sum(p * v for p, v in zip(popularity, getattr(knowledge, space), strict=True))
        centre = getattr(knowledge, f"centre_{space}")
        assert centre.tolist() == pytest.approx((mean / mean.norm()).tolist(), abs=1e-5)
