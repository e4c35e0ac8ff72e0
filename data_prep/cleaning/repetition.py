"""The repetition filters of Gopher (Rae et al. 2021, arXiv 2112.11446, table A1).

A duplicate is an occurrence after the first. Shares of characters are of those that aren't white space. An n-gram is n
words in a row; of overlapping ones every character counts once. (Open implementations differ in the first two points;
the table says neither.)"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, get_args

import numpy as np
from pydantic import AfterValidator, Field

from rlpt.config_objectives import Section

RepetitionRule = Literal["lines", "paragraphs", "top_ngrams", "duplicate_ngrams"]
_PARAGRAPH_END = re.compile(r"\n\s*\n")


def _sizes_from_one(shares: dict[int, float]) -> dict[int, float]:
    wrong = [f"{size}: {share}" for size, share in shares.items() if size < 1 or not 0 <= share <= 1]
    if wrong:
        raise ValueError(f"{wrong[0]}: sizes are 1 or more and shares between 0 and 1")
    return shares


_Shares = Annotated[dict[int, float], AfterValidator(_sizes_from_one)]


class RepetitionConfig(Section):
    """Gopher's repetition rules with their published thresholds."""

    rules: list[RepetitionRule] = Field(
        list(get_args(RepetitionRule)), min_length=1, description="those that are asked, in the published order"
    )
    lines: float = Field(0.3, ge=0, le=1, description="of lines: largest share that are duplicates")
    line_characters: float = Field(0.2, ge=0, le=1, description="of lines: largest share of characters in duplicates")
    paragraphs: float = Field(0.3, ge=0, le=1, description="of paragraphs: largest share that are duplicates")
    paragraph_characters: float = Field(
        0.2, ge=0, le=1, description="of paragraphs: largest share of characters in duplicates"
    )
    top_ngrams: _Shares = Field(
        {2: 0.2, 3: 0.18, 4: 0.16},
        description="n -> largest share of characters in the most frequent n-gram; it occurs at least twice",
    )
    duplicate_ngrams: _Shares = Field(
        {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.1},
        description="n -> largest share of characters in duplicate n-grams",
    )


def repetition_fault(text: str, words: Sequence[str], config: RepetitionConfig) -> str:
    """Name of the first rule that the document breaks, "" if none. `words` are `text.split()`, at least one.

    A value on its threshold passes."""
    if "lines" in config.rules:
        count, characters = duplicate_shares([bare for line in text.split("\n") if (bare := line.strip())])
        if count > config.lines:
            return "repeated_lines"
        if characters > config.line_characters:
            return "repeated_line_characters"
    if "paragraphs" in config.rules:
        count, characters = duplicate_shares([bare for part in _PARAGRAPH_END.split(text) if (bare := part.strip())])
        if count > config.paragraphs:
            return "repeated_paragraphs"
        if characters > config.paragraph_characters:
            return "repeated_paragraph_characters"
    tops = config.top_ngrams if "top_ngrams" in config.rules else {}
    duplicates = config.duplicate_ngrams if "duplicate_ngrams" in config.rules else {}
    return ngram_fault(words, tops, duplicates) if tops or duplicates else ""


def duplicate_shares(pieces: Sequence[str]) -> tuple[float, float]:
    """(share of pieces, share of their characters) that are duplicates of an earlier piece."""
    different = set(pieces)
    if len(different) == len(pieces):
        return 0.0, 0.0
    characters = sum(map(len, pieces))
    return (len(pieces) - len(different)) / len(pieces), (characters - sum(map(len, different))) / characters


def ngram_fault(words: Sequence[str], tops: Mapping[int, float], duplicates: Mapping[int, float]) -> str:
    """Name of the first n-gram rule that is broken, by rising n; "" if none.

    A repeated n-gram begins and ends with a repeated (n-1)-gram, so each size looks only where the last one found
    repetition. Equal n-grams are told by equal pairs (number of the (n-1)-gram, number of the last word): exactly,
    without hashes."""
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    word_ids = np.fromiter(map(numbers.__getitem__, words), np.int64, len(words))
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    ends = np.concatenate(([0], np.cumsum(lengths)))  # ends[i]: characters before word i
    starts = np.arange(len(words))  # first words of the n-grams that occur more than once
    groups = word_ids  # [starts]: equal n-grams have equal numbers
    repeated = np.zeros(len(words) + 1, bool)
    for size in range(1, max([*tops, *duplicates]) + 1):
        if size > 1:
            follows = repeated[starts + 1]
            starts, groups = starts[follows], groups[follows]
            keys = groups * len(numbers) + word_ids[starts + size - 1]
            _, groups = np.unique(keys, return_inverse=True)
        counts = np.bincount(groups)[groups]
        again = counts > 1
        starts, groups, counts = starts[again], groups[again], counts[again]
        if not len(starts):
            return ""
        if size in tops:
            most = counts.argmax()  # of equally frequent ones the first
            top = (ends[starts[most] + size] - ends[starts[most]]) * counts[most]
            if top / ends[-1] > tops[size]:
                return f"top_{size}_gram"
        if size in duplicates and _covered(starts, groups, size, lengths) / ends[-1] > duplicates[size]:
            return f"duplicate_{size}_grams"
        repeated[:] = False
        repeated[starts] = True
    return ""


def _covered(starts: np.ndarray, groups: np.ndarray, size: int, lengths: np.ndarray) -> int:
    """Characters of words in n-grams that occurred before. starts, groups: [N], starts rising; lengths: [words]."""
    first = np.full(int(groups.max()) + 1, -1)
    first[groups[::-1]] = starts[::-1]
    later = starts[first[groups] != starts]
    change = np.zeros(len(lengths) + 1, np.int64)
    change[later] += 1
    change[later + size] -= 1
    return int(lengths[np.cumsum(change[:-1]) > 0].sum())
