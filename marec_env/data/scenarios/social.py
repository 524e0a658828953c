"""Social: likes, shares, friends' influence.

Friends are alike: everybody befriends the nearest in taste among a random few, the rest are chance
(homophily: McPherson, Smith-Lovin and Cook 2001). A post that friends liked or shared in the last
days is shown more and clicked more: + 0.8 log(1 + friends). Sharing is concentrated on few people
(the 90-9-1 rule, Nielsen 2006): users' readiness has a log-normal spread. The rates are
assumptions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env import random
from marec_env.data.config import SyntheticConfig
from marec_env.data.scenarios.base import SCENARIOS, LoggedRequest, Scenario
from marec_env.data.scenarios.numbers import (
    FOLLOW_SLOPE,
    FRIENDS_BY_CHANCE,
    FRIENDS_INFLUENCE,
    FRIENDS_NEAR,
    LIKE_RATE,
    PEOPLE_MET,
    READINESS_SPREAD,
    SHARE_RATE,
)
from marec_env.data.scenarios.world import GeneratedWorld, read_vocabulary

__all__ = ["Social"]

_FADING = 0.7  # of an endorsement's weight is left after a day
_SHARE_WEIGHT = 2.0  # endorsements that a share is worth


@SCENARIOS.register("social")
class Social(Scenario):
    """See the module."""

    vocabulary = read_vocabulary("social")
    behaviours = ("like", "share")
    click_rate = 0.15  # an assumption

    def __init__(self, world: GeneratedWorld, config: SyntheticConfig) -> None:
        """Make friends."""
        super().__init__(world, config)
        # Shifted so that the mean rate stays what it is without the spread (log-normal mean).
        readiness = READINESS_SPREAD * world.user_draws("synthetic/readiness").squeeze(1)
        self.readiness = readiness - FOLLOW_SLOPE * READINESS_SPREAD**2 / 2.0
        self.friends = _befriend(world)
        self.endorsed = torch.zeros(world.num_users, world.num_items)

    def user_attributes(self) -> dict[str, Tensor]:
        """``friends``, how many."""
        return {"friends": self.friends.sum(1)}

    def begin_day(self, day: int) -> None:
        """Endorsements fade."""
        self.endorsed *= _FADING

    def _influence(self, users: Tensor) -> Tensor:
        return FRIENDS_INFLUENCE * torch.log1p(self.friends[users] @ self.endorsed)

    def ranking_bonus(self, users: Tensor) -> Tensor:
        """The feed favours what friends endorsed."""
        return self._influence(users)

    def click_bonus(self, users: Tensor, slate: Tensor) -> Tensor:
        """So do the users."""
        return torch.gather(self._influence(users), 1, slate)

    def respond(self, request: LoggedRequest) -> dict[str, Tensor]:
        """Like and share."""
        ready = request.logit + self.readiness[request.users, None]
        events = {}
        for name, rate, weight in (
            ("like", LIKE_RATE, 1.0),
            ("share", SHARE_RATE, _SHARE_WEIGHT),
        ):
            happens = request.happens(self.follows(rate, ready), f"synthetic/{name}")
            events[name] = request.click * happens
            # Users are distinct and slates hold an item once: no place is written twice.
            self.endorsed[request.users[:, None], request.slate] += weight * events[name]
        return events

    def rating(self, behaviours: dict[str, Tensor]) -> Tensor:
        """An opened post is 3, a liked one 4, a shared one 5."""
        return torch.where(behaviours["share"] > 0, 5.0, 3.0 + behaviours["like"])


def _befriend(world: GeneratedWorld) -> Tensor:
    """Return the symmetric friendship matrix, float32 ``[U, U]``, 0 or 1."""
    users = world.num_users
    pool = random.integers(world.user_keys, 0, "synthetic/pool", min(PEOPLE_MET, users), users)
    likeness = torch.einsum("ud,upd->up", world.user_taste, world.user_taste[pool])
    likeness = likeness.masked_fill(pool == torch.arange(users)[:, None], -2.0)  # not oneself
    near = torch.gather(pool, 1, likeness.topk(min(FRIENDS_NEAR, pool.shape[1]), dim=1).indices)
    chance = random.integers(
        world.user_keys, 0, "synthetic/chance_friend", FRIENDS_BY_CHANCE, users
    )
    matrix = torch.zeros(users, users)
    matrix.scatter_(1, torch.cat([near, chance], dim=1), 1.0)
    matrix = torch.maximum(matrix, matrix.T)
    return matrix.fill_diagonal_(0.0)
