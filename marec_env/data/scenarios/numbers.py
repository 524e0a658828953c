"""The numbers of the scenarios, one table: generators and simulated users both read it."""

from __future__ import annotations

FOLLOW_SLOPE = 0.5
"""Logits of a behaviour with a rate per logit of the click that it follows (assumption)."""

# ecommerce
CART_RATE = 69_332 / 2_664_312  # RetailRocket: carts per product page viewed
PURCHASES_PER_CART = 22_457 / 69_332  # RetailRocket: transactions per cart
PRICE_SENSITIVITY = 1.0  # logits lost per unit of log price above the user's level (assumption)
PRICE_LEVEL_SPREAD = 0.5  # standard deviation of users' log price level (assumption)

# streaming
COMPLETION_SLOPE = 1.5  # logits of completion per logit of the click
COMPLETION_NOISE = 1.5  # logits of luck in it; slope times noise above ~1.7 makes it U-shaped
SEEN_THROUGH = 0.9  # completion from which a title counts as finished
TIRING_MINUTES = 120.0  # minutes watched that cost one logit (assumption)

# social
LIKE_RATE, SHARE_RATE = 0.1, 0.02  # likes and shares per post opened
READINESS_SPREAD = 2.4  # over users, in readiness to like and share, logits of a click
FRIENDS_NEAR, FRIENDS_BY_CHANCE, PEOPLE_MET = 6, 3, 60  # near in taste among those met; by chance
FRIENDS_INFLUENCE = 0.8  # logits per log(1 + friends who endorsed)

# ads
CONVERSION_RATE = 0.02  # conversions per click
WEAR_OUT = 0.5  # logits lost per log(1 + sightings of the advertiser)

# finance
ORDER_RATE = 0.03  # purchases per product viewed
VOLATILITY = (0.005, 0.03, 0.08, 0.13, 0.2, 0.3, 0.45)
"""Yearly standard deviation of log returns by risk class, 1 first (within PRIIPs' bands)."""
TRADING_DAYS = 252  # a year
SELLING_DAYS = 0.1  # share of days on which an owner sells something at all (assumption)
REALISED_GAIN, REALISED_LOSS = 0.148, 0.098  # shares sold on such a day: Odean 1998, table I
