"""Ready-made tasks by name: users, a population, a slate size, a horizon and a reward.

Where the published code of a classic task has a defect, ``as_published=True`` reproduces it and the
default corrects it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from marec_env.catalog.population import Population
from marec_env.classic.config import LongTermSatisfactionConfig
from marec_env.classic.populations import (
    interest_evolution_population,
    interest_exploration_population,
    long_term_satisfaction_population,
    sardine_population,
    scenario_population,
    synthetic_population,
)
from marec_env.data.scenarios import SCENARIOS
from marec_env.registry import Registry
from marec_env.scenarios import SCENARIO_USERS
from marec_env.users.base import Users
from marec_env.users.config import (
    BehaviourConfig,
    ClickBoredomConfig,
    InfluenceDrift,
    IntentConfig,
    LogitChoice,
    NoBoredom,
    NoDrift,
    NoPatience,
    PositionExamination,
    UsersConfig,
)
from marec_env.users.registry import make_users

__all__ = ["PRESETS", "Preset", "get_preset"]


@dataclass(frozen=True, slots=True)
class Preset:
    """A task for a single recommender."""

    config: UsersConfig
    population: Callable[[int], Population]
    """From a seed."""
    slate_size: int
    horizon: int
    """Requests after which an episode is cut off."""
    reward: str = "click"
    """The behaviour whose sum over the slate is the request's reward; ``engagement``: that of the
    feedback."""
    candidates: int = 0
    """Items a request offers for the slate, drawn at random; 0: the whole catalog."""

    def users(
        self,
        num_sessions: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
        population: Population | None = None,
    ) -> Users:
        """Return the preset's users, of its own population unless another is given."""
        people = self.population(seed) if population is None else population
        return make_users(self.config, people, num_sessions, device)


PRESETS: Registry[Callable[[bool], Preset]] = Registry("user preset")


def get_preset(name: str, as_published: bool = False) -> Preset:
    """Return a preset.

    Args:
        name: one of ``PRESETS.names()``, or ``package.module:object`` of a function like theirs.
        as_published: whether to reproduce known defects of the published code.
    """
    return PRESETS.get(name)(as_published)


@PRESETS.register("marec")
def _marec(as_published: bool) -> Preset:
    del as_published  # nothing else has been published
    return Preset(UsersConfig(), synthetic_population, slate_size=10, horizon=40)


_STILL = IntentConfig(weight=0.0)
_STAYS = NoPatience()
_NO_BOREDOM = NoBoredom()

_Sardine = Literal["SingleItem", "SlateTopK", "SlateRerank"]


def _sardine(
    task: _Sardine, bored: bool, influence: bool, uncertain: bool
) -> Callable[[bool], Preset]:
    """Return one task of the SARDINE family (Deffayet et al. 2024)."""
    rerank = task == "SlateRerank"
    # Published constants: slope 100 and offset 0.65, but 10 where uncertain, 5 and 0.3 for rerank;
    # a topic bores from 5 clicks on, from 4 for rerank.
    slope, offset = (5.0, 0.3) if rerank else (10.0 if uncertain else 100.0, 0.65)
    size = 1 if task == "SingleItem" else 10

    def build(as_published: bool) -> Preset:
        config = UsersConfig(
            model="sardine/as_published" if as_published and influence else "marec",
            new_user_share=1.0,
            intent=_STILL,
            boredom=ClickBoredomConfig(
                kind="churn", susceptible_share=1.0, clicks=4 if rerank else 5
            )
            if bored
            else _NO_BOREDOM,
            examination=PositionExamination(decay=0.7 if rerank else 0.85),
            behaviours=BehaviourConfig(names=()),
            drift=InfluenceDrift() if influence else NoDrift(),
            patience=_STAYS,
        )

        def population(seed: int) -> Population:
            return sardine_population(
                seed, items=10 if rerank else 1000, slope=slope, offset=offset
            )

        return Preset(config, population, slate_size=size, horizon=10 if rerank else 100)

    return build


