"""Checks: `verify` (hashes of everything) and `inspect` (a table of the shards and their first documents)."""

from __future__ import annotations

from pathlib import Path

from data_prep.config import PrepConfig
from rlpt.data.indexed import open_shard
from rlpt.data.manifest import check_shard, read_manifest, verify_shard
from rlpt.data.tokenizer import load_tokenizer

_EXCERPT = 300  # characters


def verify(config: PrepConfig, out: Path) -> None:
    """Raises DataError unless tokenizer and shards are the ones that the manifest names, to the byte."""
    tokenizer = load_tokenizer(out / "tokenizer")
    manifest = read_manifest(out)
    for name in manifest.shards:
        entry = check_shard(out / name, tokenizer.sha256, tokenizer.vocab_size)
        verify_shard(out / name, entry)
        print(f"verify: {out / name}: {entry.documents:,} documents, {entry.tokens:,} tokens: good")


def inspect(config: PrepConfig, out: Path) -> None:
    """Prints what the shards hold, and the beginning of each one's first document. Raises DataError as `verify`."""
    tokenizer = load_tokenizer(out / "tokenizer")
    manifest = read_manifest(out)
    print(f"{out}: vocabulary {manifest.vocab_size}, tokenizer {manifest.tokenizer_sha256[:12]}, seed {manifest.seed}")
    width = max(map(len, manifest.shards))
    print(f"{'shard':{width}} {'documents':>12} {'tokens':>14} {'bytes':>14} {'bytes/token':>12}")
    for name, entry in manifest.shards.items():
        ratio = entry.utf8_bytes / entry.tokens
        print(f"{name:{width}} {entry.documents:>12,} {entry.tokens:>14,} {entry.utf8_bytes:>14,} {ratio:>12.2f}")
    for name in manifest.shards:
        shard = open_shard(out / name, tokenizer)
        text = tokenizer.decode(shard.document(0, 0, min(int(shard.lengths[0]), _EXCERPT)).tolist())
        print(f"{name}: {text[:_EXCERPT]!r}")
