"""Module form of the environment, as PettingZoo's own: ``pipeline_v0.parallel_env()``."""

from marec_env.env import aec_env as env
from marec_env.env import parallel_env

__all__ = ["env", "parallel_env"]
