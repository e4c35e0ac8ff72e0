"""A real, tiny tokenizer and shards on disk for tests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from data_prep.config import TokenizerConfig
from data_prep.tokenizer import train_model
from rlpt.data.indexed import ShardWriter
from rlpt.data.manifest import Manifest, write_manifest
from rlpt.data.tokenizer import SentencePieceTokenizer, load_tokenizer

SENTENCES = [f"the number {n} and the text of line {n * 7} in a small file" for n in range(200)]


@cache
def tiny_model(vocab_size: int = 400) -> bytes:
    """A serialised SentencePiece model."""
    return train_model(SENTENCES, TokenizerConfig.model_validate({"vocab_size": vocab_size}))


def write_tokenizer(folder: Path, vocab_size: int = 400) -> SentencePieceTokenizer:
    """Writes a tokenizer folder and loads it."""
    folder.mkdir(parents=True)
    model = tiny_model(vocab_size)
    (folder / "tokenizer.model").write_bytes(model)
    (folder / "meta.json").write_text(json.dumps({"sha256": hashlib.sha256(model).hexdigest()}))
    return load_tokenizer(folder)


def write_shards(
    folder: Path, tokenizer: SentencePieceTokenizer, shards: Mapping[str, Sequence[Sequence[int]]]
) -> None:
    """Writes shards of documents that are given as token ids, and their manifest."""
    entries = {}
    for name, documents in shards.items():
        with ShardWriter(folder / name, tokenizer, tokenizer.byte_lengths) as writer:
            for document in documents:
                writer.add(document)
            entries[name] = writer.finish()
    write_manifest(folder, Manifest(tokenizer.sha256, tokenizer.vocab_size, 1, {}, entries))
