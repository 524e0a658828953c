"""Configuration of objectives, the team reward, and shaping."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from marec_env.config import ConfigModel

DISCOUNT = 0.8
"""Discount of the recommender's rewards unless one is given; docs/learners.md says why."""


class ShapingConfig(ConfigModel):
    """Potential-based shaping (Ng, Harada and Russell, ICML 1999); optimal play is unchanged."""

    potential: str = Field(
        default="click_rate", description="Potential (registered name or package.module:function)."
    )
    weight: float = Field(default=1.0, description="Factor on the potential.")
    gamma: float = Field(
        default=DISCOUNT, ge=0, le=1, description="Discount; must equal the learner's."
    )


class RewardConfig(ConfigModel):
    """Who is paid what.

    f_i is the weighted sum of component i's terms, clipped to [0, 1]. The team's
    F = sum over components of ``weights[i]`` f_i + sum of ``team`` terms.
    """

    mode: Literal["own", "shared", "mix", "difference"] = Field(
        default="shared",
        description="own: r_i = f_i; shared: r_i = F; mix: r_i = mix f_i + (1 - mix) F; "
        "difference: r_i = F less F had component i played its hand-set default in this request.",
    )
    mix: float = Field(
        default=0.5, ge=0, le=1, description="Weight of f_i in mode mix, the rest being F's."
    )
    objectives: dict[str, dict[str, float]] = Field(
        default_factory=dict,
        description="Per component, its terms and their weights; a component not listed has its "
        "own (profile: probe_quality, recall: recall, feature: ranking_quality - compute_cost, "
        "ranking: engagement).",
    )
    weights: dict[str, float] = Field(
        default_factory=lambda: {"profile": 0.02, "recall": 0.02, "feature": 0.02, "ranking": 1.0},
        description="Weight of each f_i in F; a component not listed has 0.",
    )
    team: dict[str, float] = Field(
        default_factory=lambda: {"retention": 0.1, "extra_cost": -1.0},
        description="Further terms of F and their weights.",
    )
    shaping: tuple[ShapingConfig, ...] = Field(
        default=(), description="Potential-based shaping terms added to every reward."
    )


class MeasureConfig(ConfigModel):
    """What the pipeline's diagnostics are measured on; it defines nothing of the task."""

    probe_items: int = Field(
        default=32,
        ge=4,
        le=1024,
        description="Items no component chose, on which the profile is judged.",
    )
    true_top: int = Field(
        default=50, ge=1, description="Most relevant unseen items that recall should find."
    )
