"""marec: a recommender pipeline as a team of agents, facing simulated users.

Importing this package imports neither ray nor wandb nor transformers.
"""

__version__ = "0.1.0"
