"""A maze to be discovered: `3x2 k7 #.#G` shows what is above, below, left and right; `R` goes to the goal.

A wall is `#`, a way `.`, the goal `G`. What was seen before must be remembered; the map is never shown.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar, NamedTuple

from rlpt.registry import register
from rlpt.tasks.environments.base import Environment, Observation, episode_tag, joined_length
from rlpt.types import Problem

SIZES = ((2, 1), (2, 2), (3, 2), (3, 3), (4, 3), (4, 4), (5, 4), (5, 5), (6, 5), (6, 6))  # cells, by level
DIRECTIONS = "UDLR"
OPPOSITE = {"U": "D", "D": "U", "L": "R", "R": "L"}


class GridState(NamedTuple):
    """The map, and where the player is and has been."""

    ways: tuple[str, ...]  # the open directions of each cell, row by row
    width: int
    away: tuple[int, ...]  # of each cell, steps to the goal
    start: int
    cell: int
    nearest: int  # the fewest steps to the goal that were reached


def step(cell: int, direction: str, width: int) -> int:
    """The cell beside `cell`, which must not lie at that edge of the grid."""
    return cell + {"U": -width, "D": width, "L": -1, "R": 1}[direction]


@cache
def neighbours(width: int, height: int) -> tuple[tuple[tuple[str, int], ...], ...]:
    """(direction, cell beside it) of each cell."""
    inside = [
        {"U": row > 0, "D": row < height - 1, "L": column > 0, "R": column < width - 1}
        for row in range(height)
        for column in range(width)
    ]
    return tuple(
        tuple((direction, step(cell, direction, width)) for direction in DIRECTIONS if within[direction])
        for cell, within in enumerate(inside)
    )


def carve(rng: random.Random, width: int, height: int) -> list[str]:
    """The open directions of each cell of a maze with one way between any two cells: a random depth-first walk."""
    beside, ways = neighbours(width, height), [""] * (width * height)
    stack = [rng.randrange(len(ways))]
    seen = set(stack)
    while stack:
        unseen = [(direction, cell) for direction, cell in beside[stack[-1]] if cell not in seen]
        if not unseen:
            stack.pop()
            continue
        direction, cell = rng.choice(unseen)
        ways[stack[-1]] += direction
        ways[cell] += OPPOSITE[direction]
        seen.add(cell)
        stack.append(cell)
    return ways


def distances(ways: Sequence[str], width: int, goal: int) -> tuple[int, ...]:
    """Steps from each cell to `goal`, which all must reach."""
    away, queue = {goal: 0}, deque([goal])
    while queue:
        cell = queue.popleft()
        for direction in ways[cell]:
            other = step(cell, direction, width)
            if other not in away:
                away[other] = away[cell] + 1
                queue.append(other)
    return tuple(away[cell] for cell in range(len(ways)))


def view(state: GridState) -> str:
    """What is up, down, left and right of the player."""
    return "".join(_symbol(state, direction) for direction in DIRECTIONS)


@register("task", "grid_world")
@dataclass(frozen=True)
class GridWorld(Environment):
    """Level l: a maze of `SIZES[l]` cells, lying or upright, from a random cell to the one that is farthest from it.

    A turn is one step; one into a wall is used up. There are two turns a cell: enough to walk along every way of the
    maze and back, so that a player that explores depth first always arrives. Credit: the share of the distance that
    lies behind where the player came nearest. As the map must not be seen, the first observation holds an episode tag.
    At level 0 the goal is beside the player, and each of four turns of a random policy goes there 1 in 25 times.
    """

    name: ClassVar[str] = "grid_world"
    alphabet: ClassVar[str] = DIRECTIONS + " "
    thought_alphabet: ClassVar[str] = alphabet

    def answer_limit(self, level: int) -> int:
        """Of all turns."""
        width, height = SIZES[level]
        return joined_length(2 * width * height, 1)

    def setup(self, rng: random.Random, level: int) -> Mapping[str, Any]:
        """See the class."""
        width, height = SIZES[level] if rng.random() < 0.5 else SIZES[level][::-1]
        ways = carve(rng, width, height)
        start = rng.randrange(len(ways))
        goal = max(enumerate(distances(ways, width, start)), key=lambda item: item[1])[0]
        return {"width": width, "ways": ways, "start": start, "goal": goal, "tag": episode_tag(rng)}

    def begin(self, problem: Problem) -> Observation:
        """The size, the tag and the first view."""
        width, ways, start, goal, tag = (problem.meta[key] for key in ("width", "ways", "start", "goal", "tag"))
        away = distances(ways, width, goal)
        state = GridState(tuple(ways), width, away, start, start, away[start])
        text = f"{width}x{len(ways) // width} {tag} {view(state)}"
        return Observation(text, state, turns_left=2 * len(ways), legal=DIRECTIONS, limit=1)

    def turn(self, observation: Observation, text: str) -> Observation:
        """The view after the step."""
        state: GridState = observation.state
        if text not in state.ways[state.cell]:
            return replace(observation, text=view(state))
        cell = step(state.cell, text, state.width)
        nearest = min(state.nearest, state.away[cell])
        state = state._replace(cell=cell, nearest=nearest)
        score = 1 - nearest / state.away[state.start]
        return replace(observation, text=view(state), state=state, done=nearest == 0, score=score)

    def oracle(self, observation: Observation) -> str:
        """The step that comes nearer to the goal; there is one."""
        state: GridState = observation.state
        ahead = state.away[state.cell] - 1
        return next(d for d in state.ways[state.cell] if state.away[step(state.cell, d, state.width)] == ahead)


def _symbol(state: GridState, direction: str) -> str:
    if direction not in state.ways[state.cell]:
        return "#"
    return "." if state.away[step(state.cell, direction, state.width)] else "G"
