"""The quality heuristics of Gopher (Rae et al. 2021, arXiv 2112.11446, section A.1.1): what reads like prose."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, get_args

from pydantic import Field, model_validator

from rlpt.config_objectives import Section

GopherRule = Literal["words", "word_length", "symbols", "bullets", "ellipses", "letters", "stop_words"]
_BULLETS = tuple("\u2022\u2023\u25aa\u25ab\u25cf\u25cb\u25e6\u25c6\u25ba*-\u2013")
_ELLIPSES = ("...", "\u2026")
_HAS_LETTER = re.compile(r"[^\W\d_]").search


class GopherConfig(Section):
    """Gopher's quality rules with their published thresholds; words are what stands between white space."""

    rules: list[GopherRule] = Field(
        list(get_args(GopherRule)), min_length=1, description="those that are asked, in the published order"
    )
    min_words: int = Field(50, ge=0, description="of words: fewest of a document")
    max_words: int = Field(100_000, ge=1, description="of words: most of a document")
    min_word_length: float = Field(3, ge=0, description="of word_length: least mean, in characters")
    max_word_length: float = Field(10, gt=0, description="of word_length: largest mean, in characters")
    max_symbols: float = Field(0.1, ge=0, description="of symbols: most # a word, and most ellipses a word")
    max_bullets: float = Field(0.9, ge=0, le=1, description="of bullets: largest share of lines that begin with one")
    max_ellipses: float = Field(0.3, ge=0, le=1, description="of ellipses: largest share of lines that end in one")
    min_letters: float = Field(0.8, ge=0, le=1, description="of letters: least share of words with a letter")
    min_stop_words: int = Field(2, ge=0, description="of stop_words: fewest different ones")
    stop_words: list[str] = Field(
        ["the", "be", "to", "of", "and", "that", "have", "with"],
        description="of stop_words: the list, in lower case; the default is English",
    )

    @model_validator(mode="after")
    def _ordered(self) -> GopherConfig:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words={self.min_words} is above max_words={self.max_words}")
        if self.min_word_length > self.max_word_length:
            raise ValueError(f"min_word_length={self.min_word_length} is above max_word_length={self.max_word_length}")
        if self.min_stop_words > len(set(self.stop_words)):
            raise ValueError(
                f"min_stop_words={self.min_stop_words} is above the {len(set(self.stop_words))} stop_words"
            )
        return self


def quality_fault(text: str, words: Sequence[str], config: GopherConfig) -> str:
    """Name of the first rule that the document breaks, "" if none. `words` are `text.split()`, at least one.

    A value on its threshold passes. Shares of lines are of those that aren't blank.
    """
    rules, number = config.rules, len(words)
    if "words" in rules and not config.min_words <= number <= config.max_words:
        return "gopher_words"
    if "word_length" in rules:
        mean = sum(map(len, words)) / number
        if not config.min_word_length <= mean <= config.max_word_length:
            return "gopher_word_length"
    if "symbols" in rules:
        symbols = max(text.count("#"), sum(map(text.count, _ELLIPSES)))
        if symbols / number > config.max_symbols:
            return "gopher_symbols"
    if ("bullets" in rules or "ellipses" in rules) and (fault := _line_fault(text, config)):
        return fault
    distinct = set(words)
    if "letters" in rules:
        with_letter = set(filter(_HAS_LETTER, distinct))
        if sum(map(with_letter.__contains__, words)) / number < config.min_letters:
            return "gopher_letters"
    if "stop_words" in rules and _stop_words(distinct, config) < config.min_stop_words:
        return "gopher_stop_words"
    return ""


def _line_fault(text: str, config: GopherConfig) -> str:
    lines = [bare for line in text.split("\n") if (bare := line.strip())]
    if "bullets" in config.rules:
        bullets = sum(line.startswith(_BULLETS) for line in lines)
        if bullets / len(lines) > config.max_bullets:
            return "gopher_bullets"
    if "ellipses" in config.rules:
        ellipses = sum(line.endswith(_ELLIPSES) for line in lines)
        if ellipses / len(lines) > config.max_ellipses:
            return "gopher_ellipses"
    return ""


def _stop_words(distinct: set[str], config: GopherConfig) -> int:
    """Different stop words of the document, punctuation around a word and its case put aside."""
    found = {word.strip("\"'.,:;!?()[]*_\u201c\u201d\u2018\u2019").lower() for word in distinct}
    return len(found.intersection(config.stop_words))
