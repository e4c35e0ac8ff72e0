"""Text on disk and its way into batches: tokenizer, manifest, indexed shards, and the corpus source.

Nothing is imported here, so that preparing data does not wait for torch; `rlpt.data.corpus` registers the source.
"""
