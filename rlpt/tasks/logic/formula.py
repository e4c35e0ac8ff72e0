"""Formulas as text: letters, `!` before a letter, and operators between truth values `0` and `1`."""

from __future__ import annotations

from collections.abc import Mapping

OPERATORS = "&|^="  # and, or, exclusive or, equal
# "1&0" -> "0" and so on; a lone value is its own.
VALUES = {"0": "0", "1": "1"} | {
    f"{a}{operator}{b}": str(int(value))
    for a in (0, 1)
    for b in (0, 1)
    for operator, value in zip(OPERATORS, (a and b, a or b, a != b, a == b))
}


def with_values(formula: str, values: Mapping[str, str]) -> str:
    """`formula` with known letters, negated ones too, replaced by their truth values: `!a&b` with a=1 is `0&b`."""
    letters = {ord(letter): value for letter, value in values.items()}
    return formula.translate(letters).replace("!0", "1").replace("!1", "0")
