"""The rules of C4 (Raffel et al. 2020, arXiv 1910.10683, section 2.2; numbers as in its released code) and removal of
other lines: notices of licences, and what the user's patterns match.

White space around a line plays no part when it is judged, and stays where the line stays. Left out of C4: its list of
bad words, and its removal of repeated spans of three sentences, which is deduplication."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal, get_args

from pydantic import Field

from rlpt.config_objectives import Section

C4Rule = Literal[
    "citations",
    "terminal_punctuation",
    "short_lines",
    "javascript",
    "policies",
    "lorem_ipsum",
    "curly_bracket",
    "sentences",
]
POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
NOTICES = (
    "all rights reserved",
    "copyright (c)",
    "(c) copyright",
    "copyright ©",
    "licensed under the",
    "spdx-license-identifier",
    "permission is hereby granted, free of charge",
    "redistribution and use in source and binary forms",
)
_TERMINAL = (".", "!", "?", '"', "\u201d")
_ELLIPSES = ("...", "\u2026")
_BLANK = "blank"
_CITATION = re.compile(r"\[\d*+\]|\[edit\]|\[citation needed\]")
_SENTENCE_END = re.compile(r"""[.!?]["'\u2019\u201d)\]]{0,3}(?=\s|\Z)""")


class C4Config(Section):
    """C4's rules. Lines are removed first; the page is judged by what is left."""

    rules: list[C4Rule] = Field(
        list(get_args(C4Rule)),
        min_length=1,
        description="of a text: citations (marks such as [1], [edit] are removed); of lines: terminal_punctuation (it "
        "ends in . ! ? or a closing quotation mark, and not in an ellipsis), short_lines, javascript (the word), "
        "policies (cookie and privacy notices); of documents: lorem_ipsum, curly_bracket, sentences (too few)",
    )
    min_line_words: int = Field(5, ge=1, description="of short_lines: a line with fewer words is removed")
    min_sentences: int = Field(3, ge=1, description="of sentences: a document with fewer is dropped")


class LineFilter:
    """Removes lines of a text by C4's line rules, notices and patterns. Picklable, without state."""

    def __init__(self, c4: C4Config | None, notices: bool, patterns: Sequence[str]) -> None:
        rules = c4.rules if c4 is not None else []
        self._citations = "citations" in rules
        self._terminal = "terminal_punctuation" in rules
        self._least_words = c4.min_line_words if c4 is not None and "short_lines" in rules else 0
        self._phrases = {
            name: phrases
            for name, phrases, on in (
                ("c4_javascript", ("javascript",), "javascript" in rules),
                ("c4_policies", POLICIES, "policies" in rules),
                ("notices", NOTICES, notices),
            )
            if on
        }
        self._patterns = [re.compile(pattern) for pattern in patterns]

    def __call__(self, text: str, counts: Counter[str]) -> str:
        """`text` without the lines; adds to `counts` how many each rule removed. A line that several rules would
        remove counts for the first of: punctuation, words, phrases, patterns. With one of the first two, blank lines
        go too, as in C4; they are not counted."""
        if self._citations:
            text, number = _CITATION.subn("", text)
            counts["c4_citations_removed"] += number
        lowered = text.lower() if self._phrases else ""
        phrases = {name: found for name, all_ in self._phrases.items() if (found := [p for p in all_ if p in lowered])}
        if not (phrases or self._patterns or self._terminal or self._least_words):
            return text
        kept, removed = [], []
        for line in text.split("\n"):
            if fault := self._fault(line.strip(), phrases):
                removed.append(fault)
            else:
                kept.append(line)
        if not removed:
            return text
        counts.update(f"{name}_lines_removed" for name in removed if name != _BLANK)
        return "\n".join(kept)

    def _fault(self, line: str, phrases: dict[str, list[str]]) -> str:
        if self._terminal and (not line.endswith(_TERMINAL) or line.endswith(_ELLIPSES)):
            return "c4_terminal_punctuation" if line else _BLANK
        if self._least_words and len(line.split(None, self._least_words)) < self._least_words:
            return "c4_short" if line else _BLANK
        if phrases:
            lowered = line.lower()
            for name, those in phrases.items():
                if any(phrase in lowered for phrase in those):
                    return name
        return "pattern" if any(pattern.search(line) for pattern in self._patterns) else ""


def page_fault(text: str, config: C4Config) -> str:
    """Name of the first of C4's page rules that `text` breaks; "" if none."""
    if "lorem_ipsum" in config.rules and "lorem ipsum" in text.lower():
        return "c4_lorem_ipsum"
    if "curly_bracket" in config.rules and "{" in text:
        return "c4_curly_bracket"
    if "sentences" in config.rules and count_sentences(text, config.min_sentences) < config.min_sentences:
        return "c4_sentences"
    return ""


def count_sentences(text: str, most: int) -> int:
    """Sentences of `text`, counted up to `most`: ends are . ! ?, up to three closing quotes
    or brackets, then white space or the end. C4 asks NLTK's punkt, which knows abbreviations; this counts them too."""
    return sum(1 for _, _ in zip(range(most), _SENTENCE_END.finditer(text)))
