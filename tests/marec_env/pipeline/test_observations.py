import pytest
import torch
from gymnasium import spaces

from marec_env.errors import ConfigError
from marec_env.pipeline.component import Component
from marec_env.pipeline.observations import FIELDS, SESSION_STATISTICS, FieldView


class Curious(Component):
    """Asks for the session's statistics and tries to read the user's group as well."""

    name = "curious"
    fields = ("session",)

    @property
    def action_space(self):
        return spaces.Discrete(2)

    def observe(self, view):
        return torch.cat([view["session"], view["group"]], dim=1)

    def act(self, request, action):
        pass

    def default_action(self):
        return torch.tensor(0)


def test_session_statistics_by_hand(pipeline):
    found = dict(
        zip(SESSION_STATISTICS, FIELDS.get("session")(pipeline.memory, {})[0].tolist(), strict=True)
    )
    assert found["request"] == 0.0
    assert found["history_length"] == pytest.approx(3 / 4)
    assert found["no_history"] == 0.0
    assert found["slow_rate"] == pytest.approx(2 * 0.15)
    assert found["largest_exposure"] == 0.0
    # Two likes in different topics: half of the largest entropy of four topics.
    assert found["interest_entropy"] == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("name", [n for n in FIELDS if n not in ("messages",)])
def test_every_field_is_one_finite_row_a_session(pipeline, make, name):
    pipeline.finish(pipeline.begin(make.keys()))
    value = FIELDS.get(name)(pipeline.memory, pipeline.summaries)
    assert value.shape[0] == 3
    assert value.ndim == 2
    assert value.dtype == torch.float32
    assert bool(torch.isfinite(value).all())


def test_a_field_that_is_not_granted_is_gone_from_the_observation(make):
    full = make.pipeline()
    limited = make.pipeline(data_access={"recall": ("session", "exposure")})
    seen = limited.observe("recall_0")
    assert torch.equal(
        seen,
        torch.cat([FIELDS.get(n)(limited.memory, {}) for n in ("session", "exposure")], dim=1),
    )
    assert full.observe("recall_0").shape[1] > seen.shape[1]
    assert torch.equal(limited.observe("ranking_0"), full.observe("ranking_0"))


def test_what_is_not_granted_cannot_influence_the_observation(make):
    pipeline = make.pipeline(data_access={"ranking": ("session",)})
    before = pipeline.observe("ranking_0").clone()
    pipeline.memory.group[:] = pipeline.memory.group.flip(1)
    pipeline.memory.block_use[:] = 1.0
    assert torch.equal(pipeline.observe("ranking_0"), before)


def test_a_component_that_reads_more_than_it_was_granted_is_stopped(make):
    pipeline = make.pipeline(components=("profile", f"{__name__}:Curious"))
    with pytest.raises(ConfigError, match="'curious' may not read the field 'group'"):
        pipeline.observe("curious_0")


def test_a_view_lists_only_what_is_granted(pipeline):
    view = FieldView("x", {"session": pipeline.fields()["session"]})
    assert list(view) == ["session"]
    assert "group" not in list(view)
    with pytest.raises(ConfigError, match=r"granted: session.*data_access"):
        view["group"]
    assert "session" in view
    assert "group" not in view
    assert view.get("group") is None
    assert view.get("session") is view["session"]


def test_what_is_seen_has_its_price_and_what_is_taken_away_has_none(make):
    prices = {"interest": 0.25, "channel_hits": 0.5}
    full = make.pipeline(data_prices=prices)
    seeing = [c for c in full.components if "interest" in c.fields]
    assert len(seeing) > 1

    def paid(pipeline):
        request = pipeline.begin(torch.arange(pipeline.num_sessions))
        pipeline.finish(request)
        again = pipeline.replay(request, {}, "recall_0")
        assert torch.equal(again.extra_cost, request.extra_cost)
        return request.extra_cost.tolist()

    every = 0.25 * len(seeing) + 0.5
    assert paid(full) == [every] * full.num_sessions
    limited = make.pipeline(data_prices=prices, data_access={"recall": ("session", "exposure")})
    assert paid(limited) == [every - 0.75] * full.num_sessions
    with pytest.raises(ConfigError, match=r"data_prices: observation field 'intrest' is unknown"):
        make.pipeline(data_prices={"intrest": 1.0})


def test_limits_that_make_no_sense_are_refused(make):
    with pytest.raises(ConfigError, match="grants 'sesion', which the component does not ask for"):
        make.pipeline(data_access={"recall": ("sesion",)})
    with pytest.raises(ConfigError, match="grants 'group', which the component does not ask for"):
        make.pipeline(data_access={"recall": ("session", "group")})
    with pytest.raises(ConfigError, match="grants none of the fields"):
        make.pipeline(data_access={"recall": ()})
    with pytest.raises(ConfigError, match="observation field 'sesion' is unknown"):
        make.pipeline(data_access={"trainer": ("sesion",)})  # of a component that is not there
    with pytest.raises(ConfigError, match=r"data_access.*'recal' is unknown"):
        make.pipeline(data_access={"recal": ("session",)})
