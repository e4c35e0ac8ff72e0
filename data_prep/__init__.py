"""Corpora, offline: text and worked solutions -> split -> tokenizer -> Megatron shards + manifest.json."""
