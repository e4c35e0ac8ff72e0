"""Cleaning of documents: what is mended, what is removed, and which documents are dropped, and for what.

The order, whatever the order of keys in the configuration:
    1. form      line ends, Unicode, control characters, white space at line ends
    2. lines     C4's citations and line rules, notices, the user's patterns; then runs of blank lines are capped
    3. dropping  empty, characters, words, C4's page rules, Gopher's quality, Gopher's repetition, language
    4. personal  marks in what stays (so marks are no words, and cost nothing where a document is dropped)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from data_prep.cleaning.c4 import C4Config, LineFilter, page_fault
from data_prep.cleaning.gopher import GopherConfig, quality_fault
from data_prep.cleaning.language import LanguageConfig, LanguageFilter
from data_prep.cleaning.normalization import (
    cap_blank_lines,
    normalize_unicode,
    remove_controls,
    strip_line_ends,
    unify_newlines,
)
from data_prep.cleaning.personal import PersonalConfig, PersonalMarker
from data_prep.cleaning.repetition import RepetitionConfig, repetition_fault
from data_prep.documents import Document
from rlpt.config_objectives import Section


def _line_pattern(pattern: str) -> str:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"'{pattern}' is no regular expression: {error}") from None
    if compiled.search(""):
        raise ValueError(
            f"'{pattern}' matches an empty line, so it may match every line; see max_blank_lines for those"
        )
    return pattern


class CleanConfig(Section):
    """What cleaning does; by default nothing. A section in braces, such as `gopher: {}`, is on with its defaults."""

    unicode: Literal["none", "NFC", "NFKC"] = Field("none", description="Unicode normalisation")
    control_characters: Literal["keep", "remove"] = Field(
        "keep", description="C0 and C1 but for tab and line ends, DEL, byte order marks within the text"
    )
    newlines: Literal["keep", "lf"] = Field("keep", description="lf: CR LF, CR and Unicode's line ends become LF")
    trailing_space: Literal["keep", "remove"] = Field("keep", description="white space before line ends")
    max_blank_lines: int | None = Field(None, ge=0, description="most blank lines in a row; null: any number")
    remove_lines: list[Annotated[str, AfterValidator(_line_pattern)]] = Field(
        default_factory=list,
        description="regular expressions; lines in which one is found are removed (it sees a line without the white "
        "space around it; (?i) at its start ignores case; its speed is its author's care)",
    )
    remove_notices: bool = Field(False, description="lines of copyright and licence notices are removed")
    c4: C4Config | None = Field(None, description="C4's rules for lines and pages")
    min_characters: int = Field(0, ge=0, description="shorter documents are dropped")
    max_characters: int | None = Field(None, ge=1, description="longer documents are dropped; null: none")
    min_words: int = Field(0, ge=0, description="documents with fewer words (by white space) are dropped")
    max_words: int | None = Field(None, ge=1, description="documents with more words are dropped; null: none")
    gopher: GopherConfig | None = Field(None, description="Gopher's quality rules")
    repetition: RepetitionConfig | None = Field(None, description="Gopher's repetition rules")
    language: LanguageConfig | None = Field(None, description="languages that are kept")
    personal: PersonalConfig | None = Field(None, description="personal data that is marked")

    @model_validator(mode="after")
    def _ordered(self) -> CleanConfig:
        for what in ("characters", "words"):
            least, most = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
            if most is not None and least > most:
                raise ValueError(f"min_{what}={least} is above max_{what}={most}")
        return self

    @property
    def is_off(self) -> bool:
        """Whether every document stays as it is."""
        return self == CleanConfig.model_validate({})


class Cleaner:
    """Cleans documents one by one: a pure function of document and configuration, with counts of what was changed.

    Pickling carries the configuration alone: another process builds its own, with counts at zero."""

    def __init__(self, config: CleanConfig) -> None:
        """Raises ConfigError when the language model is asked for and missing, or a language is unknown."""
        self.config = config
        self.counts: Counter[str] = Counter()  # what was changed in documents that stayed, e.g. notices_lines_removed
        self._is_off = config.is_off
        self._edits = _edits(config)
        self._lines = LineFilter(config.c4, config.remove_notices, config.remove_lines)
        self._is_wanted = LanguageFilter(config.language) if config.language is not None else None
        self._mark = PersonalMarker(config.personal) if config.personal is not None else None

    def __reduce__(self) -> tuple[type[Cleaner], tuple[CleanConfig]]:
        return Cleaner, (self.config,)

    def __call__(self, document: Document) -> Document | str:
        """The cleaned document (the same object where nothing changed), or the reason for which it is dropped."""
        if self._is_off:
            return document
        counts: Counter[str] = Counter()
        text = self._clean(document.text, counts)
        if reason := self._fault(text):
            return reason
        if self._mark is not None:
            text = self._mark(text, counts)
        self.counts.update({name: count for name, count in counts.items() if count})
        return document if text == document.text else replace(document, text=text)

    def _clean(self, text: str, counts: Counter[str]) -> str:
        for name, edit in self._edits:
            text, number = edit(text)
            counts[name] += number
        text = self._lines(text, counts)
        if self.config.max_blank_lines is not None:
            text, number = cap_blank_lines(text, self.config.max_blank_lines)
            counts["blank_lines_removed"] += number
        return text

    def _fault(self, text: str) -> str:
        """Why the document is dropped; "" if it stays. The cheap rules are asked first."""
        config, words = self.config, text.split()
        if not words:
            return "empty"
        if len(text) < config.min_characters or len(words) < config.min_words:
            return "too_short"
        if _above(len(text), config.max_characters) or _above(len(words), config.max_words):
            return "too_long"
        if config.c4 is not None and (fault := page_fault(text, config.c4)):
            return fault
        if config.gopher is not None and (fault := quality_fault(text, words, config.gopher)):
            return fault
        if config.repetition is not None and (fault := repetition_fault(text, words, config.repetition)):
            return fault
        return "" if self._is_wanted is None or self._is_wanted(text) else "language"


def _above(value: int, most: int | None) -> bool:
    return most is not None and value > most


Edit = Callable[[str], tuple[str, int]]


def _edits(config: CleanConfig) -> list[tuple[str, Edit]]:
    """(name of its count, function) of each edit of the text's form that is on, in order."""
    edits: list[tuple[str, Edit]] = []
    if config.newlines == "lf":
        edits.append(("line_ends_unified", unify_newlines))
    if config.unicode != "none":
        form = config.unicode
        edits.append((f"documents_to_{form}", lambda text: normalize_unicode(text, form)))
    if config.control_characters == "remove":
        edits.append(("control_characters_removed", remove_controls))
    if config.trailing_space == "remove":
        edits.append(("lines_stripped", strip_line_ends))
    return edits
