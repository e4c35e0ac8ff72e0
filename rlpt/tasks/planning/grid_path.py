"""A path through a grid with walls: `grid_path S..#/.#.G/....` -> `RRDR`: moves U, D, L and R from S to G."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS
from rlpt.tasks.planning.plan import OPPOSITE, PlanTask
from rlpt.types import Problem

SIDES = ((1, 6), (3, 3), (4, 4), (4, 5), (5, 5), (5, 6), (6, 6), (6, 7), (7, 7), (8, 8))  # rows, columns, by level
FARTHEST = (1, 3, 4, 6, 8, 10, 13, 16, 20, 26)  # moves between S and G, at most, by level
LOOPS = (0, 1, 1, 1, 1, 2, 2, 3, 3, 4)  # walls that are opened after carving, by level
WALL = "#"


@cache
def neighbours(rows: int, columns: int) -> dict[int, dict[str, int]]:
    """Each place in a text of rows joined by one character, with the places that the moves lead to."""
    steps = {"U": -columns - 1, "D": columns + 1, "L": -1, "R": 1}
    places = [row * (columns + 1) + column for row in range(rows) for column in range(columns)]
    return {at: {move: at + step for move, step in steps.items() if at + step in places} for at in places}


def place_name(place: int, columns: int) -> str:
    """Row and column, a digit each, of a place in such a text."""
    row, column = divmod(place, columns + 1)
    return f"{row}{column}"


def place_at(name: str, columns: int) -> int:
    """The inverse of `place_name`."""
    return int(name[0]) * (columns + 1) + int(name[1])


def distances_from(place: int, grid: Sequence[str], near: Mapping[int, Mapping[str, int]]) -> dict[int, int]:
    """Moves between a place and each that can be reached from it."""
    found, queue = {place: 0}, [place]
    for at in queue:
        for other in near[at].values():
            if grid[other] != WALL and other not in found:
                found[other] = found[at] + 1
                queue.append(other)
    return found


def moves_to(place: int, away: Mapping[int, int], near: Mapping[int, Mapping[str, int]]) -> str:
    """A shortest path to a place from the one that the distances `away` count from."""
    moves = ""
    while away[place]:
        back, place = next((move, other) for move, other in near[place].items() if away.get(other) == away[place] - 1)
        moves = OPPOSITE[back] + moves
    return moves


def carve(rng: random.Random, start: int, near: Mapping[int, Mapping[str, int]]) -> set[int]:
    """The open places of a maze without loops: from `start`, at random and as deep as it goes, places are opened that
    touch one open place alone."""
    touching = dict.fromkeys(near, 0)  # open places beside each place
    opened, stack = {start}, [start]
    for other in near[start].values():
        touching[other] += 1
    while stack:
        fitting = [other for other in near[stack[-1]].values() if touching[other] == 1 and other not in opened]
        if not fitting:
            stack.pop()
            continue
        stack.append(fitting[int(rng.random() * len(fitting))])
        opened.add(stack[-1])
        for other in near[stack[-1]].values():
            touching[other] += 1
    return opened


@register("task", "grid_path")
@dataclass(frozen=True)
class GridPath(PlanTask):
    """Level l: `SIDES[l]` rows and columns; G is as far from S as the maze has it, `FARTHEST[l]` moves at most.

    Right is any path, not only a shortest one, within as many moves as there are other cells; credit as for `PlanTask`,
    by the moves that are left. At level 0 there is one row, and one of two moves and the end mark are guessed: 1 in 9.
    """

    name: ClassVar[str] = "grid_path"
    alphabet: ClassVar[str] = "UDLR"
    thought_alphabet: ClassVar[str] = DIGITS + "UDLR: "

    def legal_characters(self, level: int) -> str:
        """All moves, at level 0 those within a row."""
        return self.alphabet if level else "LR"

    def answer_limit(self, level: int) -> int:
        """A path through every cell."""
        return SIDES[level][0] * SIDES[level][1] - 1

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Start uniform, a maze carved from there, some walls opened, and a goal among the cells farthest away."""
        rows, columns = SIDES[level]
        near = neighbours(rows, columns)
        start = rng.choice(list(near))
        opened = carve(rng, start, near)
        walls = [place for place in near if place not in opened]
        opened.update(rng.sample(walls, min(LOOPS[level], len(walls))))
        cells = list("/".join([WALL * columns] * rows))
        for place in opened:
            cells[place] = "."
        away = distances_from(start, cells, near)
        farthest = min(max(away.values()), FARTHEST[level])
        goal = rng.choice([place for place, distance in away.items() if distance == farthest])
        cells[start], cells[goal] = "S", "G"
        grid = "".join(cells)
        meta = {"start": place_name(start, columns), "goal": place_name(goal, columns), "grid": grid}
        return f"grid_path {grid}", moves_to(goal, away, near), meta

    def successor(self, problem: Problem, state: str, move: str) -> str | None:
        """The place next to a place (row and column, from 0); None where there is a wall or nothing."""
        rows, columns = SIDES[problem.level]
        place = neighbours(rows, columns)[place_at(state, columns)].get(move)
        return None if place is None or problem.meta["grid"][place] == WALL else place_name(place, columns)

    def distance(self, problem: Problem, state: str) -> float:
        """Moves of a shortest path."""
        rows, columns = SIDES[problem.level]
        goal = place_at(problem.meta["goal"], columns)
        return distances_from(goal, problem.meta["grid"], neighbours(rows, columns))[place_at(state, columns)]
