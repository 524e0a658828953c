"""Reward terms, objectives, the team objective, and shaping."""

from marec_env.rewards.config import RewardConfig, ShapingConfig
from marec_env.rewards.outcome import Outcome, Truth
from marec_env.rewards.team import TeamReward
from marec_env.rewards.terms import TERMS

__all__ = ["TERMS", "Outcome", "RewardConfig", "ShapingConfig", "TeamReward", "Truth"]
