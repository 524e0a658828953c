"""The scenarios, by what each adds to the engine.

Numbers that simulated users share are in ``numbers``, words in the YAML files beside this one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marec_env import random
from marec_env.data.config import SyntheticConfig
from marec_env.data.scenarios import numbers
from marec_env.data.scenarios.base import SCENARIOS, LoggedRequest, Scenario
from marec_env.data.scenarios.world import GeneratedWorld, PackagedWords

# ads
_BID_SPREAD = 0.5  # standard deviation of log bids
_MEDIAN_BID = 0.4  # currency units a click
_FORGETTING = 0.5 ** (1.0 / 3.0)  # of the sightings count after a day: half in three days
_OWN_VISITS = 3  # pages of advertisers that a user opens on a day of activity
_OWN_TASTE = 8.0  # logits per unit of taste in the choice of those pages

# ecommerce
_PRICE_SPREAD = 0.6  # standard deviation of the log price within a category
_OWNED = -6.0  # logits for a product that the user has bought
_FIRST_PRICE, _PRICE_STEP = 12.0, 1.6  # median price of the cheapest category; ratio to the next

# finance
_CLASSES = 7
_CLASS_OF_CATEGORY = (1, 2, 3, 4, 5, 6)  # middle class of each category; ± 1 at random
_LIKED_DAYS = 14.0  # held as long: liked most

# social
_FADING = 0.7  # of an endorsement's weight is left after a day
_SHARE_WEIGHT = 2.0  # endorsements that a share is worth

# streaming
_LENGTH_SPREAD = 0.25  # standard deviation of the log length
_MINUTES = (95.0, 48.0, 25.0, 55.0, 90.0, 24.0, 60.0, 100.0)  # median length of each category


@SCENARIOS.register("ads")
class Ads(Scenario):
    """Advertising: auction bids, a click-through rate of about half a percent, ad fatigue.

    Places are sold in a generalised second-price auction (Edelman, Ostrovsky and Schwarz 2007): the
    platform ranks by bid × predicted click rate and the clicked advertiser pays what it needed to
    keep its place. Repetition wears out: an advertisement seen n times of late loses 0.5 log(1 + n)
    logits (wear-out; the size is an assumption), and the count halves every three days. A click
    converts in 2 % of cases, more often where it fits. Clicks are far too few to learn tastes from,
    so the log also holds the users' own visits to advertisers' pages, as real targeting data does.
    """

    vocabulary = PackagedWords("ads")
    behaviours = ("conversion", "payment")
    click_rate = 0.005
    slate_size = 4

    def __init__(self, world: GeneratedWorld, config: SyntheticConfig) -> None:
        """Draw bids."""
        super().__init__(world, config)
        log_bid = _BID_SPREAD * world.item_draws("synthetic/bid").squeeze(1)
        self.log_bid = log_bid
        self.bid = _MEDIAN_BID * log_bid.exp()
        self.item_attributes["bid"] = self.bid  # currency units a click
        self.seen = torch.zeros(world.num_users, world.num_items)

    def begin_day(self, day: int) -> None:
        """Advertisements are half forgotten in three days."""
        self.seen *= _FORGETTING

    def own_visits(self, users: Tensor, keys: Tensor) -> Tensor:
        """Pages of advertisers opened unprompted, int64 ``[a, m]``."""
        world = self.world
        score = _OWN_TASTE * (world.user_taste[users] @ world.item_taste.T) + world.quality
        score = score + random.gumbel(keys, 0, "synthetic/own_visit", world.num_items)
        return score.topk(min(_OWN_VISITS, world.num_items), dim=1).indices

    def ranking_bonus(self, users: Tensor) -> Tensor:
        """The log bid: with the platform's score, a log predicted rate, the auction's score."""
        return self.log_bid.expand(users.shape[0], -1)

    def click_bonus(self, users: Tensor, slate: Tensor) -> Tensor:
        """Fatigue."""
        return -numbers.WEAR_OUT * torch.log1p(self.seen[users[:, None], slate])

    def respond(self, request: LoggedRequest) -> dict[str, Tensor]:
        """Convert and pay."""
        self.seen[request.users[:, None], request.slate] += 1.0
        converts = self.follows(numbers.CONVERSION_RATE, request.logit)
        conversion = request.click * request.happens(converts, "synthetic/conversion")
        # Worth of a place: bid times click rate. The next place's worth, divided by one's own
        # click rate, is the price; the last place pays the reserve, nothing.
        rate = torch.sigmoid(request.logit)
        worth = self.bid[request.slate] * rate
        below = torch.nn.functional.pad(worth[:, 1:], (0, 1))
        price = torch.minimum(below / rate, self.bid[request.slate])
        return {"conversion": conversion, "payment": request.click * price}

    def rating(self, behaviours: dict[str, Tensor]) -> Tensor:
        """An own visit is 3, a clicked advertisement 4, a conversion 5."""
        return 3.0 + behaviours["click"] + behaviours["conversion"]


@SCENARIOS.register("ecommerce")
class Ecommerce(Scenario):
    """E-commerce: view, cart, purchase, price.

    A click opens the product page (a view). Of the views 2.6 % put the product into the cart and of
    the carts 32.4 % end in a purchase, on average: the RetailRocket log has 2,664,312 views, 69,332
    carts and 22,457 transactions. Which of them do depends on taste, as the click does. Prices are
    log-normal within a category; a product dearer than a user's own level loses logits for click
    and cart. A product once bought is not wanted again within the log.
    """

    vocabulary = PackagedWords("ecommerce")
    behaviours = ("cart", "purchase")
    click_rate = 0.08  # an assumption; the log names no impressions

    def __init__(self, world: GeneratedWorld, config: SyntheticConfig) -> None:
        """Draw prices and users' price levels."""
        super().__init__(world, config)
        median = _FIRST_PRICE * _PRICE_STEP ** world.category.to(torch.float32)
        spread = _PRICE_SPREAD * world.item_draws("synthetic/price").squeeze(1)
        # In currency units, with cents.
        self.item_attributes["price"] = (median * spread.exp()).mul(100).round().div(100)
        # What is dear is judged within the category: a cheap tablet is not a dear book.
        self.dearness = spread
        self.level = numbers.PRICE_LEVEL_SPREAD * world.user_draws("synthetic/budget").squeeze(1)
        self.owned = torch.zeros(world.num_users, world.num_items, dtype=torch.bool)

    def _too_dear(self, users: Tensor, slate: Tensor) -> Tensor:
        return (self.dearness[slate] - self.level[users, None]).clamp_min(0.0)

    def click_bonus(self, users: Tensor, slate: Tensor) -> Tensor:
        """Prices above the user's level, and products owned, are clicked less."""
        owned = self.owned[users[:, None], slate]
        price = -numbers.PRICE_SENSITIVITY * self._too_dear(users, slate)
        return torch.where(owned, price + _OWNED, price)

    def respond(self, request: LoggedRequest) -> dict[str, Tensor]:
        """Put into the cart, then buy."""
        dear = numbers.PRICE_SENSITIVITY * self._too_dear(request.users, request.slate)
        cart = request.click * request.happens(
            self.follows(numbers.CART_RATE, request.logit - dear), "synthetic/cart"
        )
        purchase = cart * request.happens(
            self.follows(numbers.PURCHASES_PER_CART, request.logit - dear), "synthetic/purchase"
        )
        users = request.users[:, None].expand_as(request.slate)
        bought = purchase > 0
        self.owned[users[bought], request.slate[bought]] = True
        return {"cart": cart, "purchase": purchase}

    def rating(self, behaviours: dict[str, Tensor]) -> Tensor:
        """A view is 3, a cart 4, a purchase 5."""
        return 3.0 + behaviours["cart"] + behaviours["purchase"]


