"""Classic simulators as published, for one recommender: RecSim, SARDINE, KuaiSim, and their view.

The core does not need this package; a configuration names its user models (``recsim/...``,
``kuaisim``), and :class:`SlateEnv` plays any preset through Gymnasium.
"""

from marec_env.classic.presets import PRESETS, Preset, get_preset
from marec_env.classic.slate_env import SlateEnv, SlateVectorEnv

__all__ = ["PRESETS", "Preset", "SlateEnv", "SlateVectorEnv", "get_preset"]
