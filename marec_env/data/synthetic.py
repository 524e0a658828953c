"""The engine of the generated logs.

Day by day, users visit; a logging platform that favours popular and roughly fitting items shows
slates; the scenario's users answer. Order of time is respected, so that what friends did, what was
bought and how often an advertisement was seen can act on what follows. The platform draws a slate
without replacement from a softmax of its scores (Plackett-Luce, by Gumbel top-k), and each
impression keeps the probability with which it was chosen: its propensity.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

import torch
from torch import Tensor

from marec_env import random
from marec_env.data.config import DataConfig, SyntheticConfig
from marec_env.data.interactions import Impressions, InteractionLog, make_log
from marec_env.data.readers import item_text
from marec_env.data.scenarios import SCENARIOS, Scenario
from marec_env.data.scenarios.base import LoggedRequest
from marec_env.data.scenarios.world import GeneratedWorld, make_world
from marec_env.errors import ConfigError, unknown_name
from marec_env.memory import require_memory

_VERSION = 1  # raised when the same configuration generates another log
_START = 1_735_689_600  # 2025-01-01, seconds: day 0
_DAY = 86_400
_FIRST_HOUR, _LAST_HOUR = 7, 23  # visits begin in waking hours
_REQUEST_SECONDS = 40  # between two slates of a visit
_MAX_REQUESTS = 12
_LEAVE = 0.25  # probability of leaving after a slate without clicks: four slates on average
_STAY_GAIN = 0.1  # less of it per click, down to _LEAVE_FLOOR
_LEAVE_FLOOR = 0.05
_EXAMINATION = 0.85  # position k is looked at with probability .85^k
_PLATFORM_POPULARITY = 1.0  # weights of the logging platform's scores
_PLATFORM_TASTE = 2.0
_CALIBRATION_SLATES = 2_000  # slates used to set the intercept
_REQUESTS = 4.0  # slates of a visit on average, for the estimate of memory
_SCORE_BYTES, _SHOWN_BYTES = 40, 120  # a user-item score and its draws; a shown item, twice
_PERSON_BYTES, _ITEM_BYTES = 400, 3_000  # a user; an item with its texts
_BISECTIONS = 50
_LOGIT_BOUND = 30.0
_GROUPS = ("occasional", "regular")
_REGULAR = 0.5


Blocks = list[dict[str, Tensor]]
"""Columns of rows, a part at a time."""


def _column(blocks: Blocks, name: str) -> Tensor:
    return torch.cat([block[name].flatten() for block in blocks])


class _Engine:
    def __init__(self, world: GeneratedWorld, scenario: Scenario, config: SyntheticConfig) -> None:
        self.world, self.scenario, self.config = world, scenario, config
        size = min(scenario.slate_size, world.num_items)
        self.examination = _EXAMINATION ** torch.arange(size, dtype=torch.float32)
        self.size = size
        # Half of the users come twice as often as the others.
        draws = random.uniform(world.user_keys, 0, "synthetic/activity", 1).squeeze(1)
        self.regular = draws < _REGULAR
        visits = config.sessions_per_user / config.days
        self.visit = torch.where(self.regular, 4.0 / 3.0, 2.0 / 3.0) * visits
        self.visit.clamp_max_(1.0)
        self.intercept = 0.0
        self.own_visits: Blocks = []

    def platform(self, users: Tensor, day: int, keys: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Return slates ``[a, K]`` and their propensities."""
        world, scenario = self.world, self.scenario
        score = _PLATFORM_POPULARITY * world.log_popularity + _PLATFORM_TASTE * (
            world.user_taste[users] @ world.item_taste.T
        )
        bonus = scenario.ranking_bonus(users)
        if bonus is not None:
            score = score + bonus
        closed = (world.first_day > day).expand_as(score)
        allowed = scenario.eligible(users)
        if allowed is not None:
            closed = closed | ~allowed
        score = score.masked_fill(closed, -math.inf)
        noise = random.gumbel(keys, index, "synthetic/slate", world.num_items)
        slate = torch.topk(score + noise, self.size, dim=1).indices
        chosen = torch.gather(score, 1, slate).to(torch.float64).exp()
        # What is left of the softmax's mass at each place, after the places above it.
        mass = score.to(torch.float64).exp().sum(1, keepdim=True)
        left = mass - (torch.cumsum(chosen, 1) - chosen)
        return slate, (chosen / left).clamp(max=1.0).to(torch.float32)

    def logits(self, users: Tensor, slate: Tensor) -> Tensor:
        world = self.world
        fit = torch.einsum("ad,akd->ak", world.user_taste[users], world.item_taste[slate])
        base = self.scenario.relevance * fit + world.quality[slate] + self.intercept
        return base + self.scenario.click_bonus(users, slate)

    def calibrate(self) -> None:
        """Set the intercept so that the first slates are clicked at the scenario's rate."""
        users = torch.arange(_CALIBRATION_SLATES) % self.world.num_users
        keys = random.session_keys(self.config.seed, torch.arange(_CALIBRATION_SLATES))
        slate, _ = self.platform(users, self.config.days // 2, keys, 0)
        logits = self.logits(users, slate).to(torch.float64)
        low, high = -_LOGIT_BOUND, _LOGIT_BOUND
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            rate = (torch.sigmoid(logits + middle) * self.examination).mean()
            low, high = (middle, high) if rate < self.scenario.click_rate else (low, middle)
        self.intercept = (low + high) / 2
        logits = logits + self.intercept
        clicks = torch.sigmoid(logits) * self.examination
        self.scenario.calibrate(logits.flatten(), clicks.flatten())

    def visits(self, day: int, record: Blocks) -> None:
        """Let a day's users come, look, answer and leave."""
        keys = random.session_keys(
            self.config.seed, torch.arange(self.world.num_users) * self.config.days + day
        )
        chance = random.uniform(keys, 0, "synthetic/visit", 2)
        users = torch.nonzero(chance[:, 0] < self.visit).squeeze(1)
        hour = _FIRST_HOUR + (_LAST_HOUR - _FIRST_HOUR) * chance[:, 1].to(torch.float64)
        begin = _START + day * _DAY + (hour * 3600).to(torch.int64)
        own = self.scenario.own_visits(users, keys[users])
        if own is not None:
            time = (begin[users] - _REQUEST_SECONDS)[:, None].expand_as(own)
            self.own_visits.append(
                {"user": users[:, None].expand_as(own), "item": own, "time": time}
            )
        for index in range(_MAX_REQUESTS):
            if users.numel() == 0:
                return
            key = keys[users]
            slate, propensity = self.platform(users, day, key, index)
            logit = self.logits(users, slate)
            chance = random.uniform(key, index, "synthetic/click", self.size)
            click = (chance < torch.sigmoid(logit) * self.examination).to(torch.float32)
            request = LoggedRequest(users, slate, click, logit, key, index, day)
            behaviours = self.scenario.respond(request)
            block = {
                "user": users[:, None].expand_as(slate),
                "item": slate,
                "time": (begin[users] + index * _REQUEST_SECONDS)[:, None].expand_as(slate),
                "position": torch.arange(self.size).expand_as(slate),
                "propensity": propensity,
                "click": click,
            }
            record.append(block | behaviours)
            leave = (_LEAVE - _STAY_GAIN * click.sum(1)).clamp_min(_LEAVE_FLOOR)
            stay = random.uniform(key, index, "synthetic/leave", 1).squeeze(1) >= leave
            users = users[stay]


def _check_memory(config: SyntheticConfig, slate_size: int) -> None:
    users, items, visits = config.num_users, config.num_items, config.sessions_per_user
    together = max(_CALIBRATION_SLATES, min(1.0, 4 / 3 * visits / config.days) * users)
    slates = min(visits * _REQUESTS, config.days * _MAX_REQUESTS) * users
    require_memory(
        f"data.synthetic: a log of {users:,} users and {items:,} items",
        _SCORE_BYTES * together * items
        + _SHOWN_BYTES * slates * slate_size
        + _PERSON_BYTES * users
        + _ITEM_BYTES * items,
        "lower num_users, num_items or sessions_per_user",
    )


def generate(
    name: str, config: SyntheticConfig, like_threshold: float
) -> tuple[InteractionLog, GeneratedWorld]:
    """Generate a scenario's log, and the truth behind it.

    Raises:
        ConfigError: the scenario is unknown, or the log too large for memory.
        DataError: so few users, items or days that nobody clicked.
    """
    if name not in SCENARIOS:
        raise ConfigError("data.source: " + unknown_name("scenario", name, SCENARIOS))
    kind = SCENARIOS.get(name)
    _check_memory(config, kind.slate_size)
    world = make_world(kind.vocabulary, config)
    scenario = kind(world, config)
    engine = _Engine(world, scenario, config)
    engine.calibrate()
    record: Blocks = []
    for day in range(config.days):
        scenario.begin_day(day)
        engine.visits(day, record)
    return _to_log(name, engine, record, like_threshold), world


def _to_log(name: str, engine: _Engine, record: Blocks, threshold: float) -> InteractionLog:
    world, scenario, config = engine.world, engine.scenario, engine.config
    names = ("click", *scenario.behaviours)
    behaviours = scenario.finish({key: _column(record, key) for key in names})
    user, item, time = (_column(record, key) for key in ("user", "item", "time"))
    clicked = behaviours["click"] > 0
    of_clicks = {key: values[clicked] for key, values in behaviours.items()}
    rows = {"user": user[clicked], "item": item[clicked], "time": time[clicked]}
    if engine.own_visits:  # they come without a slate: no click, nothing that follows one
        own = {key: _column(engine.own_visits, key) for key in rows}
        rows = {key: torch.cat([values, own[key]]) for key, values in rows.items()}
        nothing = torch.zeros(own["user"].shape[0])
        of_clicks = {key: torch.cat([values, nothing]) for key, values in of_clicks.items()}
    genres = tuple((scenario.vocabulary.categories[c].name,) for c in world.category.tolist())
    parameters = f"synthetic/{name} version {_VERSION} {config.model_dump_json()}"
    fingerprint = hashlib.sha256(parameters.encode()).hexdigest()
    return make_log(
        user=rows["user"],
        item=rows["item"],
        rating=scenario.rating(of_clicks),
        time=rows["time"],
        user_ids=tuple(f"u{index}" for index in range(world.num_users)),
        item_ids=tuple(f"i{index}" for index in range(world.num_items)),
        titles=world.titles,
        texts=tuple(
            item_text(*parts)
            for parts in zip(world.titles, genres, world.descriptions, strict=True)
        ),
        genres=genres,
        year=torch.full((world.num_items,), -1, dtype=torch.int64),
        like_threshold=threshold,
        group=engine.regular.to(torch.int64),
        group_names=_GROUPS,
        fingerprint=fingerprint,
        sources={f"synthetic/{name}": fingerprint},
        behaviours=of_clicks,
        item_attributes=scenario.item_attributes,
        provider=world.provider,
        user_attributes=scenario.user_attributes,
        impressions=Impressions(
            user=user,
            item=item,
            time=time,
            position=_column(record, "position"),
            propensity=_column(record, "propensity"),
            behaviours=behaviours,
        ),
    )


def generate_log(config: DataConfig) -> InteractionLog:
    """Return the log of ``synthetic/<scenario>``, which is generated once for all worlds of this
    process; errors as in :func:`generate`.
    """
    name = config.source.partition("/")[2]
    return _generated(name, config.synthetic.model_dump_json(), config.like_threshold)


@lru_cache(maxsize=8)
def _generated(name: str, serialised: str, like_threshold: float) -> InteractionLog:
    config = SyntheticConfig.model_validate_json(serialised)
    return generate(name, config, like_threshold)[0]
