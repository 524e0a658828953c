"""Each module against values worked out by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from marec_env import random
from marec_env.errors import ConfigError
from marec_env.users.base import INTENT_PICK, INTENT_SWITCH, LEAVE, RETURN, Shown
from marec_env.users.behaviours import Behaviours
from marec_env.users.config import (
    AmplificationDrift,
    BehaviourConfig,
    BudgetPatience,
    CascadeChoice,
    CascadeExamination,
    ClickBoredomConfig,
    ContinuousBoredom,
    DriftConfig,
    HazardPatience,
    IndependentChoice,
    InfluenceDrift,
    IntentConfig,
    LogitChoice,
    PositionExamination,
    ProportionalChoice,
    ReturnConfig,
    ThresholdBoredom,
    UsersConfig,
    WalkDrift,
)
from marec_env.users.dynamics import ClickBoredom, Drift, Returning, geometric_days
from marec_env.users.modules import Choice, Examination, ExposureBoredom, Intent, Patience
from marec_env.vector import Rows
from tests.marec_env.users.conftest import shown_items, small_population

CPU = torch.device("cpu")
MANY = 40_000


def _uniform(lanes: int, stream: str = "test") -> torch.Tensor:
    return random.uniform(random.session_keys(3, torch.arange(MANY)), 0, stream, lanes)


def test_position_examination() -> None:
    found = Examination(PositionExamination(alpha=0.8, decay=0.5), CPU).probability(3)
    assert torch.allclose(found, torch.tensor([0.8, 0.4, 0.2]))


def test_mixed_examination_is_symmetric() -> None:
    found = Examination(PositionExamination(kind="mixed", decay=0.5), CPU).probability(3)
    assert torch.allclose(found, torch.tensor([0.625, 0.5, 0.625]))


def test_cascade_reaches_a_prefix_at_the_stated_rates() -> None:
    examination = Examination(CascadeExamination(decay=0.6), CPU)
    reached = examination.draw(4, _uniform(1))
    assert (reached.diff(dim=1) <= 0).all()
    assert torch.allclose(reached.mean(0), 0.6 ** torch.arange(4.0), atol=0.01)


def test_cascade_stops_after_a_click_at_the_stated_rate() -> None:
    examination = Examination(CascadeExamination(stop_after_click=0.25), CPU)
    left = examination.stop(torch.ones(MANY, 4), _uniform(1))
    assert torch.allclose(left.mean(0), 0.75 ** torch.arange(4.0), atol=0.01)


LOGITS = torch.tensor([[0.0, 1.0, -1.0]])
SEEN = torch.tensor([1.0, 0.5, 0.25])


def _chances(kind: str) -> tuple[Choice, list[float]]:
    e = math.e
    if kind == "independent":
        return Choice(IndependentChoice()), [0.5, 0.5 / (1 + 1 / e), 0.25 / (1 + e)]
    if kind == "multinomial_logit":
        total = 1 + 0.5 * e + 0.25 / e + math.exp(0.5)
        config = LogitChoice(no_click=0.5)
        return Choice(config), [1 / total, 0.5 * e / total, 0.25 / e / total]
    if kind == "proportional":  # weights 2, 3, 1 times what is seen; no click 1 + 2
        total = 2 + 1.5 + 0.25 + 3
        config = ProportionalChoice(min_score=-2.0, no_click=1.0)
        return Choice(config), [2 / total, 1.5 / total, 0.25 / total]
    first, second, third = 0.2, 0.5 * 0.2 * e, 0.25 * 0.2 / e
    config = CascadeChoice(score_scaling=0.2)
    chances = [first, (1 - first) * second, (1 - first) * (1 - second) * third]
    return Choice(config), chances


@pytest.mark.parametrize(
    "kind", ["independent", "multinomial_logit", "proportional", "exponential_cascade"]
)
def test_choice_probabilities_and_frequencies(kind: str) -> None:
    choice, expected = _chances(kind)
    assert torch.allclose(choice.probability(LOGITS, SEEN), torch.tensor([expected]))
    clicks = choice.clicks(LOGITS.expand(MANY, 3), SEEN, _uniform(3), _uniform(1, "one"))
    assert torch.allclose(clicks.mean(0), torch.tensor(expected), atol=0.01)
    if kind != "independent":
        assert clicks.sum(1).max() == 1


def test_one_item_alone_is_a_slate_of_one() -> None:
    for kind in ("independent", "multinomial_logit", "proportional", "exponential_cascade"):
        choice, _ = _chances(kind)
        alone = choice.alone(LOGITS.T)
        assert torch.allclose(alone, choice.probability(LOGITS.T, torch.ones(1)))


def test_behaviours_follow_clicks_at_the_stated_rates(population) -> None:
    names = ("like", "purchase", "watch_time", "hide")
    config = BehaviourConfig(names=names, purchase_offset=1.0, hide_offset=-1.0)
    module = Behaviours(config, population)
    clicks = torch.tensor([[1.0, 0.0]]).expand(MANY, 2)
    logits = torch.tensor([[1.0, 1.0]]).expand(MANY, 2)
    shown = shown_items(torch.zeros(MANY, 2, dtype=torch.int64))
    shown.logits = logits
    found = module.respond(clicks, shown, _uniform(8))
    assert list(found) == ["click", *names]
    means = {name: value.mean(0) for name, value in found.items()}
    assert torch.allclose(means["like"], torch.tensor([0.731, 0.0]), atol=0.01)
    assert torch.allclose(means["purchase"], torch.tensor([0.5, 0.0]), atol=0.01)
    assert torch.allclose(means["watch_time"], torch.tensor([7.31, 0.0]), atol=0.15)
    assert torch.allclose(means["hide"], torch.tensor([0.0, 0.5]), atol=0.01)


def _exposure(config: ContinuousBoredom, topics: int) -> ExposureBoredom:
    people = small_population(topics=topics)
    return ExposureBoredom(UsersConfig(boredom=config), people, 1)


def _show(boredom: ExposureBoredom, *topics: int) -> None:
    boredom.update(shown_items(torch.tensor([topics])))


def test_exposure_boredom_builds_up_and_recovers() -> None:
    boredom = _exposure(ThresholdBoredom(memory=0.75, threshold=0.1, saturation=0.3), 4)
    _show(boredom, 0, 0, 1, 2)  # shares 1/2, 1/4, 1/4, 0
    assert torch.allclose(boredom.exposure, torch.tensor([[0.125, 0.0625, 0.0625, 0.0]]))
    assert torch.allclose(boredom.level(), torch.tensor([[0.125, 0.0, 0.0, 0.0]]))
    _show(boredom, 0, 0, 0, 0)
    assert torch.allclose(boredom.exposure[0, 0], torch.tensor(0.34375))
    assert boredom.level(torch.tensor([[0, 3]])).tolist() == [[1.0, 0.0]]
    asked = shown_items(torch.tensor([[0, 3]]), susceptibility=torch.tensor([9.0]))
    assert boredom.adjust(torch.ones(1, 2), asked).tolist() == [[-8.0, 1.0]]
    boredom.come_back(Rows(torch.tensor([True])), torch.tensor([2.0]), asked)
    assert torch.allclose(boredom.exposure[0, 0], torch.tensor(0.34375 * 0.5625))


def test_room_is_the_largest_number_that_does_not_bore() -> None:
    config = ThresholdBoredom(memory=0.75, threshold=0.12, saturation=0.3)
    boredom = _exposure(config, 2)
    _show(boredom, *[0] * 2, *[1] * 8)
    room = int(boredom.room(10, torch.tensor([1]))[0, 0])
    for count, bored in ((room, False), (room + 1, True)):
        other = _exposure(config, 2)
        other.exposure.copy_(boredom.exposure)
        _show(other, *[0] * count, *[1] * (10 - count))
        assert bool(other.level()[0, 0] > 1e-5) is bored


def test_continuous_boredom_has_no_threshold() -> None:
    boredom = _exposure(ContinuousBoredom(memory=0.5, saturation=0.5), 2)
    _show(boredom, 0, 1, 1, 1)
    assert torch.allclose(boredom.level(), torch.tensor([[0.25, 0.75]]))


def _fatigue(kind: str, size: int = 3, **values: int) -> ClickBoredom:
    config = ClickBoredomConfig(kind=kind, **values)  # type: ignore[arg-type]
    return ClickBoredom(UsersConfig(boredom=config), small_population(size=size, topics=3), 1)


def test_click_boredom_begins_lasts_and_ends() -> None:
    fatigue = _fatigue("loss_of_interest", clicks=2, duration=3, window=2)
    remaining = []
    for step, topics in enumerate([[0, 1], [0, 1], [2, 2], [2, 2], [2, 2], [2, 2]]):
        clicks = torch.tensor([[1.0, 0.0]]) if step < 2 else torch.zeros(1, 2)
        fatigue.update(shown_items(torch.tensor([topics]), clicks, step=step))
        remaining.append(fatigue.remaining[0].tolist())
    assert [row[0] for row in remaining] == [0, 3, 2, 1, 0, 0]
    assert all(row[1:] == [0, 0] for row in remaining)


def test_only_the_last_clicks_count() -> None:
    fatigue = _fatigue("churn", clicks=3, max_clicks=4, window=5)
    fatigue.update(shown_items(torch.tensor([[0, 0, 1]]), torch.ones(1, 3)))
    assert fatigue.recent(torch.tensor([0])).tolist() == [[2, 1, 0]]
    fatigue.update(shown_items(torch.tensor([[1, 1, 2]]), torch.ones(1, 3), step=1))
    assert fatigue.recent(torch.tensor([1])).tolist() == [[0, 3, 1]]
    assert (fatigue.remaining[0] > 0).tolist() == [False, True, False]


def test_who_is_not_susceptible_never_tires_of_clicks() -> None:
    fatigue = _fatigue("churn", clicks=1)
    slate, clicks = torch.tensor([[0, 0, 1]]), torch.ones(1, 3)
    fatigue.update(shown_items(slate, clicks, susceptibility=torch.zeros(1)))
    assert fatigue.remaining.sum() == 0


def test_click_boredom_gates_the_interest() -> None:
    interest = torch.tensor([[1.0, 2.0, 3.0]])
    for kind, expected in (("loss_of_interest", [1.0, 0.0, 3.0]), ("churn", [0.0, 0.0, 0.0])):
        fatigue = _fatigue(kind)
        assert fatigue.interest(interest, Rows()).tolist() == [[1.0, 2.0, 3.0]]
        fatigue.remaining[0, 1] = 2
        assert fatigue.interest(interest, Rows()).tolist() == [expected]


def test_loss_of_interest_needs_topics_as_axes() -> None:
    with pytest.raises(ConfigError, match=r"one factor a topic.*6 factors and 3 topics"):
        _fatigue("loss_of_interest", size=6)


def _moved(
    config: DriftConfig, factors: torch.Tensor, taste: torch.Tensor, clicks: torch.Tensor
) -> torch.Tensor:
    people = dataclasses.replace(small_population(), item_factors=factors)
    slate = torch.arange(clicks.shape[1]).expand(len(taste), -1)
    keys = random.session_keys(1, torch.arange(len(taste)))
    shown = shown_items(slate, clicks, keys=keys, taste=taste.clone())
    Drift(UsersConfig(drift=config), people, len(taste)).update(shown)
    assert shown.changed is not None
    return shown.taste


def _drift(config: DriftConfig, taste: list[float], clicks: list[float]) -> torch.Tensor:
    return _moved(config, torch.eye(2), torch.tensor([taste]), torch.tensor([clicks]))


def test_influence_moves_towards_what_was_clicked() -> None:
    config = InfluenceDrift(inertia=0.9)
    moved = _drift(config, [1.0, 0.0], [0.0, 1.0])
    assert torch.allclose(moved, torch.tensor([[0.9, 0.1]]) / math.hypot(0.9, 0.1))
    assert _drift(config, [1.0, 0.0], [0.0, 0.0]).tolist() == [[1.0, 0.0]]


def test_amplification_strengthens_what_is_liked() -> None:
    config = AmplificationDrift(gain=0.5)
    moved = _drift(config, [0.6, 0.8], [0.0, 1.0])
    assert torch.allclose(moved, torch.tensor([[0.6, 1.2]]) / math.hypot(0.6, 1.2))


def test_random_walk_steps_have_the_stated_length() -> None:
    taste = torch.nn.functional.normalize(torch.ones(MANY, 50), dim=1)
    moved = _moved(WalkDrift(step=0.02), torch.ones(1, 50), taste, torch.zeros(MANY, 1))
    assert torch.allclose(moved.norm(dim=1), torch.ones(MANY), atol=1e-5)
    assert abs((moved - taste).norm(dim=1).mean() - 0.02) < 0.0005


def test_intent_mixes_and_switches_at_the_stated_rate(population) -> None:
    config = IntentConfig(weight=0.4, switch_probability=0.1)
    intent = Intent(UsersConfig(intent=config), population, MANY)
    users = torch.arange(MANY) % 20
    intent.reset(Rows(), users, users, _uniform(1).squeeze(1))
    past, liked = population.history.of(users)
    liked &= past >= 0
    known = liked.any(1)
    among = ((past == intent.item.unsqueeze(1)) & liked).any(1)
    assert torch.equal(among, known)
    taste = population.user_factors[users]
    mixed = 0.6 * taste + 0.4 * population.item_factors[intent.item]
    expected = mixed / mixed.norm(dim=1, keepdim=True)
    assert torch.allclose(intent.interest(taste, Rows()), expected, atol=1e-6)
    draws = {
        INTENT_SWITCH: _uniform(1, "switch").squeeze(1), INTENT_PICK: _uniform(1, "new").squeeze(1)
    }  # fmt: skip
    shown = shown_items(torch.zeros(MANY, 1, dtype=torch.int64), users=users, draws=draws)
    before = intent.item.clone()
    intent.update(shown)
    rows = shown.changed.index
    assert abs(len(rows) / MANY - 0.1) < 0.006
    still = torch.ones(MANY, dtype=torch.bool)
    still[rows] = False
    assert torch.equal(intent.item[still], before[still])


def _leave(patience: Patience, engagement: torch.Tensor, draw: torch.Tensor) -> torch.Tensor:
    slate = torch.zeros(len(engagement), 1, dtype=torch.int64)
    shown = shown_items(slate, engagement=engagement, draws={LEAVE: draw})
    patience.update(shown)
    return shown.left


def test_patience_budget(population) -> None:
    config = BudgetPatience(initial=0.1, maximum=0.2, gain=0.5, cost=0.05)
    patience = Patience(UsersConfig(patience=config), population, 3)
    engagement, draw = torch.tensor([0.0, 0.1, 1.0]), torch.zeros(3)
    assert _leave(patience, engagement, draw).tolist() == [False, False, False]
    assert torch.allclose(patience.left, torch.tensor([0.05, 0.1, 0.2]))
    patience.left[0] = 0.05
    assert _leave(patience, torch.zeros(3), draw).tolist() == [True, False, False]


def test_patience_hazard_falls_with_patience(population) -> None:
    config = HazardPatience(hazard=0.5, hazard_slope=2.0, cost=0.0, gain=0.0)
    patience = Patience(UsersConfig(patience=config), population, MANY)
    left = _leave(patience, torch.zeros(MANY), _uniform(1).squeeze(1))
    assert abs(left.float().mean() - 0.5 * math.exp(-2.0)) < 0.005


def test_geometric_days() -> None:
    draw = _uniform(1).squeeze(1)
    days = geometric_days(torch.full((MANY,), 0.25), draw)
    assert abs(days.mean() - 4.0) < 0.1
    assert abs((days == 1).float().mean() - 0.25) < 0.01
    edge = geometric_days(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.5]))
    assert edge.tolist() == [math.inf, 1.0]


def _returning(batch: int, **values: float) -> Returning:
    config = UsersConfig(returning=ReturnConfig(**values))
    return Returning(config, small_population(), batch)


def _end(returning: Returning, ended: torch.Tensor, satisfaction: torch.Tensor) -> Shown:
    slate = torch.zeros(len(ended), 1, dtype=torch.int64)
    shown = shown_items(slate, satisfaction=satisfaction, draws={RETURN: 0.5})
    shown.left = ended
    returning.update(shown)
    return shown


def test_returning_counts_sessions_and_ends_the_episode() -> None:
    returning = _returning(1, sessions=2, requests=2, bias=1.0, slope=0.0)
    trace = []
    for _ in range(4):
        shown = _end(returning, torch.tensor([False]), torch.tensor([0.5]))
        trace.append((bool(shown.left), float(shown.gap)))
    assert trace == [(False, 0.0), (False, 1.0), (False, 0.0), (True, 0.0)]


def test_lost_trust_ends_the_episode() -> None:
    returning = _returning(
        2, sessions=9, bias=1.0, trust_initial=1.0, trust_cost=0.6, trust_break_even=0.5
    )
    ended, satisfied = torch.tensor([True, True]), torch.tensor([0.0, 0.5])
    assert _end(returning, ended, satisfied).left.tolist() == [False, False]
    assert torch.allclose(returning.trust, torch.tensor([0.4, 1.0]))
    assert _end(returning, ended, satisfied).left.tolist() == [True, False]


def test_who_always_stops_at_a_click_clicks_once() -> None:
    examination = Examination(CascadeExamination(stop_after_click=1.0), CPU)
    clicks = torch.tensor([[0.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    found = examination.stop(clicks, torch.tensor([[0.999], [0.5], [0.001]]))
    assert found.tolist() == [[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0] * 4]
