"""How many planted near-duplicates are found, and what else is dropped with them: `measure` runs the real thing.

Copies of documents with a share of their words edited are put behind the documents, and all are signed and matched.
Beside the share that was found stands what MinHash promises for the copies' true Jaccard similarities.
"""

from __future__ import annotations

import random
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.documents import Document
from data_prep.overlap.dedup import DedupConfig, document_id, duplicates_in, match_partition, num_partitions, sign_part
from data_prep.overlap.minhash import chance_of_a_match
from data_prep.overlap.words import pieces, words_of
from rlpt.errors import DataError
from rlpt.tasks.base import keyed_random

EDITS = (0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2)
ALIKE = 0.5  # Jaccard similarity below which a pair is no duplicate
_LEAST_WORDS = 50  # of a document that is copied: fewer, and a share of edits is no number of words
_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Row:
    """What became of one kind of document."""

    edits: float | None  # share of words edited in the copies; None: the documents themselves
    documents: int
    similarity: float  # mean true Jaccard similarity of copy and original; nan for the documents themselves
    dropped: int
    expected: float  # copies that MinHash promises to find; nan for the documents themselves
    wrong: int  # dropped for a document with which they have a Jaccard similarity below `ALIKE`
    kinds: dict[str, int]  # dropped, by kind

    @property
    def recall(self) -> float:
        """Share that was dropped."""
        return self.dropped / self.documents


def measure(texts: Sequence[str], config: DedupConfig, edits: Sequence[float] = EDITS, copies: int = 500) -> list[Row]:
    """A row for the texts themselves, then one for each share of edits. `copies` texts, spread evenly over those with
    enough words, are copied for each share. Everything is in memory: a sample of a corpus, not the corpus.

    Raises DataError when no text has enough words.
    """
    long_enough = [index for index, text in enumerate(texts) if len(_WORD.findall(text)) >= _LEAST_WORDS]
    if not long_enough:
        raise DataError(f"none of {len(texts)} documents has {_LEAST_WORDS} words; measure on longer ones")
    chosen = [long_enough[at * len(long_enough) // copies] for at in range(copies)]
    parts = [list(texts)]
    for share in edits:
        parts.append([edited(texts[index], share, (at, index)) for at, index in enumerate(chosen)])
    dropped = _run(parts, config)
    rows = [_row(None, parts, 0, dropped[0], np.array([np.nan]), config)]
    for part, share in enumerate(edits, start=1):
        similarities = [
            jaccard(texts[index], copy, config.ngram) for index, copy in zip(chosen, parts[part], strict=True)
        ]
        rows.append(_row(share, parts, part, dropped[part], np.array(similarities), config))
    return rows


def table(rows: Iterable[Row]) -> str:
    """The rows as text, with the precision of all that was dropped."""
    rows = list(rows)
    lines = ["words edited  documents  Jaccard  dropped (exact + near)  recall  expected  wrong"]
    for row in rows:
        exact, near = row.kinds.get("exact", 0), row.kinds.get("near", 0)
        name = "none planted" if row.edits is None else f"{row.edits:.0%}"
        figures = f"{row.dropped:8} ({exact:5} + {near:5})"
        similarity, recall, expected = (
            ("-", "-", "-")
            if row.edits is None
            else (f"{row.similarity:.3f}", f"{row.recall:.3f}", f"{row.expected / row.documents:.3f}")
        )
        lines.append(
            f"{name:12} {row.documents:10} {similarity:>8} {figures:>23} {recall:>7} {expected:>9} {row.wrong:6}"
        )
    dropped, wrong = sum(row.dropped for row in rows), sum(row.wrong for row in rows)
    precision = f"{1 - wrong / dropped:.4f}" if dropped else "-"
    lines.append(
        f"precision {precision}: {wrong} of {dropped} dropped for a document with Jaccard similarity < {ALIKE}"
    )
    return "\n".join(lines)


def edited(text: str, share: float, key: object) -> str:
    """A copy in which each word is, with probability `share`, replaced by another of the text's words, deleted, or
    preceded by another; white space stays. The same for the same key."""
    rng = keyed_random("planted", 0, 0, f"{key} {share}")
    words = _WORD.findall(text)

    def edit(match: re.Match[str]) -> str:
        if rng.random() >= share:
            return match[0]
        return _edit(match[0], words, rng)

    return _WORD.sub(edit, text)


def jaccard(one: str, other: str, ngram: int) -> float:
    """True Jaccard similarity of two texts' sets of word n-grams; of texts without any, whether they are equal."""
    first, second = (set(_ngrams(text, ngram)) for text in (one, other))
    return len(first & second) / len(first | second) if first or second else float(one == other)


def _ngrams(text: str, n: int) -> list[int]:
    return [value for part in pieces(text, n) for value in words_of([part]).runs(n)[0].tolist()]


def _edit(word: str, words: Sequence[str], rng: random.Random) -> str:
    kind, other = rng.randrange(3), rng.choice(words)
    return (other, "", f"{other} {word}")[kind]


def _run(parts: Sequence[Sequence[str]], config: DedupConfig) -> list[dict[int, tuple[str, int]]]:
    with tempfile.TemporaryDirectory() as folder:
        signed = [Path(folder, f"signed-{part}") for part in range(len(parts))]
        records = 0
        for part, (path, texts) in enumerate(zip(signed, parts, strict=True)):
            records += sign_part((Document(text, "") for text in texts), part, path, config)["records"]
        count = num_partitions(records)
        matches = [Path(folder, f"matches-{partition}") for partition in range(count)]
        for partition, path in enumerate(matches):
            match_partition(signed, partition, count, path)
        return [duplicates_in(matches, part) for part in range(len(parts))]


def _row(
    share: float | None,
    parts: Sequence[Sequence[str]],
    part: int,
    dropped: dict[int, tuple[str, int]],
    similarities: np.ndarray,
    config: DedupConfig,
) -> Row:
    where = {document_id(p, row): text for p, texts in enumerate(parts) for row, text in enumerate(texts)}
    kinds: dict[str, int] = {}
    wrong = 0
    for row, (kind, first) in dropped.items():
        kinds[kind] = kinds.get(kind, 0) + 1
        wrong += kind == "near" and jaccard(parts[part][row], where[first], config.ngram) < ALIKE
    expected = float(chance_of_a_match(similarities, config).sum())
    return Row(share, len(parts[part]), float(similarities.mean()), len(dropped), expected, wrong, kinds)
