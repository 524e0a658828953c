"""What the richer components remember and decide, worked out here from distinct numbers."""

import math

import pytest
import torch

from marec_env.vector import Rows

RICH = ("profile/query", "recall/topics", "feature", "ranking/topics")
TEAM = ("profile", "recall", "feature", "ranking/topics")
# Slates of session 1 (item i is of topic i % 4) and their clicks.
SLATES = ([20, 21, 24, 23, 30], [33, 37, 41, 38, 40])
CLICKS = ([1.0, 0.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0, 1.0])
LIVES = (2.0, 8.0, 32.0)


def answered(pipeline, make):
    """Play both slates; the other sessions are shown other items, and click on nothing."""
    for slate, clicks in zip(SLATES, CLICKS, strict=True):
        request = pipeline.begin(make.keys())
        request.turn = len(pipeline.components)  # the team has acted
        other = [item + 12 for item in slate]
        request.slate = request.candidates = torch.tensor([slate, slate, other])
        pipeline.learn(request, torch.tensor([[0.0] * 5, clicks, [0.0] * 5]))


def expected_state():
    """Session 1's leaning ``[3][4]`` and fatigue, in plain Python."""
    looks = [1 / math.log2(k + 2) for k in range(5)]
    looks = [5 * look / sum(looks) for look in looks]
    rate, exposure = 0.15, [0.0] * 4
    leaning, fatigue = [[0.0] * 4 for _ in LIVES], [0.0, 0.0]
    for slate, clicks in zip(SLATES, CLICKS, strict=True):
        leaning = [
            [0.5 ** (1 / life) * value for value in row]
            for life, row in zip(LIVES, leaning, strict=True)
        ]
        for k, item in enumerate(slate):
            excess = clicks[k] - rate * looks[k]
            for row in leaning:
                row[item % 4] += excess
            fatigue[0] += exposure[item % 4] * excess
            fatigue[1] += exposure[item % 4] * rate * looks[k]
        share = [sum(item % 4 == topic for item in slate) / 5 for topic in range(4)]
        exposure = [0.75 * old + 0.25 * new for old, new in zip(exposure, share, strict=True)]
        rate = 0.9 * rate + 0.1 * sum(clicks) / 5
    return leaning, fatigue


def test_what_is_remembered_by_topic_by_hand(make):
    pipeline = make.pipeline(components=TEAM)
    answered(pipeline, make)
    leaning, fatigue = expected_state()
    state = pipeline.components[-1].state
    assert state["leaning"][1].tolist() == pytest.approx(
        [*leaning[0], *leaning[1], *leaning[2]], abs=1e-5
    )
    assert state["fatigue"][1].tolist() == pytest.approx(fatigue, abs=1e-5)
    assert bool((state["leaning"][0] <= 0).all())  # nothing was clicked
    seen = pipeline.observe("ranking_0")
    assert torch.equal(seen[:, -14:], torch.cat([state["leaning"], state["fatigue"]], dim=1))
    memory, rows = pipeline.memory, Rows(torch.tensor([False, True, False]))
    pipeline.reset(
        rows, memory.history[1:2].clone(), memory.history_liked[1:2].clone(), torch.zeros(1).long()
    )
    assert not pipeline.components[-1].state["leaning"][1].any()
    assert pipeline.components[-1].state["leaning"][2].any()


def test_what_topics_add_to_the_scores_by_hand(make):
    pipeline = make.pipeline(components=TEAM)
    answered(pipeline, make)
    leaning, _ = expected_state()
    gains, rest, level, own = [0.5, -0.3, 0.2], 0.4, -0.3, [0.1, -0.6, 0.9, 1.7]  # one is clipped
    first = pipeline.default_actions()["ranking_0"][:, :-9]
    further = torch.tensor([[*gains, rest, level, *own]]).expand(3, -1)
    request = pipeline.begin(make.keys())
    pipeline.act(request, "ranking_0", torch.cat([first, further], dim=1))
    exposure = pipeline.memory.exposure[1].tolist()
    worth = []
    for t in range(4):
        leans = sum((1 + gains[h]) * math.tanh(leaning[h][t]) for h in range(3))
        over = (exposure[t] - 0.5 * 0.35) / 0.03
        worth.append(leans - 4.0 * 0.7 / (1 + math.exp(-over)) + min(own[t], 1.0))
    assert len({round(value, 3) for value in worth}) == 4
    expected = [worth[item % 4] for item in request.candidates[1].tolist()]
    assert request.bonus[1].tolist() == pytest.approx(expected, abs=1e-4)


