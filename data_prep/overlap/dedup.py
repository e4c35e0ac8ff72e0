"""Exact and near-duplicates of a corpus that is no matter how large, part by part and then hash by hash.

A document's id is its part's index and its row in the part, so ids are in the corpus's order. `sign_part` writes each
document's hashes (one of its text, one of each MinHash band) with its id, sorted by hash. `match_partition` merges one
range of hashes of all parts' files, and for each document that is not the first with its hash writes the first one.
`duplicates_in` reads what was found of one part. Parts and partitions are worked off in any order by any number of
processes, each of which holds a fixed number of records. The documents that are dropped are the same however documents
are cut into parts and hashes into partitions.

A document is dropped where an earlier one has the hash of its text or of one of its bands, whether that one is dropped
or not. This is decided for each hash alone; the connected components of the graph of pairs, of which one document
would stay, need all pairs in one place. The two differ for a document whose links all lead to later ones: of a, b, c
with the links a-c and b-c, components drop b and c, and this drops c alone, so what is kept shares no hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from data_prep.documents import Document
from data_prep.overlap.minhash import DedupConfig, band_hashes
from data_prep.overlap.records import BUDGET, Sorter, keys_between, merge
from data_prep.overlap.words import batches

EXACT, NEAR = "exact", "near"  # kinds of duplicates
_NEAR_BIT = np.uint64(1)  # lowest bit of a hash: it is a band's
_NEAR_FLAG = np.uint64(1 << 63)  # highest bit of a match's value: it is by a band, so exact matches are smaller
_ROW_BITS = 32
_LISTED = 1 << 16  # records that are Python integers at a time


def document_id(part: int, row: int) -> int:
    """63 bits: the part's index (31) and the row in the part (32)."""
    if not (0 <= part < 1 << 31 and 0 <= row < 1 << _ROW_BITS):
        raise ValueError(f"part {part}, row {row}: ids hold 31 and 32 bits")
    return part << _ROW_BITS | row


def sign_part(
    documents: Iterable[Document], part: int, path: Path, config: DedupConfig, budget: int = BUDGET
) -> dict[str, int]:
    """Writes the hashes of a part's documents, in its order, as sorted records (hash, id), atomically.

    Returns {"documents", "utf8_bytes", "records", "short": documents that are too short for MinHash}. The lowest bit of
    a hash tells exact (0) from near (1). `budget` records are in memory at a time.
    """
    figures = {"documents": 0, "utf8_bytes": 0, "records": 0, "short": 0}
    first = document_id(part, 0)
    with Sorter(path, budget) as sorter:
        for texts in batches(document.text for document in documents):
            ids = np.arange(len(texts), dtype=np.uint64) + np.uint64(first + figures["documents"])
            encoded = [text.encode("utf-8") for text in texts]
            sorter.add(_exact_hashes(texts, encoded, config) & ~_NEAR_BIT, ids)
            if config.near:
                hashes, is_long = band_hashes(texts, config)
                sorter.add((hashes | _NEAR_BIT).ravel(), np.repeat(ids[is_long], config.bands))
                figures["short"] += len(texts) - int(is_long.sum())
            figures["documents"] += len(texts)
            figures["utf8_bytes"] += sum(map(len, encoded))
        figures["records"] = sorter.write()
    return figures


def num_partitions(records: int) -> int:
    """Partitions such that each holds about what `match_partition` has in memory at a time, of all parts' records."""
    return max(-(-records // BUDGET), 1)


def match_partition(
    paths: Sequence[Path], partition: int, partitions: int, out: Path, budget: int = BUDGET
) -> dict[str, int]:
    """Writes the duplicates among one range of hashes of all parts' files, as records (id, first id with that hash)
    sorted by id, atomically; of several hashes, the best match (exact before near, then the earliest document).

    Returns {"records", "matches"}. `paths` is in any order; `budget` as in `sign_part`. Raises DataError for a
    broken file.
    """
    if not 0 <= partition < partitions:
        raise ValueError(f"partition {partition} is not below {partitions}")
    low, high = (-(-(index << 64) // partitions) for index in (partition, partition + 1))
    records = 0
    hash_before, first_before = np.uint64(0), np.uint64(0)
    with Sorter(out, budget) as sorter:
        for block in merge([keys_between(path, low, high) for path in paths], budget):
            hashes, ids = block[:, 0], block[:, 1]
            is_first = np.append(not records or hashes[0] != hash_before, hashes[1:] != hashes[:-1])
            at = np.maximum.accumulate(np.where(is_first, np.arange(len(block)), -1))
            firsts = np.where(at >= 0, ids[at], first_before)
            is_match = ~is_first & (ids != firsts)  # one document may have a hash twice
            is_near = (hashes[is_match] & _NEAR_BIT) != 0
            sorter.add(ids[is_match], np.where(is_near, firsts[is_match] | _NEAR_FLAG, firsts[is_match]))
            records += len(block)
            hash_before, first_before = hashes[-1], firsts[-1]
        return {"records": records, "matches": sorter.write(one_a_key=True)}


def duplicates_in(paths_of_matches: Sequence[Path], part: int) -> dict[int, tuple[str, int]]:
    """Row -> (`EXACT` or `NEAR`, id of an earlier document that it repeats) of the documents of a part that are to be
    dropped, in order of rows. `paths_of_matches` are of all partitions, in any order."""
    low, high = document_id(part, 0), part + 1 << _ROW_BITS
    best: dict[int, int] = {}
    for block in merge([keys_between(path, low, high) for path in paths_of_matches], _LISTED):
        for document, value in block.tolist():
            best.setdefault(document - low, value)  # in order of values: the first is the best
    flag = int(_NEAR_FLAG)
    return {row: (NEAR, value ^ flag) if value & flag else (EXACT, value) for row, value in best.items()}


def _exact_hashes(texts: Sequence[str], encoded: Sequence[bytes], config: DedupConfig) -> np.ndarray:
    """[documents] u64: BLAKE2b of the text, or of its normalised form."""
    if config.exact == "normalised":
        encoded = [" ".join(text.lower().split()).encode("utf-8") for text in texts]
    digests = b"".join(hashlib.blake2b(data, digest_size=8).digest() for data in encoded)
    return np.frombuffer(digests, dtype="<u8")
