"""The tower of Hanoi from any legal position: `hanoi AAB to C` -> `ACABCAB`.

A position names each disk's peg, from the largest disk to the smallest. A move is named by the peg that it leaves
alone: between the two others only the smaller of the topmost disks can go. The first `A` above moves the smallest disk
from B to C.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.planning.plan import PlanTask
from rlpt.types import Problem

PEGS = "ABC"
DISKS = ((1, 1), (2, 6), (3, 7), (3, 7), (4, 7), (4, 7), (5, 7), (5, 7), (5, 7), (5, 8))  # least, most, by level
DISTANCES = ((1, 1), (2, 3), (4, 5), (6, 7), (8, 10), (11, 14), (15, 18), (19, 23), (23, 28), (27, 35))  # by level
SLACK = 2  # moves beyond the longest shortest plan


def third(first: str, second: str) -> str:
    """The peg that is neither."""
    return PEGS.replace(first, "").replace(second, "")


@cache
def tower_moves(num_disks: int, source: str, target: str) -> str:
    """The shortest plan for a whole tower."""
    if num_disks == 0:
        return ""
    other = third(source, target)
    return tower_moves(num_disks - 1, source, other) + other + tower_moves(num_disks - 1, other, target)


def shortest_plan(position: str, goal: str) -> str:
    """The shortest plan from a position to the tower on peg `goal`: before a disk moves, the smaller ones gather on the
    third peg, and then they follow as a tower."""
    parts = []
    for i, peg in enumerate(position):
        if peg != goal:
            other = third(peg, goal)
            parts.append(other + tower_moves(len(position) - 1 - i, other, goal))
            goal = other
    return "".join(reversed(parts))


def position_at(rng: random.Random, num_disks: int, goal: str, distance: int) -> str:
    """A random position from which the shortest plan has `distance` moves: moving a disk of rank r and the tower that
    follows it takes 2^r of them."""
    position = ""
    for rank in range(num_disks - 1, -1, -1):
        if distance >> rank & 1:
            peg = rng.choice(PEGS.replace(goal, ""))
            position, goal = position + peg, third(peg, goal)
        else:
            position += goal
    return position


@register("task", "hanoi")
@dataclass(frozen=True)
class Hanoi(PlanTask):
    """Level l: shortest plans between the two `DISTANCES[l]` with between `DISKS[l]` disks.

    Right are any legal moves within `SLACK` of the level's longest shortest plan that end with the tower on the goal's
    peg; credit as for `PlanTask`, by the length of the shortest plan that is left. At level 0 one of three pegs and the
    end mark are guessed, 1 in 16, or the disk goes around.
    """

    name: ClassVar[str] = "hanoi"
    alphabet: ClassVar[str] = PEGS
    thought_alphabet: ClassVar[str] = PEGS + ": "

    def answer_limit(self, level: int) -> int:
        """`SLACK` above the longest shortest plan."""
        return DISTANCES[level][1] + SLACK

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Distance, goal, and a position so far away."""
        distance, peg = rng.randint(*DISTANCES[level]), rng.choice(PEGS)
        num_disks = rng.randint(max(DISKS[level][0], distance.bit_length()), DISKS[level][1])
        start = position_at(rng, num_disks, peg, distance)
        meta = {"start": start, "goal": peg * num_disks}
        return f"hanoi {start} to {peg}", shortest_plan(start, peg), meta

    def successor(self, problem: Problem, state: str, move: str) -> str | None:
        """The smallest disk on the two pegs other than `move` goes to the other of them; None where both are bare."""
        at = max(state.rfind(peg) for peg in PEGS if peg != move)
        return state[:at] + third(state[at], move) + state[at + 1 :] if at >= 0 else None

    def distance(self, problem: Problem, state: str) -> float:
        """Moves of the shortest plan."""
        return len(shortest_plan(state, problem.meta["goal"][0]))
