"""What a shard holds in numbers, in memory that does not grow with it: lengths, tokens, words.

Lengths are those of all documents. Tokens are counted in all documents of a shard of at most `limit` tokens, else in
stretches of `STRETCH` tokens that are evenly spread over it; `TokenCounts.tokens` says how many were read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rlpt.data.indexed import Shard
from rlpt.types import Tokenizer

LIMIT = 1 << 24  # tokens of a shard that are read
STRETCH = 1 << 12  # tokens that are read in one place
_BLOCK = 1 << 16  # documents whose lengths are looked at together
_MOST_LENGTHS = 1 << 20  # lengths, evenly spread, that quantiles are taken of
_SPACES = b" \t\n\r\x0b\x0c"


@dataclass(frozen=True)
class Lengths:
    """Tokens a document, end-of-text tokens included."""

    edges: np.ndarray  # [B + 1] int64: bin b holds lengths from edges[b] up to, without, edges[b + 1]
    counts: np.ndarray  # [B] int64 documents
    shortest: int
    median: int
    most: int  # 90 % of the documents are at most so long
    longest: int
    mean: float


@dataclass(frozen=True)
class TokenCounts:
    """Of the tokens that were read."""

    counts: np.ndarray  # [V] int64, by id
    tokens: int
    utf8_bytes: int
    words: int  # runs of bytes without ASCII white space; marks and ends of documents part them, too
    is_sample: bool  # whether not all of the shard was read

    @property
    def bytes_per_token(self) -> float:
        """Fertility the other way round: text that a token stands for."""
        return self.utf8_bytes / max(self.tokens, 1)

    @property
    def tokens_per_word(self) -> float:
        """Fertility."""
        return self.tokens / max(self.words, 1)

    @property
    def num_used(self) -> int:
        """Different tokens that occur."""
        return int((self.counts > 0).sum())


@dataclass(frozen=True)
class TokenTable:
    """What each token does to the text, as arrays over ids."""

    num_bytes: np.ndarray  # [V] int64 UTF-8 bytes
    starts: np.ndarray  # [V] int64 words that start inside it, behind white space of its own
    is_word_first: np.ndarray  # [V] bool: its first byte is of a word
    is_word_last: np.ndarray  # [V] bool: its last byte is of a word


def token_table(tokenizer: Tokenizer) -> TokenTable:
    """Of every token of the vocabulary."""
    spelt = [tokenizer.decode_bytes([token]) for token in range(tokenizer.vocab_size)]
    first = np.array([bool(text) and text[0] not in _SPACES for text in spelt])
    last = np.array([bool(text) and text[-1] not in _SPACES for text in spelt])
    starts = np.array([len(text.split()) for text in spelt], dtype=np.int64) - first
    return TokenTable(np.array([len(text) for text in spelt], dtype=np.int64), starts, first, last)


def count_lengths(lengths: np.ndarray) -> Lengths:
    """Of documents [D], at least one. Bins are two a doubling: 1, 2, 3, 4, 6, 8, 12, ..."""
    longest = int(lengths.max())
    edges = [1]
    while edges[-1] <= longest:
        power = 1 << (edges[-1].bit_length() - 1)
        edges.append(edges[-1] + 1 if power == 1 else power * 3 // 2 if edges[-1] == power else power * 2)
    counts = np.zeros(len(edges) - 1, dtype=np.int64)
    for start in range(0, len(lengths), _BLOCK):
        counts += np.histogram(lengths[start : start + _BLOCK], edges)[0]
    spread = np.sort(lengths[:: -(-len(lengths) // _MOST_LENGTHS)])
    median, most = (int(spread[int(share * (len(spread) - 1))]) for share in (0.5, 0.9))
    return Lengths(
        np.array(edges, dtype=np.int64), counts, int(lengths.min()), median, most, longest, float(lengths.mean())
    )


def count_tokens(shard: Shard, table: TokenTable, limit: int = LIMIT) -> TokenCounts:
    """Reads the shard, or stretches of it where it holds more than `limit` tokens."""
    is_sample = shard.num_tokens > limit
    counts = np.zeros(len(table.num_bytes), dtype=np.int64)
    tokens = words = 0
    was_word = np.zeros(1, dtype=bool)  # whether the byte before is of a word
    for ids in stretches(shard, limit) if is_sample else shard.chunks():
        if is_sample:
            was_word = np.zeros(1, dtype=bool)
        counts += np.bincount(ids, minlength=len(counts))
        tokens += len(ids)
        before = np.concatenate([was_word, table.is_word_last[ids[:-1]]])
        words += int(table.starts[ids].sum() + (table.is_word_first[ids] & ~before).sum())
        was_word = table.is_word_last[ids[-1:]]
    return TokenCounts(counts, tokens, int(counts @ table.num_bytes), words, is_sample)


def stretches(shard: Shard, limit: int) -> Iterator[np.ndarray]:
    """`limit` / `STRETCH` (at least one) arrays of up to `STRETCH` ids, from evenly spread places of the shard."""
    count = max(1, limit // STRETCH)
    places = np.arange(count) * shard.num_tokens // count  # offsets in tokens, ascending
    offset = 0
    for start in range(0, shard.num_documents, _BLOCK):
        ends = offset + np.cumsum(shard.lengths[start : start + _BLOCK], dtype=np.int64)
        inside = places[(places >= offset) & (places < ends[-1])]
        for place, within in zip(inside, np.searchsorted(ends, inside, side="right"), strict=True):
            index = start + int(within)
            yield _read(shard, index, int(place - ends[within] + shard.lengths[index]))
        offset = int(ends[-1])


def _read(shard: Shard, index: int, start: int) -> np.ndarray:
    """Up to `STRETCH` ids from token `start` of document `index` on."""
    found: list[np.ndarray] = []
    left = STRETCH
    while left and index < shard.num_documents:
        stop = min(start + left, int(shard.lengths[index]))
        found.append(shard.document(index, start, stop))
        left -= stop - start
        index, start = index + 1, 0
    return np.concatenate(found)