def test_topics_are_rested_by_the_evidence_that_the_user_tires_by_hand(make):
    pipeline = make.pipeline(components=(*TEAM[:-1], "ranking/tiring"))
    answered(pipeline, make)
    memory, state = pipeline.memory, pipeline.components[-1].state
    leaning, _ = expected_state()
    looks = [1 / math.log2(k + 2) for k in range(5)]
    before = [0.25 * sum(item % 4 == topic for item in SLATES[0]) / 5 for topic in range(4)]
    rate = 0.9 * 0.15 + 0.1 * 2 / 5
    excess = expected = 0.0  # of the second slate, and of the first, before which all is 0
    for slate, clicks, exposure, usual in zip(
        SLATES, CLICKS, ([0.0] * 4, before), (0.15, rate), strict=True
    ):
        for k, item in enumerate(slate):
            over = 1 / (1 + math.exp((0.16 - exposure[item % 4]) / 0.03))
            excess += over * (clicks[k] - usual * 5 * looks[k] / sum(looks))
            expected += over * usual * 5 * looks[k] / sum(looks)
    assert state["fatigue"][1].tolist() == pytest.approx([excess, expected], abs=1e-5)
    gains, rest, level, tired = [0.5, -0.3, 0.2], 0.4, -0.3, 0.25
    first = pipeline.default_actions()["ranking_0"][:, :-6]
    assert not pipeline.default_actions()["ranking_0"][:, -6:].any()
    further = torch.tensor([[*gains, rest, level, tired]]).expand(3, -1)
    request = pipeline.begin(make.keys())
    pipeline.act(request, "ranking_0", torch.cat([first, further], dim=1))
    share_of_clicks = 10.0 ** (-2 * (1 - 0.625))
    ratio = (1 - share_of_clicks) * expected + (excess + expected) * math.log(share_of_clicks)
    tires = 1 / (1 + math.exp(-ratio))
    worth = []
    for t in range(4):
        leans = sum(2 * (1 + gains[h]) * math.tanh(leaning[h][t]) for h in range(3))
        over = (float(memory.exposure[1, t]) - 0.32 * 0.35) / 0.03
        worth.append(leans - 16 * 0.7 * tires / (1 + math.exp(-over)))
    assert len({round(value, 3) for value in worth}) == 4
    expected_bonus = [worth[item % 4] for item in request.candidates[1].tolist()]
    assert request.bonus[1].tolist() == pytest.approx(expected_bonus, abs=1e-4)


def test_clicks_on_what_was_shown_too_much_speak_against_tiring(make):
    """Of two alike, one clicked on nothing that was overexposed; the same rest rests it more."""
    pipeline = make.pipeline(components=(*TEAM[:-1], "ranking/tiring"))
    component = pipeline.components[-1]
    component.state["fatigue"][:] = torch.tensor([[1.5, 1.5], [-1.5, 1.5], [0.0, 0.0]])
    pipeline.memory.exposure[:, 2] = 0.5
    request = pipeline.begin(make.keys())
    pipeline.act(request, "ranking_0", pipeline.default_actions()["ranking_0"])
    rested = [float(row[topics == 2][0]) for row, topics in zip(
        request.bonus, request.topics_of(request.candidates), strict=True)]  # fmt: skip
    assert rested[0] > -0.1
    assert rested[1] == pytest.approx(-8 / (1 + math.exp(-0.9 * 1.5)), abs=1e-3)
    assert rested[2] == pytest.approx(-4.0, abs=1e-3)


def test_by_default_a_clicked_topic_is_followed(make):
    pipeline = make.pipeline(components=TEAM)
    answered(pipeline, make)
    action = pipeline.default_actions()["ranking_0"]
    assert not action[:, -9:].any()
    request = pipeline.begin(make.keys())
    pipeline.act(request, "ranking_0", action)
    topics = request.topics_of(request.candidates)[1]
    leaning = pipeline.components[-1].state["leaning"][1].view(3, 4).sum(0)
    liked, disliked = (
        request.bonus[1][topics == t].mean() for t in (leaning.argmax(), leaning.argmin())
    )
    assert float(liked) > float(disliked) + 0.5


