"""Nim, normal play (who takes the last object wins): `nim 3 5 1` -> `23`, from heap 2 take 3.

A move is the heap's number, from 1, and how many objects are taken from it. The heaps' exclusive or (the nim-sum)
tells who wins: the seat to move unless it is 0 (Bouton, "Nim, a game with a complete mathematical theory", 1901).
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import xor
from typing import ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS
from rlpt.tasks.games.base import OVER, Game, GameState
from rlpt.types import Problem

HEAPS = (2, 2, 3, 3, 4, 4, 5, 5, 6, 6)  # how many, by level
LARGEST = (2, 7, 7, 9, 9, 15, 15, 31, 31, 63)  # objects in a heap at most, by level
MOST_EMPTY = 3  # further heaps at level 0, all empty
_BINARY = re.compile(r"([1-9][0-9]?|0)=([01]{1,6})")
_SUM = re.compile(r"([01]{1,6})\^([01]{1,6})=([01]{1,6})")
_TAKE = re.compile(r"([1-9]):([1-9][0-9]?)-([1-9][0-9]?)=([1-9][0-9]?|0)")


def nim_sum(heaps: Sequence[int]) -> int:
    """Exclusive or of the heaps."""
    return reduce(xor, heaps, 0)


@register("task", "nim")
@dataclass(frozen=True)
class Nim(Game):
    """Level l: `HEAPS[l]` heaps of at most `LARGEST[l]` objects, with a nim-sum that is not 0.

    At level 0 the nim-sum may be 0, and then every move loses and so is right: of two symbols with the end mark, one
    guess in 13 is right on average. It has 16 positions, made by up to `MOST_EMPTY` empty heaps, level 1 has 42.
    """

    name: ClassVar[str] = "nim"
    thought_alphabet: ClassVar[str] = DIGITS + "=^:- "

    def legal_characters(self, level: int) -> str:
        """Digits of heap numbers and of takes."""
        return DIGITS if LARGEST[level] > 9 else DIGITS[1 : max(HEAPS[level], LARGEST[level]) + 1]

    def answer_limit(self, level: int) -> int:
        """A heap's number and the largest take."""
        return 1 + len(str(LARGEST[level]))

    def opening(self, seed: int, level: int) -> GameState:
        """Heaps uniform among those of the level."""
        rng = random.Random(seed)
        while True:
            heaps = tuple(rng.randint(1, LARGEST[level]) for _ in range(HEAPS[level]))
            if level == 0:
                heaps += (0,) * rng.randint(0, MOST_EMPTY)
            if level == 0 or nim_sum(heaps):
                return GameState((), seed, level, heaps)

    def draw(self, rng: random.Random, level: int) -> GameState:
        """An opening."""
        return self.opening(rng.getrandbits(63), level)

    def apply(self, state: GameState, move: str) -> GameState:
        """The heap without what was taken; empty heaps keep their number."""
        if move not in self.legal_moves(state):
            raise self.illegal(state, move)
        at, heaps = int(move[0]) - 1, state.inner
        after = (*heaps[:at], heaps[at] - int(move[1:]), *heaps[at + 1 :])
        return GameState((*state.moves, move), state.seed, state.level, after)

    def player(self, state: GameState) -> int:
        """Seats take turns."""
        return len(state.moves) % 2 if any(state.inner) else OVER

    def same(self, state: GameState) -> Hashable:
        """The heaps and who moves."""
        return state.inner, len(state.moves) % 2

    def prompt(self, state: GameState) -> str:
        """`nim 3 5 1`: the heaps in order."""
        return f"nim {' '.join(map(str, state.inner))}"

    def legal_moves(self, state: GameState) -> Sequence[str]:
        """By heap, then by take."""
        return [f"{heap}{take}" for heap, size in enumerate(state.inner, 1) for take in range(1, size + 1)]

    def returns(self, state: GameState) -> Sequence[float]:
        """1 for who took the last object, -1 for the other."""
        if any(state.inner):
            return (0.0, 0.0)
        return (1.0, -1.0) if len(state.moves) % 2 else (-1.0, 1.0)

    def values(self, state: GameState) -> Mapping[str, float]:
        """1 for moves that leave the nim-sum 0, else -1."""
        total = nim_sum(state.inner)
        return {
            f"{heap}{take}": 1.0 if total ^ size ^ (size - take) == 0 else -1.0
            for heap, size in enumerate(state.inner, 1)
            for take in range(1, size + 1)
        }

    def solution(self, problem: Problem) -> str:
        """`3=011 5=101 1=001 011^101=110 110^001=111 101^111=010 2:5-3=2`: the heaps in binary, their nim-sum from the
        left, the answer's heap with the nim-sum (its new size), and the move. Where the nim-sum is 0 it ends there."""
        heaps = self.start(problem).inner
        first, *others = filter(None, heaps)
        width = max(heaps).bit_length()
        steps, total = [f"{heap}={heap:0{width}b}" for heap in (first, *others)], first
        for heap in others:
            steps.append(f"{total:0{width}b}^{heap:0{width}b}={total ^ heap:0{width}b}")
            total ^= heap
        if total:
            number, take = problem.answer[0], int(problem.answer[1:])
            size = heaps[int(number) - 1]
            steps.append(f"{size:0{width}b}^{total:0{width}b}={size ^ total:0{width}b}")
            steps.append(f"{number}:{size}-{take}={size - take}")
        return " ".join(steps)

    def check_steps(self, problem: Problem, trace: str) -> list[float]:
        """Right is a heap in binary, as often as it is there; a true exclusive or of heaps or earlier right results, at
        most once a heap; and a winning move, once."""
        heaps, values = self.start(problem).inner, problem.meta["values"]
        known, scores, given = set(heaps), [], Counter[str]()
        for step in trace.split():
            most = 0
            if match := _BINARY.fullmatch(step):
                most = heaps.count(int(match[1])) if int(match[1]) == int(match[2], 2) else 0
            elif match := _SUM.fullmatch(step):
                first, second, total = (int(text, 2) for text in match.groups())
                most = len(heaps) if {first, second} <= known and first ^ second == total else 0
                known |= {total} if most else set()
            elif match := _TAKE.fullmatch(step):
                heap, size, take, left = map(int, match.groups())
                is_move = heap <= len(heaps) and heaps[heap - 1] == size and 1 <= take <= size and size - take == left
                most = 1 if is_move and values[f"{heap}{take}"] == 1 else 0
            given[step] += 1
            scores.append(float(given[step] <= most))
        return scores
