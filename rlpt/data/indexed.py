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

from rlpt.data.manifest import REMEDY, ShardEntry, check_shard, sha256_file, shard_files
from rlpt.errors import DataError
from rlpt.types import Tokenizer

_HEADER = b"MMIDIDX\x00\x00"
_CODES = {np.dtype(np.uint16): 8, np.dtype(np.int32): 4}
_LARGEST_SMALL_VOCABULARY = 65_500  # Megatron's bound for two-byte ids
_HEADER_SIZE = len(_HEADER) + struct.calcsize("<QBQQ")
_INDEX_BLOCK = 1 << 18  # documents whose index entries are in memory at once
_COPY_BLOCK = 1 << 22  # bytes, a multiple of every id's size


def shard_dtype(vocab_size: int) -> np.dtype:
    """The dtype of a shard's ids, uint16 or int32, as Megatron chooses it."""
    return np.dtype(np.uint16 if vocab_size < _LARGEST_SMALL_VOCABULARY else np.int32)


class _IndexWriter:
    """Writes an .idx file: header, lengths, byte offsets, document borders. The lengths go to the file as they come, so
    that memory does not grow with their number."""

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        self._path, self._dtype = path, dtype
        self.documents = 0
        self._file: BinaryIO = open(path, "w+b")  # noqa: SIM115 - closed by finish and close
        self._file.write(bytes(_HEADER_SIZE))

    def add(self, lengths: np.ndarray) -> None:
        """Appends documents of `lengths` tokens, [D] int32."""
        self._file.write(lengths.tobytes())
        self.documents += len(lengths)

    def finish(self) -> tuple[int, str]:
        """Completes the file, flushes it to disk and returns its size in bytes and its SHA-256."""
        end = 0
        for start in range(0, self.documents, _INDEX_BLOCK):
            lengths = self._lengths(start)
            ends = end + np.cumsum(lengths, dtype=np.int64) * self._dtype.itemsize
            self._append(np.concatenate([[end], ends[:-1]]))
            end = int(ends[-1])
        for start in range(0, self.documents + 1, _INDEX_BLOCK):
            self._append(np.arange(start, min(start + _INDEX_BLOCK, self.documents + 1)))
        size = self._file.tell()
        self._file.seek(0)
        counts = struct.pack("<QBQQ", 1, _CODES[self._dtype], self.documents, self.documents + 1)
        self._file.write(_HEADER + counts)
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()
        return size, sha256_file(self._path)

    def close(self) -> None:
        self._file.close()

    def _lengths(self, start: int) -> np.ndarray:
        self._file.seek(_HEADER_SIZE + start * 4)
        return np.frombuffer(self._file.read(4 * min(_INDEX_BLOCK, self.documents - start)), np.int32)

    def _append(self, values: np.ndarray) -> None:
        self._file.seek(0, os.SEEK_END)
        self._file.write(values.astype(np.int64).tobytes())


class ShardWriter:
    """Writes PREFIX.bin and PREFIX.idx under temporary names; `finish` makes them appear. A context manager: leaving it
    without `finish` leaves nothing behind."""

    def __init__(self, prefix: Path, tokenizer: Tokenizer, byte_lengths: np.ndarray) -> None:
        """`byte_lengths` [V] int: UTF-8 bytes a token, to count the text's bytes."""
        self._vocab_size = tokenizer.vocab_size
        self._byte_lengths = byte_lengths
        self._dtype = shard_dtype(tokenizer.vocab_size)
        self._files = _ShardFiles(prefix, self._dtype)
        self._bytes = 0
        self._largest = -1

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.discard()

    def add(self, ids: Sequence[int] | np.ndarray) -> None:
        """Appends one document: its token ids [n], the end-of-text token included; n >= 1."""
        document = np.asarray(ids, dtype=np.int64)
        assert document.size > 0, "a document has at least its end-of-text token"
        self._count(document)
        self._files.add(document.astype(self._dtype).tobytes(), np.array([document.size]))

    def add_encoded(self, data: bytes, lengths: np.ndarray) -> None:
        """Appends documents: `data` are the ids of all in the shard's dtype, `lengths` [D] int the tokens of each, the
        end-of-text token included; each >= 1."""
        ids = np.frombuffer(data, self._dtype)
        assert int(lengths.sum()) == ids.size, f"{ids.size} tokens for documents of {int(lengths.sum())}"
        assert lengths.min(initial=1) > 0, "a document has at least its end-of-text token"
        if ids.size:
            self._count(ids)
            self._files.add(data, lengths)

    def finish(self) -> ShardEntry:
        """Flushes both files to disk, renames them into place and says what they hold."""
        return self._files.finish(self._bytes, self._largest)

    def _count(self, ids: np.ndarray) -> None:
        """Adds the bytes and the largest of ids [n], n >= 1."""
        smallest, largest = int(ids.min()), int(ids.max())
        assert 0 <= smallest <= largest < self._vocab_size, f"token id outside 0..{self._vocab_size - 1}"
        self._bytes += int(self._byte_lengths[ids].sum())
        self._largest = max(self._largest, largest)


