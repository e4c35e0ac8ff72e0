"""Megatron's indexed shards (.bin token ids, .idx lengths and offsets): one writer, one checked reader.

The writer streams with numpy and gives the bytes that `megatron.core.datasets.indexed_dataset.IndexedDatasetBuilder`
gives, so that preparing data does not need Megatron; the reader is Megatron's own `IndexedDataset`.
"""

from __future__ import annotations

import hashlib
import os
import struct
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rlpt.data.manifest import REMEDY, ShardEntry, check_shard
from rlpt.errors import DataError
from rlpt.types import Tokenizer

_HEADER = b"MMIDIDX\x00\x00"
_CODES = {np.dtype(np.uint16): 8, np.dtype(np.int32): 4}
_LARGEST_SMALL_VOCABULARY = 65_500  # Megatron's bound for two-byte ids


class ShardWriter:
    """Writes PREFIX.bin and PREFIX.idx under temporary names; `finish` makes them appear. A context manager: leaving it
    without `finish` leaves nothing behind."""

    def __init__(self, prefix: Path, tokenizer: Tokenizer, byte_lengths: np.ndarray) -> None:
        """`byte_lengths` [V] int: UTF-8 bytes a token, to count the text's bytes."""
        self._paths = [prefix.with_name(prefix.name + suffix) for suffix in (".bin", ".idx")]
        self._temporary = [path.with_name(f"{path.name}.{os.getpid()}.tmp") for path in self._paths]
        small = tokenizer.vocab_size < _LARGEST_SMALL_VOCABULARY
        self._dtype = np.dtype(np.uint16 if small else np.int32)
        self._vocab_size = tokenizer.vocab_size
        self._byte_lengths = byte_lengths
        self._lengths: list[int] = []
        self._tokens = self._bytes = 0
        self._largest = -1
        self._hash = hashlib.sha256()
        prefix.parent.mkdir(parents=True, exist_ok=True)
        self._bin: BinaryIO = open(self._temporary[0], "wb")  # noqa: SIM115 - closed by finish and __exit__

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._bin.close()
        for path in self._temporary:
            path.unlink(missing_ok=True)

    def add(self, ids: Sequence[int] | np.ndarray) -> None:
        """Appends one document: its token ids [n], the end-of-text token included; n >= 1."""
        document = np.asarray(ids, dtype=np.int64)
        assert document.size > 0, "a document has at least its end-of-text token"
        largest = int(document.max())
        assert 0 <= int(document.min()) <= largest < self._vocab_size, f"token id outside 0..{self._vocab_size - 1}"
        data = document.astype(self._dtype).tobytes()
        self._bin.write(data)
        self._hash.update(data)
        self._lengths.append(document.size)
        self._tokens += document.size
        self._bytes += int(self._byte_lengths[document].sum())
        self._largest = max(self._largest, largest)

    def finish(self) -> ShardEntry:
        """Flushes both files to disk, renames them into place and says what they hold."""
        index = self._index()
        with open(self._temporary[1], "wb") as file:
            file.write(index)
            file.flush()
            os.fsync(file.fileno())
        self._bin.flush()
        os.fsync(self._bin.fileno())
        self._bin.close()
        for temporary, path in zip(self._temporary, self._paths, strict=True):
            os.replace(temporary, path)
        return ShardEntry(
            documents=len(self._lengths),
            tokens=self._tokens,
            utf8_bytes=self._bytes,
            largest_id=self._largest,
            bin_bytes=self._tokens * self._dtype.itemsize,
            idx_bytes=len(index),
            bin_sha256=self._hash.hexdigest(),
            idx_sha256=hashlib.sha256(index).hexdigest(),
        )

    def _index(self) -> bytes:
        lengths = np.asarray(self._lengths, dtype=np.int32)
        ends = np.cumsum(lengths, dtype=np.int64) * self._dtype.itemsize
        pointers = np.concatenate([np.zeros(1, np.int64), ends])[: len(lengths)]
        documents = np.arange(len(lengths) + 1, dtype=np.int64)
        head = _HEADER + struct.pack("<QBQQ", 1, _CODES[self._dtype], len(lengths), len(documents))
        return head + lengths.tobytes() + pointers.tobytes() + documents.tobytes()


class Shard:
    """A shard whose files agree with their manifest. `lengths` [D] int64 are tokens a document."""

    def __init__(self, prefix: Path, entry: ShardEntry) -> None:
        """Opens the files with Megatron's reader. Raises DataError when the index can't be read or disagrees."""
        self.prefix, self.entry = prefix, entry
        self._dataset: Any = _open_indexed(prefix)
        self.lengths: np.ndarray = np.asarray(self._dataset.sequence_lengths, dtype=np.int64)
        self.num_documents, self.num_tokens = len(self.lengths), int(self.lengths.sum())
        if (self.num_documents, self.num_tokens) != (entry.documents, entry.tokens):
            raise DataError(
                f"{prefix}.idx: {self.num_documents} documents and {self.num_tokens} tokens, the manifest says "
                f"{entry.documents} and {entry.tokens}: damaged; {REMEDY}"
            )

    @cached_property
    def ends(self) -> np.ndarray:
        """Offset [D] int64 where each document ends, in tokens from the start of the shard."""
        return np.cumsum(self.lengths)

    def document(self, index: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Token ids [stop - start] int64 of a document, or of a slice of it (0 <= start <= stop <= its length)."""
        stop = int(self.lengths[index]) if stop is None else stop
        if start == stop:
            return np.zeros(0, dtype=np.int64)
        return self._dataset.get(int(index), start, stop - start).astype(np.int64)

    def chunks(self, tokens: int = 1 << 20) -> Iterator[np.ndarray]:
        """All token ids in file order, as int64 arrays of about `tokens` (whole documents, long ones in slices)."""
        waiting: list[np.ndarray] = []
        size = 0
        for index, length in enumerate(self.lengths.tolist()):
            for start in range(0, length, tokens):
                waiting.append(self.document(index, start, min(start + tokens, length)))
                size += len(waiting[-1])
                if size >= tokens:
                    yield np.concatenate(waiting)
                    waiting, size = [], 0
        if waiting:
            yield np.concatenate(waiting)


def open_shard(prefix: Path, tokenizer: Any) -> Shard:
    """The shard PREFIX.bin + PREFIX.idx, checked against the manifest.json beside it and the tokenizer's `sha256`.

    Raises DataError that names the file and the remedy: another tokenizer, a missing or truncated file, ids outside
    the vocabulary.
    """
    prefix = Path(prefix)
    return Shard(prefix, check_shard(prefix, tokenizer.sha256, tokenizer.vocab_size))


def _open_indexed(prefix: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optional accelerators that Megatron misses at import
        from megatron.core.datasets.indexed_dataset import IndexedDataset
    with open(f"{prefix}.idx", "rb") as file:
        if file.read(len(_HEADER)) != _HEADER:
            raise DataError(f"{prefix}.idx: not an index of token ids; {REMEDY}")
    try:
        return IndexedDataset(str(prefix))
    except (AssertionError, ValueError) as error:
        raise DataError(f"{prefix}.idx: can't be read ({error}); {REMEDY}") from None
