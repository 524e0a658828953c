"""Intervals over sessions, all profiles of a game on the same sessions."""

from marec_env.evaluation.statistics import Estimate as Interval
from marec_env.evaluation.statistics import bootstrap_means as bootstrap
from marec_env.evaluation.statistics import mean_estimate as mean_interval

__all__ = ["Interval", "bootstrap", "mean_interval"]
