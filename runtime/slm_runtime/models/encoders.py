"""Which architectures are encoders: they read a text whole, in both directions, and keep nothing of it."""

from typing import Final

ENCODERS: Final = frozenset(
    {
        "bert",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
    }
)
"""As llama.cpp names those that it runs so. What they give is a vector for a text, or a score for a pair of texts."""
