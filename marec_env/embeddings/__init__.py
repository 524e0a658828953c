"""Text and image embeddings: encoders, their cache, and reduction.

``embed_texts(config, texts)`` is what a catalog needs; transformers is imported only by the models
that need it.
"""

from marec_env.embeddings.assets import weights_hash
from marec_env.embeddings.config import EmbeddingConfig, ReductionConfig
from marec_env.embeddings.embed import Embedder, embed_images, embed_texts
from marec_env.embeddings.encoder import Encoder, TextEncoder, load_encoder
from marec_env.embeddings.hashing import HashingTestEncoder
from marec_env.embeddings.reduction import Reduction, fit_reduction
from marec_env.embeddings.stream import Arrival, EmbeddingStream
from marec_env.embeddings.text_profile import recency_weights, text_profile

__all__ = [
    "Arrival",
    "Embedder",
    "EmbeddingConfig",
    "EmbeddingStream",
    "Encoder",
    "HashingTestEncoder",
    "Reduction",
    "ReductionConfig",
    "TextEncoder",
    "embed_images",
    "embed_texts",
    "fit_reduction",
    "load_encoder",
    "recency_weights",
    "text_profile",
    "weights_hash",
]
