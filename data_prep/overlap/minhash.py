"""MinHash (Broder 1997) of documents' word n-grams, and its bands for locality-sensitive hashing.

Two documents whose sets of n-grams have the Jaccard similarity s agree in each of `bands` x `rows` minima with
probability s, so in all minima of at least one band with probability 1 - (1 - s^rows)^bands.

The minima are those of (a h + b) mod 2^32 over the n-grams' hashes h, one drawn pair (a odd, b) a minimum. In numpy, a
batch of documents at once, this costs about as much as the compiled one-permutation sketches that were tried, once
their rows have become arrays; its minima are independent, and the same with every version of every library.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from pydantic import Field

from data_prep.overlap.words import BATCH, Words, mixed, pieces, words_of
from rlpt.config_objectives import Section
from rlpt.tasks.base import keyed_hash


class DedupConfig(Section):
    """Which documents count as the same. Those with fewer than `ngram` words are compared exactly only."""

    exact: Literal["text", "normalised"] = Field(
        "text", description="equal texts; or equal in lower case with any white space as one space"
    )
    near: bool = Field(False, description="also near-duplicates: documents that share a band of MinHash values")
    ngram: int = Field(5, ge=1, description="words a shingle")
    bands: int = Field(14, ge=1, description="more find more; FineWeb's 14 x 8 (2406.17557) find half at Jaccard 0.7")
    rows: int = Field(8, ge=1, description="MinHash values a band; more are stricter")
    seed: int = Field(1, ge=0, description="of the hash functions")


def chance_of_a_match(similarity: np.ndarray, config: DedupConfig) -> np.ndarray:
    """Jaccard similarities -> probabilities of at least one equal band, of the same shape."""
    return 1 - (1 - similarity**config.rows) ** config.bands


def band_hashes(texts: Sequence[str], config: DedupConfig) -> tuple[np.ndarray, np.ndarray]:
    """Hashes [long documents, bands] u64 of one batch (`words.batches`), and which documents are long [documents] bool:
    have at least `ngram` words."""
    values, is_long = minima(texts, config)
    *_, weights = _functions(config.bands * config.rows, config.seed)
    weighted = (values * weights[:, None]).reshape(config.bands, config.rows, -1).sum(axis=1)
    return mixed(weighted.T), is_long


def minima(texts: Sequence[str], config: DedupConfig) -> tuple[np.ndarray, np.ndarray]:
    """MinHash values [bands x rows, long documents] u32 of one batch, and which documents are long [documents] bool."""
    if len(texts) > 1 or len(texts[0]) <= BATCH:
        return _minima(words_of(texts), config)
    parts = [_minima(words_of([part]), config) for part in pieces(texts[0], config.ngram)]
    values = np.concatenate([values for values, _ in parts], axis=1)
    is_long = np.array([values.shape[1] > 0])
    return values.min(axis=1, keepdims=True) if is_long[0] else values, is_long


def _minima(words: Words, config: DedupConfig) -> tuple[np.ndarray, np.ndarray]:
    hashes, offsets = words.runs(config.ngram)
    is_long = np.diff(offsets) > 0
    factors, summands, _ = _functions(config.bands * config.rows, config.seed)
    values = np.empty((len(factors), int(is_long.sum())), dtype=np.uint32)
    if is_long.any():
        shingles, begins = (hashes >> np.uint64(32)).astype(np.uint32), offsets[:-1][is_long]
        buffer = np.empty_like(shingles)
        for factor, summand, row in zip(factors, summands, values):
            np.multiply(shingles, factor, out=buffer)
            np.add(buffer, summand, out=buffer)
            np.minimum.reduceat(buffer, begins, out=row)
    return values, is_long


@lru_cache(maxsize=4)
def _functions(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Factors (odd) and summands [count] u32 of the hash functions, and weights (odd) [count] u64 of their minima in a
    band's hash."""
    keys = [[keyed_hash("minhash", seed, index, use) for index in range(count)] for use in range(3)]
    drawn = np.array(keys, dtype=np.uint64)
    factors, summands = (drawn[:2] >> np.uint64(32)).astype(np.uint32)
    return factors | np.uint32(1), summands, drawn[2] | np.uint64(1)