class _ShardFiles:
    """The two files of a shard in the making."""

    def __init__(self, prefix: Path, dtype: np.dtype) -> None:
        prefix.parent.mkdir(parents=True, exist_ok=True)
        self._paths = [prefix.with_name(prefix.name + suffix) for suffix in (".bin", ".idx")]
        self._temporary = [path.with_name(f"{path.name}.{os.getpid()}.tmp") for path in self._paths]
        self._itemsize = dtype.itemsize
        self._tokens = 0
        self._hash = hashlib.sha256()
        self._bin: BinaryIO = open(self._temporary[0], "wb")  # noqa: SIM115 - closed by finish and discard
        self._index = _IndexWriter(self._temporary[1], dtype)

    def add(self, data: bytes | memoryview, lengths: np.ndarray) -> None:
        """Appends ids, and the lengths [D] int of the documents that they belong to."""
        self._bin.write(data)
        self._hash.update(data)
        self._tokens += len(data) // self._itemsize
        assert lengths.max(initial=0) < 1 << 31, "a document of more than 2^31 tokens"
        self._index.add(lengths.astype(np.int32))

    def finish(self, utf8_bytes: int, largest: int) -> ShardEntry:
        idx_bytes, idx_sha256 = self._index.finish()
        self._bin.flush()
        os.fsync(self._bin.fileno())
        self._bin.close()
        for temporary, path in zip(self._temporary, self._paths, strict=True):
            os.replace(temporary, path)
        return ShardEntry(
            documents=self._index.documents,
            tokens=self._tokens,
            utf8_bytes=utf8_bytes,
            largest_id=largest,
            bin_bytes=self._tokens * self._itemsize,
            idx_bytes=idx_bytes,
            bin_sha256=self._hash.hexdigest(),
            idx_sha256=idx_sha256,
        )

    def discard(self) -> None:
        self._bin.close()
        self._index.close()
        for path in self._temporary:
            path.unlink(missing_ok=True)


def merge_shards(parts: Sequence[tuple[Path, ShardEntry]], prefix: Path) -> ShardEntry:
    """Writes the documents of `parts` (prefix, entry), in order, as one shard: the bytes that one writer would give.

    The parts stay. Memory does not grow with them. Raises DataError for a part that is not what its entry says.
    """
    assert parts, "a shard is merged from at least one part"
    codes = [_read_code(part, entry) for part, entry in parts]
    if len(set(codes)) > 1:
        raise DataError(f"{parts[codes.index(max(codes))][0]}.idx: ids of another size than {parts[0][0]}'s; {REMEDY}")
    files = _ShardFiles(prefix, np.dtype(np.uint16 if codes[0] == _CODES[np.dtype(np.uint16)] else np.int32))
    try:
        for part, entry in parts:
            none = np.zeros(0, np.int32)
            for block in _blocks(part.with_name(part.name + ".bin"), 0, entry.bin_bytes):
                files.add(block, none)
            for block in _blocks(part.with_name(part.name + ".idx"), _HEADER_SIZE, entry.documents * 4):
                files.add(b"", np.frombuffer(block, np.int32))
        return files.finish(sum(entry.utf8_bytes for _, entry in parts), max(entry.largest_id for _, entry in parts))
    finally:
        files.discard()


def _read_code(part: Path, entry: ShardEntry) -> int:
    """Megatron's code of a part's dtype. Raises DataError when the part's files are not of the sizes in `entry`."""
    for path, size in shard_files(part, entry).items():
        if not path.is_file() or path.stat().st_size != size:
            raise DataError(f"{path}: is not the {size} bytes that were written; {REMEDY}")
    with open(f"{part}.idx", "rb") as file:
        head = file.read(_HEADER_SIZE)
    if head[: len(_HEADER)] != _HEADER:
        raise DataError(f"{part}.idx: not an index of token ids; {REMEDY}")
    return head[len(_HEADER) + 8]


def _blocks(path: Path, start: int, size: int) -> Iterator[bytes]:
    """`size` bytes of a file from `start`, block by block."""
    with open(path, "rb") as file:
        file.seek(start)
        while size > 0:
            block = file.read(min(size, _COPY_BLOCK))
            if not block:
                raise DataError(f"{path}: ends {size} bytes too early; {REMEDY}")
            yield block
            size -= len(block)


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


def open_megatron_builder(prefix: Path, vocab_size: int) -> Any:
    """Megatron's own writer of PREFIX.bin, for comparisons; `finalize(PREFIX.idx)` ends it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder
    return IndexedDatasetBuilder(f"{prefix}.bin", dtype=DType.optimal_dtype(vocab_size))
