"""Files of (key, value) records in order, written and merged in bounded memory.

A record is two u64, little-endian, 16 bytes; a file is nothing but its records, sorted by key and then by value. A
range of keys is found by bisection, so that no index is needed and no file stays open.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from rlpt.data.manifest import atomic_writer
from rlpt.errors import DataError

BUDGET = 1 << 19  # records in memory at a time: 8 MB, and about three times as much while they are sorted
_SIZE = 16  # bytes a record
_LEAST = 64  # records of a file that are read at once, however many files there are: 1 kB a file


@dataclass(frozen=True)
class RecordRange:
    """Records start:stop of a file."""

    path: Path
    start: int
    stop: int

    def read(self, at: int, count: int) -> np.ndarray:
        """Records [n, 2] u64 from `at` on: `count`, or what is left."""
        begin = min(self.start + at, self.stop)
        with open(self.path, "rb") as file:
            return _read(file, begin, min(count, self.stop - begin))


def whole_file(path: Path) -> RecordRange:
    """All its records. Raises DataError for a file that ends within one."""
    size = os.path.getsize(path)
    if size % _SIZE:
        raise DataError(f"{path}: {size} bytes are not whole records of {_SIZE}; delete it and run the stage again")
    return RecordRange(path, 0, size // _SIZE)


def keys_between(path: Path, low: int, high: int) -> RecordRange:
    """The records with low <= key < high."""
    everything = whole_file(path)
    with open(path, "rb") as file:
        return RecordRange(path, _bisect(file, everything.stop, low), _bisect(file, everything.stop, high))


def merge(ranges: Sequence[RecordRange], budget: int = BUDGET) -> Iterator[np.ndarray]:
    """The records of all ranges in order, as arrays [n, 2] u64; about `budget` of them are in memory at a time."""
    left = {index: 0 for index, part in enumerate(ranges) if part.stop > part.start}
    while left:
        count = max(budget // len(left), _LEAST)
        blocks = {index: ranges[index].read(at, count) for index, at in left.items()}
        unread = [
            (int(block[-1, 0]), int(block[-1, 1]))
            for index, block in blocks.items()
            if left[index] + len(block) < ranges[index].stop - ranges[index].start
        ]
        taken = {index: block[: _up_to(block, *min(unread))] if unread else block for index, block in blocks.items()}
        for index, block in taken.items():
            left[index] += len(block)
            if left[index] == ranges[index].stop - ranges[index].start:
                del left[index]
        some = [block for block in taken.values() if len(block)]
        yield some[0] if len(some) == 1 else in_order(np.concatenate(some))


class Sorter:
    """Takes records in any order and writes them in order: sorted runs go to files beside `path` as memory fills. A
    context manager, which removes the runs."""

    def __init__(self, path: Path, budget: int = BUDGET) -> None:
        """`budget` is in records."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._budget = path, budget
        self._folder = tempfile.TemporaryDirectory(prefix=f"{path.name}.", suffix=".tmp", dir=path.parent)
        self._waiting: list[np.ndarray] = []
        self._num_waiting = 0
        self._runs: list[RecordRange] = []

    def __enter__(self) -> Sorter:
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    def add(self, keys: np.ndarray, values: np.ndarray) -> None:
        """Takes records with these keys and values [n] u64."""
        for begin in range(0, len(keys), self._budget):
            part = slice(begin, begin + self._budget)
            if self._num_waiting + len(keys[part]) > self._budget:
                self._spill()
            self._waiting.append(np.stack([keys[part], values[part]], axis=1).astype("<u8", copy=False))
            self._num_waiting += len(keys[part])

    def write(self, one_a_key: bool = False) -> int:
        """Writes all that was taken to `path`, atomically, and returns how many records it holds; with `one_a_key`,
        only the smallest value of each key."""
        self._spill()
        written, last = 0, -1
        with atomic_writer(self._path) as file:
            for block in merge(self._runs, self._budget):
                if one_a_key:
                    is_new = np.append(int(block[0, 0]) != last, block[1:, 0] != block[:-1, 0])
                    last = int(block[-1, 0])
                    block = block[is_new]
                file.write(block.astype("<u8", copy=False).tobytes())
                written += len(block)
        return written

    def _spill(self) -> None:
        if self._waiting:
            path = Path(self._folder.name) / str(len(self._runs))
            in_order(np.concatenate(self._waiting)).tofile(path)
            self._runs.append(RecordRange(path, 0, self._num_waiting))
            self._waiting, self._num_waiting = [], 0


def in_order(records: np.ndarray) -> np.ndarray:
    """Records [n, 2] sorted by key, then by value."""
    records = records.take(np.argsort(records[:, 0]), axis=0)
    is_equal = records[1:, 0] == records[:-1, 0]
    tied = np.flatnonzero(np.append(is_equal, False) | np.insert(is_equal, 0, False))
    among = records[tied]  # few as a rule; a sort by one column is several times as fast as by two
    records[tied] = among.take(np.lexsort((among[:, 1], among[:, 0])), axis=0)
    return records


def _read(file: BinaryIO, begin: int, count: int) -> np.ndarray:
    file.seek(begin * _SIZE)
    return np.frombuffer(file.read(count * _SIZE), dtype="<u8").reshape(-1, 2)


def _bisect(file: BinaryIO, count: int, key: int) -> int:
    """The first record whose key is at least `key`."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if int(_read(file, middle, 1)[0, 0]) < key:
            low = middle + 1
        else:
            high = middle
    return low


def _up_to(block: np.ndarray, key: int, value: int) -> int:
    """How many records of a sorted block are at most (key, value)."""
    begin = int(np.searchsorted(block[:, 0], np.uint64(key), side="left"))
    end = int(np.searchsorted(block[:, 0], np.uint64(key), side="right"))
    return begin + int(np.searchsorted(block[begin:end, 1], np.uint64(value), side="right"))
