"""What components remember and decide by topic, worked out here from distinct numbers."""

import math

import pytest
import torch

from marec_env.vector import Rows

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
    gains, own = [0.5, -0.3, 0.2], [0.1, -0.6, 0.9, 1.7]  # the last is clipped to 1
    rest = pipeline.default_actions()["ranking_0"][:, :-7]
    action = torch.cat([rest, torch.tensor([gains + own]).expand(3, -1)], dim=1)
    request = pipeline.begin(make.keys())
    pipeline.act(request, "ranking_0", action)
    worth = []
    for t in range(4):
        leans = sum(gains[h] * math.tanh(leaning[h][t]) for h in range(3))
        worth.append(2.0 * (min(own[t], 1.0) + leans))
    expected = [worth[item % 4] for item in request.candidates[1].tolist()]
    assert request.bonus[1].tolist() == pytest.approx(expected, abs=1e-5)


def test_by_default_no_topic_is_favoured(make):
    slates = []
    for team in (TEAM, ("profile", "recall", "feature", "ranking")):
        pipeline = make.pipeline(components=team)
        request = pipeline.begin(make.keys())
        for agent, action in pipeline.default_actions().items():
            pipeline.act(request, agent, action)
        slates.append(pipeline.finish(request))
    assert torch.equal(*slates)
