"""The form of a text: Unicode, line ends, control characters, white space. Each function is linear in the text's length
and gives (text, how much it changed); the text is the same object where nothing changed."""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import lru_cache
from operator import ne
from typing import Literal

UnicodeForm = Literal["NFC", "NFKC"]
_RARE_LINE_ENDS = re.compile("[\x85\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff]")
_BLANK_RUN = re.compile(r"\n(?:[^\S\n]*+\n)++")
_MOST_MARKS = 30  # combining marks in a row that Unicode's stream-safe text format (UAX 15, section 13) allows
_JOINER = "\u034f"  # what that format puts between longer runs' parts


def normalize_unicode(text: str, form: UnicodeForm) -> tuple[str, int]:
    """Unicode normalisation; 1 where it changed the text.

    A run of more than 30 combining marks is parted first, as stream-safe text is: Python's normalisation is quadratic
    in the run's length, so that one such document would stop a worker for hours."""
    if text.isascii() or unicodedata.is_normalized(form, text):
        return text, 0
    return unicodedata.normalize(form, _long_runs().sub(rf"\g<0>{_JOINER}", text)), 1


@lru_cache(1)
def _long_runs() -> re.Pattern[str]:
    marks = "".join(filter(unicodedata.combining, map(chr, range(0x300, sys.maxunicode + 1))))
    return re.compile(f"[{marks}]{{{_MOST_MARKS}}}(?=[{marks}])")


def unify_newlines(text: str) -> tuple[str, int]:
    """CR LF, CR, NEL and Unicode's line and paragraph separators -> LF; how many there were."""
    count = text.count("\r")
    if count:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.isascii():
        return text, count
    text, rare = _RARE_LINE_ENDS.subn("\n", text)
    return text, count + rare


def remove_controls(text: str) -> tuple[str, int]:
    """Without C0 and C1 control characters (tab, LF and CR stay), DEL and byte order marks; how many there were."""
    return _CONTROLS.subn("", text)


def strip_line_ends(text: str) -> tuple[str, int]:
    """Without white space before line ends; how many lines had some. The CR of a CR LF belongs to the line end."""
    lines = text.split("\n")
    if "\r" in text:
        stripped = [line.rstrip() + "\r" * line.endswith("\r") for line in lines]
    else:
        stripped = list(map(str.rstrip, lines))
    count = sum(map(ne, lines, stripped))
    return ("\n".join(stripped) if count else text), count


def cap_blank_lines(text: str, most: int) -> tuple[str, int]:
    """At most `most` blank lines in a row, the first ones of each run; how many were removed."""
    removed = 0

    def cap(match: re.Match[str]) -> str:
        nonlocal removed
        lines = match[0].split("\n")  # "", then the blank lines, then ""
        extra = len(lines) - 2 - most
        if extra <= 0:
            return match[0]
        removed += extra
        return "\n".join([*lines[: most + 1], ""])

    capped = _BLANK_RUN.sub(cap, "\n" + text)[1:]
    return (capped if removed else text), removed
