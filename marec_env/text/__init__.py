"""Text written by models, for the items of a catalog and the users of a recommender.

A :class:`TextModel` completes prompts and scores options, many at a time and never within a step of
the environment. :class:`Author` keeps what was written, counts what it costs, and puts a
deterministic text made from the same facts where a model fails.
"""

from marec_env.text.author import Author, Prompt, TextReport
from marec_env.text.config import TextConfig
from marec_env.text.models import TextModel

__all__ = ["Author", "Prompt", "TextConfig", "TextModel", "TextReport"]
