"""Bad parameters are refused by name and range; no accepted configuration yields NaN."""

from __future__ import annotations

import dataclasses
from typing import get_args

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from marec_env import random
from marec_env.catalog.histories import Histories
from marec_env.classic.kuaisim import KuaiSimConfig
from marec_env.classic.long_term_satisfaction import LongTermSatisfactionConfig
from marec_env.classic.presets import get_preset
from marec_env.errors import ConfigError
from marec_env.users import UsersConfig, make_users
from marec_env.users import config as sections


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        (sections.PositionExamination, "alpha", 1.1),
        (sections.CascadeExamination, "decay", -0.1),
        (sections.BudgetPatience, "cost", -0.01),
        (sections.IntentConfig, "switch_probability", 2.0),
        (sections.ContinuousBoredom, "memory", 1.0),
        (sections.ThresholdBoredom, "weight", float("nan")),
        (sections.ReturnConfig, "sessions", 0),
        (sections.UsersConfig, "new_user_share", -1.0),
        (LongTermSatisfactionConfig, "sensitivity", -0.1),
    ],
)
def test_values_out_of_range_are_refused_by_name(section, field, value) -> None:
    with pytest.raises(ValidationError, match=field):
        section(**{field: value})


def test_contradictions_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"threshold \(0.5\) must lie below saturation"):
        sections.ThresholdBoredom(threshold=0.5)
    with pytest.raises(ValidationError, match="initial"):
        sections.BudgetPatience(initial=3.0)
    with pytest.raises(ValidationError, match="repeat"):
        sections.BehaviourConfig(names=("like", "like"))
    with pytest.raises(ValidationError, match=r"no_click \(-1.0\) must not lie below min_score"):
        sections.ProportionalChoice(no_click=-1.0, min_score=0.0)


def _pasts(users: int = 20, item: int = 3, end: int | None = None) -> Histories:
    """Pasts of eight items; ``end`` is put where all of them end."""
    items = torch.full((users, 8), item)
    found = Histories.of_rows(items, items >= 0)
    if end is None:
        return found
    return dataclasses.replace(found, end=torch.full((users,), end))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item_factors": torch.zeros(0, 6)}, "item_factors has shape"),
        ({"user_factors": torch.full((20, 6), float("nan"))}, "user_factors has 120 values"),
        ({"quality": torch.zeros(3)}, "quality has shape"),
        ({"scale": float("inf")}, "scale is inf"),
        ({"topics": torch.full((40,), 4)}, r"topics holds 4 \.\.\. 4; allowed: 0 \.\.\. 3"),
        ({"history": _pasts(item=40)}, r"history.item holds 40 \.\.\. 40; allowed: -1 \.\.\. 39"),
        ({"history": _pasts(users=3)}, "history.begin has shape"),
        ({"history": _pasts(end=161)}, r"history.end holds 161 \.\.\. 161; allowed: 0 \.\.\. 160"),
        ({"num_topics": 0}, "num_topics is 0"),
        (
            {"item_attributes": {"price": torch.full((40,), float("nan"))}},
            "item_attributes.price has 40 values",
        ),
        ({"user_attributes": {"risk_limit": torch.ones(3)}}, "risk_limit has shape"),
    ],
)
def test_damaged_populations_are_refused(population, change, message) -> None:
    with pytest.raises(ConfigError, match=message):
        make_users(UsersConfig(), dataclasses.replace(population, **change), 2)


def test_empty_batches_and_unknown_names_are_refused(population) -> None:
    with pytest.raises(ConfigError, match="num_sessions is 0"):
        make_users(UsersConfig(), population, 0)
    with pytest.raises(ConfigError, match="did you mean 'marec'"):
        make_users(UsersConfig(model="marek"), population, 2)
    with pytest.raises(ConfigError, match="did you mean 'sardine/SlateTopK-Bored'"):
        get_preset("sardine/SlateTopK-Bore")


def _field(info) -> st.SearchStrategy:
    """Any accepted value of a field, extremes included."""
    bounds = {}
    for part in info.metadata:
        for name in ("ge", "gt", "le", "lt"):
            if getattr(part, name, None) is not None:
                bounds[name] = getattr(part, name)
    if info.annotation is bool:
        return st.booleans()
    if get_args(info.annotation) and isinstance(get_args(info.annotation)[0], str):
        return st.sampled_from(get_args(info.annotation))
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    if info.annotation is int:
        return st.integers(low, min(high, 50))
    return st.floats(low, high, exclude_min="gt" in bounds, exclude_max="lt" in bounds, width=64)


