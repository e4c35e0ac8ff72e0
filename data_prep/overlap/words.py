"""Words of a text as near-duplicates and evaluation sets compare them, and 64-bit hashes of runs of n words.

A word is a run of letters, marks and digits, in lower case; everything else only separates words. A character of a
script that is written without spaces is a word of its own. The hash of a run is a polynomial over its characters, of
which the first of each word counts differently: the difference of two prefix sums, so that any n costs the same, and
numpy does a whole batch at once. It depends on the characters alone (and on Python's Unicode tables).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

BATCH = 1 << 17  # characters that are hashed at once, about: 15 MB of arrays
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_FIRST = np.uint64(0xD1B54A32D192ED02)  # what a word's first character counts more
_ALONE = np.uint64(1)  # bit of a character's code: it is a word of its own
_WITHOUT_SPACES = (  # blocks: Thai and Lao, Myanmar, Khmer, kana, ideographs
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3040, 0x30FF),
    (0x3400, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


def mixed(values: np.ndarray) -> np.ndarray:
    """u64 -> u64 of the same shape, one to one: splitmix64's last steps (Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@dataclass(frozen=True)
class Words:
    """The words of one batch of texts."""

    first: np.ndarray  # [texts + 1] i64: words first[i]:first[i + 1] are text i's
    starts: np.ndarray  # [words + 1] i64: characters starts[j]:starts[j + 1] are word j's
    sums: np.ndarray  # [characters + 1] u64: of the characters' codes times powers of the base

    def counts(self) -> np.ndarray:
        """[texts] i64: how many words each text has."""
        return np.diff(self.first)

    def runs(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Hashes [k] u64 of every run of n words within a text, and offsets [texts + 1] i64 of each text's."""
        counts = np.maximum(self.counts() - (n - 1), 0)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        begin = np.arange(offsets[-1]) + np.repeat(self.first[:-1] - offsets[:-1], counts)
        return self._hashes(begin, begin + n), offsets

    def whole(self) -> np.ndarray:
        """[texts] u64: the hash of each text's words, all of them; equal to `runs` of as many words."""
        return self._hashes(self.first[:-1], self.first[1:])

    def _hashes(self, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        start, stop = self.starts.take(begin), self.starts.take(end)
        return mixed((self.sums.take(stop) - self.sums.take(start)) * _powers(-1).take(start))


def words_of(texts: Sequence[str]) -> Words:
    """The words of texts that together, with one character between them, have at most 2 `BATCH` characters."""
    joined = "\n".join(texts)
    codes = _codes_of(joined)
    is_inside = codes != 0
    is_first = is_inside.copy()
    if joined.isascii():
        is_first[1:] &= ~is_inside[:-1]
    else:
        is_alone = (codes & _ALONE) != 0
        is_first[1:] &= ~is_inside[:-1] | is_alone[1:] | is_alone[:-1]
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    ends = np.cumsum(lengths + 1)
    first = np.searchsorted(np.flatnonzero(is_first), np.concatenate([[0], ends]))
    codes, is_first = codes.compress(is_inside), is_first.compress(is_inside)
    starts = np.flatnonzero(is_first)
    codes[starts] += _FIRST
    codes *= _powers(1)[: len(codes)]
    sums = np.zeros(len(codes) + 1, dtype=np.uint64)
    np.cumsum(codes, out=sums[1:])
    return Words(first, np.append(starts, len(codes)), sums)


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts in order, as lists of at most `BATCH` characters in all; a longer text is a list of its own."""
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and size + len(text) + 1 > BATCH:
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text) + 1
    if batch:
        yield batch


def pieces(text: str, n: int) -> Iterator[str]:
    """Parts of at most `BATCH` characters in which each run of n words of the text stands once: the last n - 1 words of
    one are the first of the next. (A word that is longer than a part is cut.)"""
    at = 0
    while len(text) - at > BATCH:
        part = text[at : at + BATCH]
        codes = _codes_of(part)
        is_first = codes != 0
        is_first[1:] &= (codes[:-1] == 0) | ((codes[1:] | codes[:-1]) & _ALONE != 0)
        starts = np.flatnonzero(is_first)
        if len(starts) > n and starts[-n] > 0:
            yield part[: starts[-1]]  # the last word may go on in the next part
            at += int(starts[-n])
        else:
            yield part
            at += BATCH
    yield text[at:]


def _codes_of(text: str) -> np.ndarray:
    return _codes().take(np.frombuffer(text.encode("utf-32-le"), dtype="<u4"))


@lru_cache(maxsize=1)
def _codes() -> np.ndarray:
    """[0x110000] u64: 0 for what separates words, else a hash of the character in lower case."""
    points = np.arange(0x110000, dtype=np.uint64)
    is_word = np.zeros(len(points), dtype=bool)
    for point in range(len(points)):
        character = chr(point)
        is_word[point] = character.isalnum() or unicodedata.category(character)[0] == "M"
        lower = character.lower()
        if lower != character and len(lower) == 1:
            points[point] = ord(lower)
    codes = mixed(points + np.uint64(_BASE)) & ~_ALONE
    for low, high in _WITHOUT_SPACES:
        codes[low : high + 1] |= _ALONE
    codes[~is_word] = 0
    return codes


@lru_cache(maxsize=2)
def _powers(sign: int) -> np.ndarray:
    """[2 BATCH + 1] u64: the powers 0, 1, ... of the base (1) or of its inverse (-1), modulo 2^64."""
    powers = np.full(2 * BATCH + 1, pow(_BASE, sign, 1 << 64), dtype=np.uint64)
    powers[0] = 1
    return np.cumprod(powers, dtype=np.uint64)
