"""What the recommender may learn of a log's users, as numbers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from marec_env.config import ConfigModel, Seed

Accountant = Literal["analytic", "rdp", "prv"]
"""Which bound adds up what is spent (:mod:`marec_env.privacy.accountant`)."""


class ContributionConfig(ConfigModel):
    """How much of one user, and of the catalog, enters the released statistics."""

    events: int = Field(
        default=64,
        ge=1,
        le=100_000,
        description="items counted of a user, drawn evenly from those consumed: fewer need less "
        "noise, and tell less of users with much",
    )
    items: int = Field(
        default=256,
        ge=2,
        le=8192,
        description="items, those of the largest noisy counts, of which it is released how often "
        "users consume them together; others have no collaborative vector",
    )


class PrivacyConfig(ConfigModel):
    """Differential privacy of the log's users: all that the recommender's side reads comes from
    noisy statistics.
    """

    epsilon: float | None = Field(
        default=8.0,
        ge=1e-3,
        le=1000.0,
        description="privacy loss ε of a user, all statistics together; null: no noise, the "
        "control that bounds contributions alike",
    )
    delta: float = Field(
        default=1e-5,
        gt=1e-300,
        le=1e-2,
        description="probability δ with which the loss may be larger; well below 1 / users",
    )
    contribution: ContributionConfig = Field(
        default=ContributionConfig(), description="bounds of what one user contributes"
    )
    accountant: Accountant = Field(
        default="analytic",
        description="analytic: exact for these mechanisms (Balle and Wang 2018); rdp, prv: "
        "opacus' accountants, for comparison with other work",
    )
    users: Literal["release", "log"] = Field(
        default="release",
        description="whom simulations play with: users drawn from the release, so that whatever is "
        "trained on them keeps the guarantee; or those of the log, to measure what privacy costs: "
        "then the guarantee ends at the recommender's knowledge",
    )
    seed: Seed = Field(
        default=0,
        description="of the noise, unless MAREC_PRIVACY_KEY holds a secret, and of the users drawn "
        "from the release: noise of a known seed protects nobody and is for studies",
    )
