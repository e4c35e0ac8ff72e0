"""Text on disk and its way into batches: tokenizer, manifest, indexed shards, and the corpus source."""

from rlpt.data import corpus

__all__ = ["corpus"]