def test_quotas_by_topic_by_hand(make):
    """Of 20 places 5 for channel cf, 10 for topic 2, 5 for topic 0, best by both spaces first."""
    pipeline = make.pipeline(components=("profile", "recall/topics", "feature", "ranking"))
    assert pipeline.action_spaces["recall_0"].nvec.tolist() == [4] * 11
    request, knowledge = pipeline.begin(make.keys()), pipeline.knowledge
    pipeline.act(request, "profile_0", pipeline.default_actions()["profile_0"])
    levels = torch.tensor([[1, *[0] * 6, 1, 0, 2, 0]] * 3)
    pipeline.act(request, "recall_0", levels)
    assert request.quotas[1].tolist() == [5, 0, 0, 0, 0, 0, 0]
    scores = (request.cf_scores + request.text_scores)[1]
    found = request.best_unseen(request.cf_scores, 5)[1].tolist()
    origin = [0] * 5
    for topic, quota in ((0, 5), (2, 10)):
        items = [i for i in range(60) if i % 4 == topic and not pipeline.memory.seen[1, i]]
        free = [i for i in sorted(items, key=lambda i: -scores[i]) if i not in found]
        found += free[:quota]
        origin += [7] * len(free[:quota])  # of no channel
    assert len(found) == 20
    assert request.candidates[1].tolist() == found
    assert request.candidate_channel[1].tolist() == origin
    assert bool((knowledge.topics[request.candidates[:, 10:]] == 2).all())
    pipeline.learn(request, torch.zeros(3, 5))


def test_a_topic_without_items_offers_nothing(make):
    knowledge = make.knowledge()
    object.__setattr__(knowledge, "topics", knowledge.topics.clamp(max=2))
    pipeline = make.pipeline(knowledge=knowledge, components=("recall/topics",))
    request = pipeline.begin(make.keys())
    pipeline.act(request, "recall_0", torch.tensor([[0] * 7 + [0, 1, 0, 3]] * 3))
    assert bool((knowledge.topics[request.candidates[:, :5]] == 1).all())
    assert all(len(set(row)) == 20 for row in request.candidates.tolist())


def test_the_query_by_hand(make):
    plain, moved = make.pipeline(), make.pipeline(components=("profile/query", "recall", "ranking"))
    weights = torch.tensor([0.8, -0.4, 0.1, -0.6, 0.3])
    text, cf = torch.linspace(-0.9, 0.6, 6), torch.tensor([0.5, -2.0, 0.7, 0.2, -0.1])
    one, other = plain.begin(make.keys()), moved.begin(make.keys())
    plain.act(one, "profile_0", weights.expand(3, -1))
    moved.act(other, "profile_0", torch.cat([weights, text, cf]).expand(3, -1))
    for space, move in (("text", text), ("cf", cf.clamp(-1.0, 1.0))):
        base, found = (getattr(request, f"profile_{space}")[1] for request in (one, other))
        expected = base + move / math.sqrt(len(move))
        assert found.tolist() == pytest.approx((expected / expected.norm()).tolist(), abs=1e-5)


@pytest.mark.parametrize(
    "team", [("profile", "recall", "feature", "ranking"), RICH, ("ranking/tiring",)]
)
def test_every_number_of_an_action_has_a_name_of_its_own(make, team):
    for component in make.pipeline(components=team).components:
        names = component.decisions()
        assert len({*names}) == len(names) == component.action_space.shape[0]


def test_by_default_profile_and_recall_do_what_the_plain_ones_do(make):
    slates = []
    for team in (("profile/query", "recall/topics", "ranking"), ("profile", "recall", "ranking")):
        pipeline = make.pipeline(components=team)
        request = pipeline.begin(make.keys())
        for agent, action in pipeline.default_actions().items():
            pipeline.act(request, agent, action)
        slates.append(pipeline.finish(request))
    assert torch.equal(*slates)
