"""Text embeddings: encoders, their cache, and reduction.

``embed_texts(config, texts)`` is what a catalog needs; transformers is imported only by the models
that need it.
"""

from marec_env.embeddings.assets import weights_hash
from marec_env.embeddings.config import EmbeddingConfig, ReductionConfig
from marec_env.embeddings.embed import embed_corpus, embed_texts
from marec_env.embeddings.encoder import HashingTestEncoder, TextEncoder
from marec_env.embeddings.reduction import Reduction, fit_reduction

__all__ = [
    "EmbeddingConfig",
    "HashingTestEncoder",
    "Reduction",
    "ReductionConfig",
    "TextEncoder",
    "embed_corpus",
    "embed_texts",
    "fit_reduction",
    "weights_hash",
]
