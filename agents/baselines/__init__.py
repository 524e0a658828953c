"""Classic recommenders, static and random teams, and privileged oracles, through one interface.

``build_baseline(name, world, seed)`` fits a policy on the share of the log that the recommender may
see; ``baseline_names()`` lists what is registered.
"""

from agents.baselines.registry import BASELINES, DEFAULT_BASELINES, baseline_names, build_baseline

__all__ = ["BASELINES", "DEFAULT_BASELINES", "baseline_names", "build_baseline"]
