"""Learners: MAPPO and its family on RLlib, batched over the sessions of a ``VectorEnv``."""
