"""Mastermind: `abcd 3` hides a code of three symbols; `aab` is answered by its blacks and whites, as `11`.

A black is a symbol in its place, a white one that belongs elsewhere (Knuth 1976, "The computer as master mind").
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

from rlpt.registry import register
from rlpt.tasks.environments.base import INVALID, Environment, Observation, episode_tag, joined_length
from rlpt.types import Problem

LENGTHS = (1, 2, 2, 2, 3, 3, 3, 4, 4, 4)  # of the code, by level
SYMBOLS = (3, 3, 4, 5, 4, 5, 6, 5, 6, 7)  # by level
TURNS = (3, 5, 6, 7, 7, 8, 9, 9, 10, 11)  # by level; the longest game of the oracle, and up to two more
WRONG_SCORE = 0.8  # of a guess that is almost the code
ALL_SYMBOLS = "abcdefg"

History = tuple[tuple[str, str], ...]  # (guess, feedback) of each guess so far


class MastermindState(NamedTuple):
    """The secret and what is known of it."""

    secret: str
    symbols: str
    history: History


@lru_cache(1 << 16)
def feedback(guess: str, secret: str) -> str:
    """Blacks and whites, a digit each; the same when the two change places."""
    blacks = sum(map(str.__eq__, guess, secret))
    common = sum(min(guess.count(symbol), secret.count(symbol)) for symbol in set(guess))
    return f"{blacks}{common - blacks}"


def is_consistent(code: str, history: History) -> bool:
    """Whether `code` may be the secret."""
    return all(feedback(guess, code) == seen for guess, seen in history)


@lru_cache(1 << 12)
def candidates(symbols: str, length: int, history: History) -> tuple[str, ...]:
    """All codes that may be the secret, in order. The oracle's histories are few, so that it hardly ever filters."""
    if not history:
        return tuple(map("".join, itertools.product(symbols, repeat=length)))
    earlier = candidates(symbols, length, history[:-1])
    return tuple(code for code in earlier if is_consistent(code, history[-1:]))


@register("task", "mastermind")
@dataclass(frozen=True)
class Mastermind(Environment):
    """Level l: a code of `LENGTHS[l]` out of `SYMBOLS[l]` symbols, each as often as may be; `TURNS[l]` guesses.

    The oracle first guesses the two first symbols in halves, then always the first code in order that may still be the
    secret. Credit: the best guess's share of blacks and half its share of whites, times 0.8. As the secret must not be
    seen, the first observation ends with an episode tag. At level 0 each of three guesses hits 1 in 16 times.
    """

    name: ClassVar[str] = "mastermind"
    alphabet: ClassVar[str] = ALL_SYMBOLS + " "
    thought_alphabet: ClassVar[str] = alphabet

    def answer_limit(self, level: int) -> int:
        """Of all turns."""
        return joined_length(TURNS[level], LENGTHS[level])

    def setup(self, rng: random.Random, level: int) -> Mapping[str, Any]:
        """A uniform code."""
        code = "".join(rng.choices(ALL_SYMBOLS[: SYMBOLS[level]], k=LENGTHS[level]))
        return {"secret": code, "tag": episode_tag(rng)}

    def begin(self, problem: Problem) -> Observation:
        """The symbols, how many a code has, and the tag."""
        symbols, length = ALL_SYMBOLS[: SYMBOLS[problem.level]], LENGTHS[problem.level]
        return Observation(
            text=f"{symbols} {length} {problem.meta['tag']}",
            state=MastermindState(problem.meta["secret"], symbols, ()),
            turns_left=TURNS[problem.level],
            legal=symbols,
            limit=length,
        )

    def turn(self, observation: Observation, text: str) -> Observation:
        """Blacks and whites; a guess that is too short is used up."""
        state: MastermindState = observation.state
        if text == state.secret:
            return replace(observation, text="", done=True, score=1.0)
        if len(text) < len(state.secret):
            return replace(observation, text=INVALID)
        seen = feedback(text, state.secret)
        credit = WRONG_SCORE * (int(seen[0]) + int(seen[1]) / 2) / len(text)
        return replace(
            observation,
            text=seen,
            state=state._replace(history=(*state.history, (text, seen))),
            score=max(observation.score, credit),
        )

    def is_right(self, observation: Observation, text: str) -> bool:
        """Any code that may still be the secret."""
        state: MastermindState = observation.state
        is_code = len(text) == len(state.secret) and set(text) <= set(state.symbols)
        return is_code and is_consistent(text, state.history)

    def oracle(self, observation: Observation) -> str:
        """See the class."""
        state: MastermindState = observation.state
        length = len(state.secret)
        if not state.history:
            return (state.symbols[0] * (length - length // 2)) + state.symbols[1] * (length // 2)
        return candidates(state.symbols, length, state.history)[0]
