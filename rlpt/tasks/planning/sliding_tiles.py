"""A sliding puzzle of 3x2 or 3x3 from one arrangement to another: `sliding_tiles 103/425 to 123/405` -> `D`.

The moves U, D, L and R are those of the blank, 0, which changes places with the tile there.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS
from rlpt.tasks.planning.plan import OPPOSITE, PlanTask
from rlpt.types import Problem

WIDTH = 3
ROWS = (2, 2, 2, 2, 3, 3, 3, 3, 3, 3)  # by level
SCRAMBLES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14)  # moves between the arrangements, by level
SLACK = 2  # moves beyond those
STEPS = {"U": -WIDTH - 1, "D": WIDTH + 1, "L": -1, "R": 1}  # in a text whose rows are joined by one character


def slide(state: str, move: str) -> str | None:
    """The arrangement after a move of the blank; None where there is no tile."""
    blank = state.index("0")
    tile = blank + STEPS[move]
    if not 0 <= tile < len(state) or state[tile] == "/":
        return None
    low, high = min(blank, tile), max(blank, tile)
    return state[:low] + state[high] + state[low + 1 : high] + state[low] + state[high + 1 :]


def manhattan(state: str, goal: str) -> int:
    """Rows and columns between the tiles' places in two arrangements, summed without the blank: never more than the
    moves that are needed."""
    total = 0
    for at, tile in enumerate(state):
        if tile not in "0/":
            (row, column), (goal_row, goal_column) = divmod(at, WIDTH + 1), divmod(goal.index(tile), WIDTH + 1)
            total += abs(row - goal_row) + abs(column - goal_column)
    return total


@register("task", "sliding_tiles")
@dataclass(frozen=True)
class SlidingTiles(PlanTask):
    """Level l: `ROWS[l]` rows of three, arrangements at most `SCRAMBLES[l]` moves apart.

    Right are any moves, `SLACK` more at most, that end at the goal; credit as for `PlanTask`, by Manhattan distance. At
    level 0 the blank stays in its row: one of two moves and the end mark are guessed, 1 in 9 or by a detour.
    """

    name: ClassVar[str] = "sliding_tiles"
    alphabet: ClassVar[str] = "UDLR"
    thought_alphabet: ClassVar[str] = DIGITS[:9] + "UDLR/: "

    def legal_characters(self, level: int) -> str:
        """All moves, at level 0 those within a row."""
        return self.alphabet if level else "LR"

    def answer_limit(self, level: int) -> int:
        """`SLACK` above the moves that the arrangements are apart."""
        return SCRAMBLES[level] + SLACK

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """The goal uniform, then a walk of the blank from there to the start, without an arrangement met twice."""
        tiles = "".join(rng.sample(DIGITS[: WIDTH * ROWS[level]], WIDTH * ROWS[level]))
        goal = "/".join(tiles[i : i + WIDTH] for i in range(0, len(tiles), WIDTH))
        start, answer, met = goal, "", {goal}
        for _ in range(SCRAMBLES[level]):
            reached = [(slide(start, move), move) for move in self.legal_characters(level)]
            fresh = [(state, move) for state, move in reached if state is not None and state not in met]
            if not fresh:  # eleven moves around a square of four end next to where they began
                break
            start, move = rng.choice(fresh)
            met.add(start)
            answer = OPPOSITE[move] + answer
        return f"sliding_tiles {start} to {goal}", answer, {"start": start, "goal": goal}

    def successor(self, problem: Problem, state: str, move: str) -> str | None:
        """See `slide`."""
        return slide(state, move)

    def distance(self, problem: Problem, state: str) -> float:
        """See `manhattan`."""
        return manhattan(state, problem.meta["goal"])
