"""A Markov algorithm, n steps of ordered string rewriting: `rewriting abcab x3: ca>b ab>ba` -> `bbab`.

A step applies the first rule in order whose left side occurs, at its leftmost occurrence; the run ends early where none
does (Markov 1954).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import Task, position_credit
from rlpt.types import Problem

LETTERS = "abcd"
KINDS = (3, 3, 3, 3, 3, 3, 3, 3, 4, 4)  # of letters, by level
WORD_LENGTHS = (1, 3, 4, 5, 6, 7, 8, 9, 10, 11)  # by level
RULES = (2, 2, 3, 3, 4, 4, 5, 5, 7, 8)  # by level
STEPS = (1, 2, 3, 5, 7, 9, 11, 13, 15, 18)  # at most, by level
SHORTENING = 0.15  # of the rules with a left side of two letters


def rewrite(word: str, rules: Sequence[Sequence[str]], steps: int) -> list[str]:
    """The words after each of at most `steps` steps under the rules (left side, right side)."""
    words: list[str] = []
    for _ in range(steps):
        rule = next((rule for rule in rules if rule[0] in word), None)
        if rule is None:
            break
        word = word.replace(rule[0], rule[1], 1)
        words.append(word)
    return words


@register("task", "rewriting")
@dataclass(frozen=True)
class Rewriting(Task):
    """Level l: a word of `WORD_LENGTHS[l]` letters, `RULES[l]` rules, `STEPS[l]` steps; at least one of them applies.

    No rule lengthens the word. Credit: share of positions right. At level 0 rules replace single letters, and one of
    three letters and the end mark are guessed: 1 in 16.
    """

    name: ClassVar[str] = "rewriting"
    alphabet: ClassVar[str] = LETTERS
    thought_alphabet: ClassVar[str] = LETTERS + " "

    def legal_characters(self, level: int) -> str:
        """The level's letters."""
        return LETTERS[: KINDS[level]]

    def answer_limit(self, level: int) -> int:
        """The length of the word."""
        return WORD_LENGTHS[level]

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Word uniform; left sides different, one of them out of the word; no rule undoes another one."""
        letters = self.legal_characters(level)
        word = "".join(rng.choices(letters, k=WORD_LENGTHS[level]))
        size = min(2, len(word))
        at = rng.randrange(len(word) - size + 1)
        pairs = [a + b for a in letters for b in letters] if size == 2 else list(letters)
        others = rng.sample([pair for pair in pairs if pair != word[at : at + size]], RULES[level] - 1)
        sides = rng.sample([word[at : at + size], *others], RULES[level])
        rules: list[tuple[str, str]] = []
        for left in sides:
            short = size == 2 and rng.random() < SHORTENING
            fitting = [pair for pair in pairs if pair != left and (pair, left) not in rules]
            rules.append((left, rng.choice(letters if short else fitting)))
        words = rewrite(word, rules, STEPS[level])
        text = " ".join([f"{left}>{right}" for left, right in rules])
        return f"rewriting {word} x{STEPS[level]}: {text}", words[-1], {"word": word, "words": words}

    def solution(self, problem: Problem) -> str:
        """`abbb babb bbab`: the word after each step."""
        return " ".join(problem.meta["words"])

    def grade(self, problem: Problem, answer: str) -> float:
        """Share of positions right."""
        return position_credit(answer, problem.answer)