@SCENARIOS.register("finance")
class Finance(Scenario):
    """Finance: risk class, suitability limits, holding.

    Products carry the seven risk classes of the European summary risk indicator (PRIIPs
    regulation); yearly volatility grows with the class. Users have a risk limit, and the platform
    may only show what is suitable (MiFID II). A view turns into a purchase in 3 % of cases
    (assumption). Positions are held until sold; gains are sold more readily than losses: on a day
    of selling, 14.8 % of gains and 9.8 % of losses are realised (Odean 1998, disposition effect),
    and a tenth of the days is a day of selling (assumption). ``holding_days`` ends with the log for
    what is still held then (``sold`` 0: censored).
    """

    vocabulary = PackagedWords("finance")
    behaviours = ("purchase", "holding_days", "sold")
    click_rate = 0.06  # an assumption
    slate_size = 5

    def __init__(self, world: GeneratedWorld, config: SyntheticConfig) -> None:
        """Draw risk classes, limits and prices."""
        super().__init__(world, config)
        middle = torch.tensor(_CLASS_OF_CATEGORY)[world.category]
        step = random.integers(world.item_keys, 0, "synthetic/risk", 1, 3).squeeze(1) - 1
        self.risk = (middle + step).clamp(1, _CLASSES)  # 1 is the lowest
        self.item_attributes["risk"] = self.risk.to(torch.float32)
        limit = random.integers(world.user_keys, 0, "synthetic/limit", 2, _CLASSES) + 1
        # The larger of two draws: few people accept the lowest classes only.
        self.limit = limit.max(1).values
        self.user_attributes["risk_limit"] = self.limit.to(torch.float32)  # the highest suitable
        yearly = torch.tensor(numbers.VOLATILITY)[self.risk - 1]
        daily = yearly[:, None] / numbers.TRADING_DAYS**0.5
        returns = daily * world.item_draws("synthetic/returns", config.days) - daily.square() / 2
        self.log_price = torch.cumsum(returns, 1)  # [N, days], of a martingale
        self.day = 0
        self.answered = 0  # impressions so far; open positions remember their place among them
        none = torch.zeros(0, dtype=torch.int64)
        self.open = {"place": none, "user": none, "item": none, "day": none}
        self.closed: list[tuple[Tensor, Tensor]] = []

    def eligible(self, users: Tensor) -> Tensor:
        """Products that suit the user."""
        return self.risk <= self.limit[users, None]

    def begin_day(self, day: int) -> None:
        """Sell some of what is held."""
        self.day = day
        held = self.open
        if held["place"].numel() == 0:
            return
        gain = self.log_price[held["item"], day] > self.log_price[held["item"], held["day"]]
        keys = random.session_keys(self.config.seed, held["place"])
        chance = random.uniform(keys, day, "synthetic/sell", 1).squeeze(1)
        rate = numbers.SELLING_DAYS * torch.where(
            gain, numbers.REALISED_GAIN, numbers.REALISED_LOSS
        )
        sold = chance < rate
        self.closed.append((held["place"][sold], day - held["day"][sold]))
        self.open = {name: values[~sold] for name, values in held.items()}

    def respond(self, request: LoggedRequest) -> dict[str, Tensor]:
        """Buy."""
        buys = self.follows(numbers.ORDER_RATE, request.logit)
        purchase = request.click * request.happens(buys, "synthetic/purchase")
        row, column = torch.nonzero(purchase, as_tuple=True)
        bought = {
            "place": self.answered + row * request.slate.shape[1] + column,
            "user": request.users[row],
            "item": request.slate[row, column],
            "day": torch.full_like(row, request.day),
        }
        self.open = {name: torch.cat([self.open[name], bought[name]]) for name in bought}
        self.answered += request.slate.numel()
        zero = torch.zeros_like(purchase)
        return {"purchase": purchase, "holding_days": zero, "sold": zero.clone()}

    def finish(self, behaviours: dict[str, Tensor]) -> dict[str, Tensor]:
        """Fill in how long each purchase was held."""
        days, sold = behaviours["holding_days"].clone(), behaviours["sold"].clone()
        for place, held in self.closed:
            days[place] = held.to(torch.float32)
            sold[place] = 1.0
        days[self.open["place"]] = (self.config.days - self.open["day"]).to(torch.float32)
        return {**behaviours, "holding_days": days, "sold": sold}

    def rating(self, behaviours: dict[str, Tensor]) -> Tensor:
        """A view is 3, a purchase 4, one held for a fortnight or more 5."""
        kept = (behaviours["holding_days"] >= _LIKED_DAYS).to(torch.float32)
        return 3.0 + behaviours["purchase"] * (1.0 + kept)


