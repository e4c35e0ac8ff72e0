"""`manifest.json`, the contract between data preparation and training: what each shard holds, for which tokenizer.

Also the two file primitives that both sides share: atomic writing and hashing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from rlpt.errors import DataError

MANIFEST = "manifest.json"
VERSION = 1
REMEDY = "run `python -m data_prep all CONFIG` (e.g. configs/data/quickstart.yaml) to write it anew"


@dataclass(frozen=True)
class ShardEntry:
    """One shard: PREFIX.bin (token ids, row after row) and PREFIX.idx (Megatron's index)."""

    documents: int
    tokens: int  # end-of-document tokens included
    utf8_bytes: int  # of the text; marks count 0
    largest_id: int
    bin_bytes: int
    idx_bytes: int
    bin_sha256: str
    idx_sha256: str


@dataclass(frozen=True)
class Manifest:
    """All shards of one folder, written last, so that a folder with a manifest is whole."""

    tokenizer_sha256: str
    vocab_size: int
    seed: int
    config: Mapping[str, Any]  # the resolved configuration of the preparation
    shards: Mapping[str, ShardEntry]  # file name without suffix -> entry
    sources: Mapping[str, Any] = field(default_factory=dict)  # name -> where it is from, what was left out and changed
    version: int = VERSION


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """A binary file that appears at `path` whole and on disk (temporary file, fsync, rename), or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON, atomically."""
    with atomic_writer(path) as file:
        file.write((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8"))


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes `folder/manifest.json` atomically."""
    write_json(folder / MANIFEST, asdict(manifest))


def read_manifest(folder: Path) -> Manifest:
    """Reads `folder/manifest.json`. Raises DataError when it is missing, malformed or of another version."""
    path = folder / MANIFEST
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: missing, so the shards of this folder are not whole; {REMEDY}") from None
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); {REMEDY}") from None
    version = values.get("version") if isinstance(values, dict) else None
    if version != VERSION:
        raise DataError(f"{path}: version {version}, this program reads version {VERSION}; {REMEDY}")
    try:
        shards = {name: ShardEntry(**entry) for name, entry in values.pop("shards").items()}
        return Manifest(shards=shards, **values)
    except (TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path}: not a manifest ({error}); {REMEDY}") from None


def check_shard(prefix: Path, tokenizer_sha256: str, vocab_size: int) -> ShardEntry:
    """The manifest's entry of the shard at `prefix`, its files and tokenizer checked (sizes, not hashes).

    Raises DataError for another tokenizer, a missing or empty shard, a file that is missing or of another size, or a
    token id outside the vocabulary.
    """
    manifest = read_manifest(prefix.parent)
    if manifest.tokenizer_sha256 != tokenizer_sha256:
        raise DataError(
            f"{prefix.parent / MANIFEST}: made with tokenizer {manifest.tokenizer_sha256[:12]}, this run's is "
            f"{tokenizer_sha256[:12]}; set `tokenizer` to the folder beside these shards, or {REMEDY}"
        )
    entry = manifest.shards.get(prefix.name)
    if entry is None:
        known = ", ".join(sorted(manifest.shards)) or "none"
        raise DataError(f"{prefix}: no such shard in {prefix.parent / MANIFEST}; shards there: {known}")
    for path, size in shard_files(prefix, entry).items():
        if not path.is_file():
            raise DataError(f"{path}: missing; {REMEDY}")
        if path.stat().st_size != size:
            raise DataError(f"{path}: {path.stat().st_size} bytes, the manifest says {size}: damaged; {REMEDY}")
    if not entry.tokens:
        raise DataError(f"{prefix}: holds no text (0 tokens); add text, then {REMEDY}")
    if entry.largest_id >= vocab_size:
        raise DataError(f"{prefix}: holds token id {entry.largest_id}, the vocabulary has {vocab_size}; {REMEDY}")
    return entry


def shard_files(prefix: Path, entry: ShardEntry) -> dict[Path, int]:
    """The shard's two files and the sizes that the manifest gives them, in bytes."""
    return {
        prefix.with_name(prefix.name + ".bin"): entry.bin_bytes,
        prefix.with_name(prefix.name + ".idx"): entry.idx_bytes,
    }


def verify_shard(prefix: Path, entry: ShardEntry) -> None:
    """Raises DataError unless both files' SHA-256 equal the manifest's (sizes alone miss a flipped byte)."""
    expected = (entry.bin_sha256, entry.idx_sha256)
    for path, wanted in zip(shard_files(prefix, entry), expected, strict=True):
        found = sha256_file(path)
        if found != wanted:
            raise DataError(f"{path}: SHA-256 {found[:12]}, the manifest says {wanted[:12]}: damaged; {REMEDY}")