def _section(model) -> st.SearchStrategy:
    fields = {
        name: _field(info)
        for name, info in model.model_fields.items()
        if name != "names" and info.default is not PydanticUndefined
    }

    def build(values):
        try:
            return model(**values)
        except ValidationError:  # a contradiction between two fields
            return model()

    return st.fixed_dictionaries(fields).map(build)


def _kinds(union) -> st.SearchStrategy:
    return st.one_of([_section(model) for model in get_args(union)])


def _users(**parts) -> UsersConfig:
    try:
        return UsersConfig(**parts)
    except ValidationError:  # tired of watching, but nothing is watched
        return UsersConfig(**{**parts, "tiredness": sections.TirednessConfig()})


SHOP = ("like", "cart", "purchase", "share", "holding_days", "holding_return")
MEDIA = ("completion", "watch_time", "conversion", "payment", "hide")
CONFIGS = st.builds(
    _users,
    relevance=_section(sections.RelevanceConfig),
    intent=_section(sections.IntentConfig),
    boredom=_kinds(sections.BoredomConfig),
    examination=_kinds(sections.ExaminationConfig),
    choice=_kinds(sections.ChoiceConfig),
    drift=_kinds(sections.DriftConfig),
    patience=_kinds(sections.PatienceConfig),
    satisfaction=_section(sections.SatisfactionConfig),
    returning=_section(sections.ReturnConfig),
    supply=_section(sections.SupplyConfig),
    price=_section(sections.PriceConfig),
    wear_out=_section(sections.WearOutConfig),
    tiredness=_section(sections.TirednessConfig),
    friends=_section(sections.FriendsConfig),
    behaviours=st.builds(
        lambda section, names: section.model_copy(update={"names": names}),
        _section(sections.BehaviourConfig),
        st.sampled_from(
            [(), ("hide",), ("like", "purchase", "watch_time", "hide"), SHOP, MEDIA, SHOP + MEDIA]
        ),
    ),
)
MODELS = {
    "marec": st.none(),
    "recsim/interest_evolution": st.none(),
    "recsim/long_term_satisfaction": _section(LongTermSatisfactionConfig),
    "kuaisim": _section(KuaiSimConfig),
}


@pytest.mark.parametrize("model", MODELS)
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(config=CONFIGS, data=st.data(), seed=st.integers(0, 1000))
def test_nothing_but_numbers_comes_out(population, model, config, data, seed) -> None:
    # As many factors as topics, so that every kind of boredom is allowed.
    population = dataclasses.replace(
        population,
        providers=torch.arange(40) % 7,
        user_factors=population.user_factors[:, :4],
        item_factors=population.item_factors[:, :4],
        item_attributes={
            "price": torch.arange(40.0),
            "length_minutes": torch.arange(40.0),
            "bid": torch.arange(40.0),
            "risk": 1.0 + torch.arange(40) % 7,
        },
        user_attributes={"risk_limit": torch.full((population.num_users,), 4.0)},
    )
    own = data.draw(MODELS[model])
    settings = own.model_dump() if own else {}
    config = config.model_copy(update={"model": model, "settings": settings})
    users = make_users(config, population, 3)
    keys = random.session_keys(seed, torch.arange(3))
    users.reset(keys)
    for step in range(6):
        slate = random.integers(keys, step, "test/slate", 4, 40)
        assert torch.isfinite(users.click_probability()).all()
        feedback = users.respond(slate)
        for name, value in feedback.behaviours.items():
            assert torch.isfinite(value).all(), name
        for name, value in feedback.outcomes.items():
            assert torch.isfinite(value).all(), name
        for value in (feedback.engagement, feedback.satisfaction):
            assert ((value >= 0) & (value <= 1)).all()
        assert torch.isfinite(users.hidden_state()).all()
        chances = users.click_probability(slate)
        assert ((chances >= 0) & (chances <= 1)).all()
        users.reset(keys + step, feedback.left)
