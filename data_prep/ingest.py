"""Stage ingest: every source -> documents/NAME.jsonl. Stage split: -> split/NAME-train.jsonl and NAME-valid.jsonl."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from data_prep.config import PrepConfig, SourceConfig
from data_prep.documents import Document, read_documents, write_document
from data_prep.progress import Progress
from data_prep.readers import read_source
from rlpt.data.manifest import atomic_writer
from rlpt.errors import DataError

SPLITS = ("train", "valid")


def ingest(config: PrepConfig, out: Path) -> dict[str, Any]:
    """Figures {source: {documents, utf8_bytes, stopped_at_max_bytes}}. Raises DataError for a source without text."""
    return {source.name: _ingest_source(source, documents_path(out, source.name)) for source in config.sources}


def _ingest_source(source: SourceConfig, path: Path) -> dict[str, Any]:
    count = size = 0
    stopped = False
    with (
        Progress("ingest", source.name, source.max_bytes, "bytes") as progress,
        atomic_writer(path) as file,
    ):
        for document in read_source(source):
            length = len(document.text.encode("utf-8"))
            if source.max_bytes is not None and size + length > source.max_bytes:
                stopped = True
                break
            write_document(file, document)
            count, size = count + 1, size + length
            progress.update(length)
        if not count:
            raise DataError(
                f"source '{source.name}': no text below max_bytes={source.max_bytes}: the corpus is empty; add files, "
                "raise max_bytes or correct sources.*.paths"
            )
    return {"documents": count, "utf8_bytes": size, "stopped_at_max_bytes": stopped}


def split(config: PrepConfig, out: Path) -> dict[str, Any]:
    """Documents of each source and side. Raises DataError when a side is left without documents."""
    return {source.name: _split_source(source.name, config.split.valid_share, out) for source in config.sources}


def is_valid(document: Document, share: float) -> bool:
    """Whether a document is held out: the hash of what it is about, as a fraction of all hashes, is below `share`."""
    digest = hashlib.blake2b((document.about or document.text).encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def _split_source(name: str, share: float, out: Path) -> dict[str, int]:
    counts = dict.fromkeys(SPLITS, 0)
    with (
        Progress("split", name, None) as progress,
        atomic_writer(split_path(out, name, "train")) as train,
        atomic_writer(split_path(out, name, "valid")) as valid,
    ):
        for document in read_documents(documents_path(out, name)):
            side = "valid" if is_valid(document, share) else "train"
            write_document(valid if side == "valid" else train, document)
            counts[side] += 1
            progress.update()
        for side, count in counts.items():
            if not count:
                raise DataError(
                    f"source '{name}': none of {sum(counts.values())} documents fell into {side} with "
                    f"split.valid_share={share}; change the share or add documents"
                )
    return counts


def documents_path(out: Path, name: str) -> Path:
    """Where the documents of a source, or the solutions, are."""
    return out / "documents" / f"{name}.jsonl"


def split_path(out: Path, name: str, side: str) -> Path:
    """Where one side of a source is."""
    return out / "split" / f"{name}-{side}.jsonl"