# The public code registers eight tasks; SlateTopK-Static is the ninth, the control without dynamics
# for the other slates. As in that code, an uncertain slate also bores and influences.
for _name, _task, _bored, _influence, _uncertain in (
    ("SingleItem-Static", "SingleItem", False, False, False),
    ("SingleItem-BoredInf", "SingleItem", True, True, False),
    ("SingleItem-Uncertain", "SingleItem", False, False, True),
    ("SlateTopK-Static", "SlateTopK", False, False, False),
    ("SlateTopK-Bored", "SlateTopK", True, False, False),
    ("SlateTopK-BoredInf", "SlateTopK", True, True, False),
    ("SlateTopK-Uncertain", "SlateTopK", True, True, True),
    ("SlateRerank-Static", "SlateRerank", False, False, False),
    ("SlateRerank-Bored", "SlateRerank", True, False, False),
):
    PRESETS.register(f"sardine/{_name}")(
        _sardine(_task, _bored, _influence, _uncertain)  # type: ignore[arg-type]
    )


@PRESETS.register("recsim/interest_evolution")
def _interest_evolution(as_published: bool) -> Preset:
    del as_published  # no defect is known
    config = UsersConfig(model="recsim/interest_evolution", new_user_share=1.0)
    return Preset(
        config,
        interest_evolution_population,
        slate_size=2,
        horizon=1000,
        reward="watch_time",
        candidates=10,
    )


@PRESETS.register("recsim/long_term_satisfaction")
def _long_term_satisfaction(as_published: bool) -> Preset:
    settings = {"sensitivity": 0.01} if as_published else {}
    config = UsersConfig(
        model="recsim/long_term_satisfaction", new_user_share=1.0, settings=settings
    )
    return Preset(
        config,
        long_term_satisfaction_population,
        slate_size=1,
        horizon=LongTermSatisfactionConfig().requests,
        reward="watch_time",
        candidates=10,
    )


@PRESETS.register("recsim/interest_exploration")
def _interest_exploration(as_published: bool) -> Preset:
    del as_published  # no defect is known
    config = UsersConfig(
        new_user_share=1.0,
        intent=_STILL,
        boredom=_NO_BOREDOM,
        examination=PositionExamination(decay=1.0),
        choice=LogitChoice(no_click=5.0),
        behaviours=BehaviourConfig(names=()),
        patience=_STAYS,
    )
    return Preset(config, interest_exploration_population, slate_size=2, horizon=100, candidates=10)


def _kuaisim(level: Literal["request", "session", "cross_session"]) -> Callable[[bool], Preset]:
    """Return one level of KuaiSim (Zhao et al. 2023), slates of 6 items."""

    def build(as_published: bool) -> Preset:
        settings: dict[str, str] = {"level": level}
        if as_published:
            settings |= {"probability": "double_sigmoid", "similarity": "mean_over_factors"}
        # An examined random item is clicked at 0.3, the order of magnitude of KuaiRand's random
        # exposures; the network behind the published response is not reproduced.
        config = UsersConfig(model="kuaisim", new_user_share=0.0, settings=settings)
        return Preset(
            config,
            lambda seed: synthetic_population(seed, scale=6.0, click_rate=0.3),
            slate_size=6,
            horizon=30 if level == "cross_session" else 20,
            reward="engagement",
        )

    return build


for _level in ("request", "session", "cross_session"):
    PRESETS.register(f"kuaisim/{_level}")(_kuaisim(_level))


def _scenario(name: str) -> Callable[[bool], Preset]:
    """Return the users of a generated scenario among its true items."""

    def build(as_published: bool) -> Preset:
        del as_published  # nothing has been published
        return Preset(
            UsersConfig.model_validate(SCENARIO_USERS[name]),
            lambda seed: scenario_population(name, seed),
            slate_size=SCENARIOS.get(name).slate_size,
            horizon=40,
        )

    return build


for _name in SCENARIO_USERS:
    PRESETS.register(f"scenario/{_name}")(_scenario(_name))
