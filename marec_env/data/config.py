"""Where the interaction log comes from."""

from __future__ import annotations

from pydantic import Field

from marec_env.config import ConfigModel, Seed
from marec_env.data.times import TimeUnit
from marec_env.privacy.config import PrivacyConfig


class SyntheticConfig(ConfigModel):
    """Size and seed of a generated log; read only if the source is ``synthetic/<scenario>``."""

    num_users: int = Field(default=500, ge=10, description="users")
    num_items: int = Field(default=1000, ge=50, description="items")
    days: int = Field(default=30, ge=2, le=3650, description="length of the log, days")
    sessions_per_user: float = Field(
        default=8.0, gt=0.0, description="mean sessions a user, at least one"
    )
    seed: Seed = Field(default=0, description="seed of all draws")


class DataConfig(ConfigModel):
    """The log that catalog, population and the recommender's knowledge are built from."""

    source: str = Field(
        default="movielens-100k",
        description="'movielens-100k' (asset package), 'synthetic/<scenario>', or the path of a "
        "folder with interactions.csv and items.csv (users.csv and impressions.csv optional)",
    )
    like_threshold: float = Field(
        default=4.0,
        description="an interaction counts as liked from this rating on, in the log's units",
    )
    time_unit: TimeUnit = Field(
        default="auto",
        description="what timestamps of a folder's files count, where they are numbers; 'auto' "
        "takes the unit in which all lie between 1980 and 2100, and says so unless it is seconds",
    )
    group_by: str = Field(
        default="gender",
        description="user attribute for fairness reports (a column of the users' file; 'age' is "
        "put in bands); without such a column all users form one group",
    )
    synthetic: SyntheticConfig = Field(
        default=SyntheticConfig(), description="size of a generated log"
    )
    privacy: PrivacyConfig | None = Field(
        default=None,
        description="null: the recommender reads the log as it is; else a private release of it",
    )
