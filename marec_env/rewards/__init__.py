"""Reward terms, objectives, the team objective, and shaping."""

from marec_env.rewards.config import RewardConfig, ShapingConfig
from marec_env.rewards.team import TeamReward
from marec_env.rewards.terms import TERMS, Outcome, Truth

__all__ = ["TERMS", "Outcome", "RewardConfig", "ShapingConfig", "TeamReward", "Truth"]
