"""Stage encode: split text and solutions -> Megatron shards. Stage manifest: what they hold, written last."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from data_prep.config import SOLUTIONS, PrepConfig
from data_prep.documents import Document, read_documents
from data_prep.ingest import SPLITS, documents_path, split_path
from data_prep.progress import Progress
from rlpt.data.indexed import ShardWriter
from rlpt.data.manifest import MANIFEST, Manifest, ShardEntry, write_manifest
from rlpt.data.tokenizer import SentencePieceTokenizer, load_tokenizer
from rlpt.errors import DataError
from rlpt.template import encode_marked

_BATCH = 64  # documents that are encoded at once


def shard_inputs(config: PrepConfig, out: Path) -> dict[str, Path]:
    """Shard name -> the documents it is made of."""
    inputs = {
        f"{source.name}-{side}": split_path(out, source.name, side) for source in config.sources for side in SPLITS
    }
    if config.synthesize.tasks:
        inputs[f"{SOLUTIONS}-train"] = documents_path(out, SOLUTIONS)
    return inputs


def encode(config: PrepConfig, out: Path, counts: dict[str, int]) -> dict[str, Any]:
    """Writes every shard and returns {shard: its manifest entry}. `counts` (documents a shard) serve the time left."""
    tokenizer = load_tokenizer(out / "tokenizer")
    (out / MANIFEST).unlink(missing_ok=True)  # shards of two preparations must never look whole
    figures: dict[str, Any] = {}
    ours = [SOLUTIONS, *(source.name for source in config.sources if source.look_ups is not None)]
    for name, path in shard_inputs(config, out).items():
        marked = name.rpartition("-")[0] in ours
        with (
            ShardWriter(out / name, tokenizer, tokenizer.byte_lengths) as writer,
            Progress("encode", name, counts.get(name)) as progress,
        ):
            documents = read_documents(path)
            while batch := list(islice(documents, _BATCH)):
                for ids in _encode_documents(tokenizer, batch, marked):
                    writer.add([*ids, tokenizer.eos_id])
                progress.update(len(batch))
            figures[name] = asdict(writer.finish())
    return figures


def _encode_documents(
    tokenizer: SentencePieceTokenizer, documents: list[Document], marked: bool
) -> Iterator[list[int]]:
    """Ids of each document: marked text by the template, plain text by the tokenizer. Raises DataError when the ids
    would not stand for the document's bytes."""
    texts = [document.text for document in documents]
    if marked:
        yield from (encode_marked(tokenizer, text) for text in texts)
        return
    for document, ids in zip(documents, tokenizer.encode_batch(texts), strict=True):
        wanted, found = len(document.text.encode("utf-8")), int(tokenizer.byte_lengths[ids].sum())
        if wanted != found:
            raise DataError(f"{document.origin}: {wanted} bytes became tokens of {found} bytes; leave the text out")
        yield ids


def make_manifest(config: PrepConfig, out: Path, entries: dict[str, Any]) -> dict[str, Any]:
    """Writes out/manifest.json from the entries that `encode` returned; returns totals."""
    tokenizer = load_tokenizer(out / "tokenizer")
    shards = {name: ShardEntry(**entry) for name, entry in entries.items()}
    manifest = Manifest(tokenizer.sha256, tokenizer.vocab_size, config.seed, config.model_dump(mode="json"), shards)
    write_manifest(out, manifest)
    return {"shards": len(shards), "tokens": sum(entry.tokens for entry in shards.values())}
