"""What is served is what the simulator would have shown, whatever the batch and the order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.learners.policy import TrainedPolicy
from agents.service.bundle import Bundle
from agents.service.past import past_of
from agents.service.replays import pasts_of
from agents.service.sessions import Session, Sessions
from agents.service.slates import Slate
from marec_env.errors import DataError
from marec_env.pipeline.reasons import block_parts
from marec_env.simulator import Simulator
from tests.agents.service.conftest import history_of, small_team

REQUESTS = 5


@pytest.mark.parametrize(("rich", "count"), [(False, 1000), (True, 60)])
def test_equals_the_simulator(rich: bool, count: int) -> None:
    world, policy = small_team(rich=rich)
    simulator = Simulator(world, count, autoreset=False)
    simulator.begin(torch.arange(count), 3)
    engine = Sessions(Bundle.of(world, policy))
    sessions = engine.open(pasts_of(simulator), simulator.session_keys.tolist())
    order = np.random.default_rng(0)
    shown, clicks = [], np.zeros(0)
    playing = TrainedPolicy(policy.team, policy.actors)  # the same networks, its own memory
    for number in range(REQUESTS):
        for turn in simulator.turns:
            simulator.act(playing.act({agent: simulator.observe(agent) for agent in turn}))
        simulator.advance()
        assert simulator.last is not None
        slate, clicks = simulator.last.slate.numpy(), simulator.last.feedback.clicks.numpy()
        rows = order.permutation(count)
        for part in np.split(rows, [1, 4, count // 9, count // 2]):
            for row, found in zip(part, engine.recommend([sessions[r] for r in part]), strict=True):
                assert found.number == number
                assert (found.places == slate[row]).all(), (number, row)
                sessions[row].click([world.catalog.ids[i] for i in slate[row][clicks[row] > 0]])
        shown.append(slate)
    assert clicks.any() and len(np.unique(np.stack(shown))) > 50
    # And so is what is remembered, to the bit.
    ends = [engine.view(session) for session in sessions[:5]]
    memory = simulator.pipeline.memory.state_dict()
    memory["history_liked"] &= memory["history"] >= 0  # of new users the rest means nothing
    for name, table in memory.items():
        assert torch.equal(torch.stack([end[name] for end in ends]), table[:5]), name


def played(engine: Sessions, count: int = 3, requests: int = 4) -> list[Session]:
    """Return sessions in which every other item was clicked."""
    pasts = [past_of(engine.bundle, history_of(engine.bundle, seed)) for seed in range(count)]
    sessions = engine.open(pasts, [11 * seed for seed in range(count)])
    for _ in range(requests):
        for session, slate in zip(sessions, engine.recommend(sessions), strict=True):
            session.click([slate.items[1].item, slate.items[3].item])
    return sessions


def told(slate: Slate) -> tuple[object, ...]:
    return slate.number, slate.items, slate.log_propensity, slate.log_probabilities


@pytest.mark.parametrize("rich", [False, True])
def test_a_session_goes_on_from_its_records_to_the_bit(rich: bool) -> None:
    engine = Sessions(Bundle.of(*small_team(rich=rich)), explore=True)
    sessions = played(engine)
    states = engine.states_of(sessions)
    other = Sessions(Bundle.of(*small_team(rich=rich)), explore=True)
    resumed = [
        other.resume(s.past, s.key, s.records, state)
        for s, state in zip(sessions, states, strict=True)
    ]
    for _ in range(2):
        expected = [told(slate) for slate in engine.recommend(sessions)]
        assert [told(session.recommend()) for session in resumed] == expected


def test_another_team_goes_on_with_what_was_shown_and_clicked() -> None:
    session = played(Sessions(Bundle.of(*small_team())))[0]
    other = Sessions(Bundle.of(*small_team(seed=1)))
    moved = other.resume(session.past, session.key, session.records, b"")
    before = {item for record in session.records for item in record.slate}
    slate = moved.recommend()
    assert slate.number == 4 and not before & set(slate.places)
    assert torch.equal(other.view(moved)["taste_cf"].isfinite(), torch.ones(3, 32).bool())
    assert set(slate.places) != set(session.recommend().places)


def test_late_clicks_leave_the_memory_that_clicks_in_time_leave() -> None:
    engine = Sessions(Bundle.of(*small_team()))
    [late, known] = engine.open([past_of(engine.bundle, engine.bundle.ids[3:5])] * 2, [5, 5])
    first = [late.recommend(), known.recommend()]
    assert (first[0].places == first[1].places).all()
    wanted = first[0].items[2].item
    known.click([wanted])
    for session in (late, known):
        engine.recommend([session])
    second = late.records[1].slate
    known.records[1] = type(known.records[1])(  # what the other was shown meanwhile
        second, known.records[1].clicks, late.records[1].channel, late.records[1].blocks
    )
    late.click([wanted], number=0)
    known.late = True
    view, expected = engine.view(late), engine.view(known)
    assert [name for name in view if not torch.equal(view[name], expected[name])] == []
    late.recommend()
    row = engine._tables.take([late.slot])["memory"]
    held = {name: row[name][0] for name in view}
    assert [name for name in view if not torch.equal(view[name], held[name])] == []


def test_a_second_click_changes_nothing() -> None:
    engine = Sessions(Bundle.of(*small_team()))
    [once, twice] = engine.open([past_of(engine.bundle, engine.bundle.ids[3:4])] * 2, [1, 1])
    for session, times in ((once, 1), (twice, 2)):
        item = session.recommend().items[0].item
        for _ in range(times):
            session.click([item])
    assert once.recommend().items == twice.recommend().items


def test_reasons_add_up_and_name_what_is_nearest() -> None:
    engine = Sessions(Bundle.of(*small_team()))
    names = engine.bundle.ids[3:6]
    past = past_of(engine.bundle, names, [True, False, True])
    [session] = engine.open([past], [5])
    slate = session.recommend()
    known = engine.bundle.knowledge
    cf = {"cf": 1.0, "affinity": 1.0, "item_to_item": 1.0, "diverse": 1.0, "text": 0.0}
    for item in slate.items:
        place, share = engine.bundle.places[item.item], cf.get(str(item.channel), 0.5)
        alike = {}
        for name in (names[0], names[2]):
            other = engine.bundle.places[name]
            alike[name] = float(
                share * known.cf[place] @ known.cf[other]
                + (1 - share) * known.text[place] @ known.text[other]
            )
        assert item.nearest is not None
        assert item.nearest.item == max(alike, key=lambda name: alike[name])
        assert item.nearest.similarity == pytest.approx(max(alike.values()), abs=1e-5)
        assert sum(item.blocks.values()) == pytest.approx(item.score, abs=1e-3)
        assert item.channel in (*engine.config.recall.channels, "filled up by popularity")
    funnel = slate.details()["funnel"]
    assert funnel["unseen"] == 297 and sum(funnel["channels"].values()) == 20
    [unknown] = engine.open([past_of(engine.bundle)], [5])
    assert all(item.nearest is None for item in unknown.recommend().items)


def test_scores_that_are_no_sum_of_blocks_have_no_parts() -> None:
    world, policy = small_team()
    simulator = Simulator(world, 4)
    simulator.step(policy.act({a: simulator.observe(a) for a in simulator.agents}))
    assert simulator.last is not None
    request = simulator.last.request
    assert request.scores is not None
    request.scores[1] += torch.linspace(-1, 1, 20).square()
    found = block_parts(request)
    assert found is not None and found[1].tolist() == [True, False, True, True]
    np.testing.assert_allclose(found[0][0].sum(1), request.scores[0], atol=1e-3)


def test_drawn_actions_are_as_probable_as_is_said() -> None:
    engine = Sessions(Bundle.of(*small_team()), explore=True)
    bundle = engine.bundle
    [session] = engine.open([past_of(bundle, bundle.ids[3:4])], [5])
    slate = session.recommend()
    decisions = slate.decisions()
    assert set(decisions) == set(slate.log_probabilities) == {*small_team()[1].team.agents}
    for agent, decision in decisions.items():
        actor = small_team()[1].actors[agent]
        inputs, _ = actor(torch.tensor([decision["observation"]]), None, 0)
        flat = torch.tensor([decision["action"]])
        log_p = actor.distribution.evaluate(inputs, flat)[0]
        assert log_p.item() == pytest.approx(slate.log_probabilities[agent], rel=1e-5)
    assert Sessions(bundle).open([past_of(bundle)], [5])[0].recommend().log_probabilities == {}


def test_what_is_not_there_cannot_be_clicked() -> None:
    engine = Sessions(Bundle.of(*small_team()))
    [session] = engine.open([past_of(engine.bundle)], [5])
    with pytest.raises(DataError, match="slate -1 was not shown; there are 0"):
        session.click(engine.bundle.ids[:1])
    slate = session.recommend()
    other = next(name for name in engine.bundle.ids if name not in {i.item for i in slate.items})
    with pytest.raises(DataError, match=rf"item '{other}' is not on slate 0"):
        session.click([other])
    session.close()
    with pytest.raises(DataError, match="the session was closed"):
        session.recommend()


def test_a_session_that_has_seen_everything_is_told() -> None:
    engine = Sessions(Bundle.of(*small_team()))
    [session] = engine.open([past_of(engine.bundle, engine.bundle.ids[:278])], [5])
    assert session.unseen == 22
    session.recommend()
    with pytest.raises(DataError, match="17 unseen items left, and a request needs 20"):
        session.recommend()
