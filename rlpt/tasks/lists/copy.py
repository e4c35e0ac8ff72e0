"""Copy a string: `copy 3142` -> `3142`. Lengths and the number of symbols are options: the classic test of recall."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import ClassVar

from rlpt.registry import register
from rlpt.tasks.lists.digit_string import DigitStringTransform
from rlpt.types import Problem

PRINTABLE = "".join(sorted(string.ascii_letters + string.digits + string.punctuation))  # the 94 that are no space
MOST_SYMBOLS = 4096  # up to U+10A1: none of them is white space or a surrogate


def symbol_alphabet(count: int) -> str:
    """The first `count` of: printable ASCII without the space, then the characters from U+0100 on."""
    return (PRINTABLE + "".join(map(chr, range(0x100, 0x100 + count - len(PRINTABLE)))))[:count]


@register("task", "copy")
@dataclass(frozen=True)
class Copy(DigitStringTransform):
    """The same again; levels and credit of `DigitStringTask`, unless the options say otherwise."""

    name: ClassVar[str] = "copy"

    symbols: int = 0  # distinct symbols at every level, 2..4096; 0: digits, as many as the level's table says
    lengths: tuple[int, ...] = ()  # by level, the last one for all levels beyond; empty: the level's table

    def __post_init__(self) -> None:
        if self.symbols and not 2 <= self.symbols <= MOST_SYMBOLS:
            raise ValueError(f"symbols={self.symbols}: must be 0 or 2..{MOST_SYMBOLS}")
        if any(length < 1 for length in self.lengths) or list(self.lengths) != sorted(self.lengths):
            raise ValueError(f"lengths={self.lengths}: must be positive and must not decrease")
        if len(self.lengths) > self.max_level + 1:
            raise ValueError(f"lengths={self.lengths}: there are only {self.max_level + 1} levels")
        if self.symbols:
            # The alphabets are those of this instance: they hide the class's, which the other options keep.
            alphabet = symbol_alphabet(self.symbols)
            thoughts = "".join(dict.fromkeys(alphabet + self.thought_alphabet))
            object.__setattr__(self, "alphabet", alphabet)
            object.__setattr__(self, "thought_alphabet", thoughts)

    def length(self, level: int) -> int:
        """The option's entry, or the table's."""
        return self.lengths[min(level, len(self.lengths) - 1)] if self.lengths else super().length(level)

    def given_characters(self, level: int) -> str:
        """The option's symbols at every level, or the table's."""
        return self.alphabet if self.symbols else super().given_characters(level)

    def transform(self, text: str) -> str:
        """Itself."""
        return text

    def solution(self, problem: Problem) -> str:
        """`1:3 2:1 3:4 4:2`: the symbols by position."""
        return " ".join(f"{position}:{symbol}" for position, symbol in enumerate(problem.meta["text"], 1))