@SCENARIOS.register("social")
class Social(Scenario):
    """Social: likes, shares, friends' influence.

    Friends are alike: everybody befriends the nearest in taste among a random few, the rest are
    chance (homophily: McPherson, Smith-Lovin and Cook 2001). A post that friends liked or shared in
    the last days is shown more and clicked more: + 0.8 log(1 + friends). Sharing is concentrated on
    few people (the 90-9-1 rule, Nielsen 2006): users' readiness has a log-normal spread. The rates
    are assumptions.
    """

    vocabulary = PackagedWords("social")
    behaviours = ("like", "share")
    click_rate = 0.15  # an assumption

    def __init__(self, world: GeneratedWorld, config: SyntheticConfig) -> None:
        """Make friends."""
        super().__init__(world, config)
        # Shifted so that the mean rate stays what it is without the spread (log-normal mean).
        readiness = numbers.READINESS_SPREAD * world.user_draws("synthetic/readiness").squeeze(1)
        self.readiness = readiness - numbers.FOLLOW_SLOPE * numbers.READINESS_SPREAD**2 / 2.0
        self.friends = _befriend(world)
        self.user_attributes["friends"] = self.friends.sum(1)
        self.endorsed = torch.zeros(world.num_users, world.num_items)

    def begin_day(self, day: int) -> None:
        """Endorsements fade."""
        self.endorsed *= _FADING

    def ranking_bonus(self, users: Tensor) -> Tensor:
        """The feed favours what friends endorsed."""
        met = self.friends[users] @ self.endorsed
        self._influence = numbers.FRIENDS_INFLUENCE * torch.log1p(met)
        return self._influence

    def click_bonus(self, users: Tensor, slate: Tensor) -> Tensor:
        """So do the users, whose slates were ranked last."""
        return torch.gather(self._influence, 1, slate)

    def respond(self, request: LoggedRequest) -> dict[str, Tensor]:
        """Like and share."""
        ready = request.logit + self.readiness[request.users, None]
        events = {}
        for name, rate, weight in (
            ("like", numbers.LIKE_RATE, 1.0),
            ("share", numbers.SHARE_RATE, _SHARE_WEIGHT),
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
    pool = random.integers(
        world.user_keys, 0, "synthetic/pool", min(numbers.PEOPLE_MET, users), users
    )
    likeness = torch.einsum("ud,upd->up", world.user_taste, world.user_taste[pool])
    likeness = likeness.masked_fill(pool == torch.arange(users)[:, None], -2.0)  # not oneself
    near = torch.gather(
        pool, 1, likeness.topk(min(numbers.FRIENDS_NEAR, pool.shape[1]), dim=1).indices
    )
    chance = random.integers(
        world.user_keys, 0, "synthetic/chance_friend", numbers.FRIENDS_BY_CHANCE, users
    )
    matrix = torch.zeros(users, users)
    matrix.scatter_(1, torch.cat([near, chance], dim=1), 1.0)
    matrix = torch.maximum(matrix, matrix.T)
    return matrix.fill_diagonal_(0.0)


@SCENARIOS.register("streaming")
class Streaming(Scenario):
    """Streaming: play, completion, watch time.

    A click plays a title. The share watched is U-shaped: people give up early or see it through,
    more so the better it fits (the usual picture of completion curves; the numbers are an
    assumption). With z the click's logit plus noise, completion = σ(1.5 (z - usual)); watch time =
    completion × length, in minutes. Lengths are log-normal about a category's median. A title seen
    through (90 %) is not offered again by the platform; fatigue within a visit grows with the
    minutes watched.
    """

    vocabulary = PackagedWords("streaming")
    behaviours = ("completion", "watch_time")
    click_rate = 0.1  # an assumption

    def __init__(self, world: GeneratedWorld, config: SyntheticConfig) -> None:
        """Draw lengths."""
        super().__init__(world, config)
        spread = (_LENGTH_SPREAD * world.item_draws("synthetic/length").squeeze(1)).exp()
        self.length = (torch.tensor(_MINUTES)[world.category] * spread).round()
        self.item_attributes["length_minutes"] = self.length
        self.finished = torch.zeros(world.num_users, world.num_items, dtype=torch.bool)
        self.watched_today = torch.zeros(world.num_users)

    def begin_day(self, day: int) -> None:
        """Everybody is rested."""
        self.watched_today.zero_()

    def eligible(self, users: Tensor) -> Tensor:
        """Titles that the user has not seen through."""
        return ~self.finished[users]

    def click_bonus(self, users: Tensor, slate: Tensor) -> Tensor:
        """Minutes watched today tire."""
        return -(self.watched_today[users, None] / numbers.TIRING_MINUTES).expand(slate.shape)

    def respond(self, request: LoggedRequest) -> dict[str, Tensor]:
        """Watch some share of each played title."""
        noise = (
            numbers.COMPLETION_NOISE
            * torch.erfinv(2.0 * request.draws("synthetic/completion") - 1.0)
            * 2.0**0.5
        )
        drawn = torch.sigmoid(numbers.COMPLETION_SLOPE * (request.logit - self.usual + noise))
        completion = drawn * request.click
        minutes = completion * self.length[request.slate]
        users = request.users[:, None].expand_as(request.slate)
        through = completion >= numbers.SEEN_THROUGH
        self.finished[users[through], request.slate[through]] = True
        self.watched_today[request.users] += minutes.sum(1)
        return {"completion": completion, "watch_time": minutes}

    def rating(self, behaviours: dict[str, Tensor]) -> Tensor:
        """1 plus 4 times the completion: from three quarters on it counts as liked."""
        return 1.0 + 4.0 * behaviours["completion"]
