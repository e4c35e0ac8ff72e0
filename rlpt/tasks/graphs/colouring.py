"""Colours for the nodes of a graph such that no edge joins two of the same: `colour 3: 01 12 02` -> `rgb`.

The number says how many of the colours r, g, b, y may be used; the answer has one for each node, in ascending order.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS, Task
from rlpt.types import Problem

NODES = (2, 4, 5, 6, 7, 8, 9, 9, 10, 10)  # by level
COLOURS = (3, 3, 3, 3, 3, 3, 3, 4, 4, 4)  # by level
EDGES = (1, 4, 6, 8, 10, 12, 14, 17, 20, 24)  # at least, where the colours leave room, by level
LETTERS = "rgby"


def coloured_neighbours(node: str, edges: list[str], colour: Mapping[str, str]) -> str:
    """`0r1g`: the neighbours of `node` that have a colour, ascending, with it."""
    others = sorted(edge.replace(node, "") for edge in edges if node in edge)
    return "".join(other + colour[other] for other in others if other in colour)


@register("task", "colouring")
@dataclass(frozen=True)
class Colouring(Task):
    """Level l: `NODES[l]` nodes out of ten, `COLOURS[l]` colours, about `EDGES[l]` edges.

    Right is any proper colouring. The oracle's gives each node in turn the first colour that its earlier neighbours
    leave, which never fails on these graphs. Else the credit adds 0.2 x the share of nodes that have a colour and 0.8 x
    the share of edges that join different colours, beyond those of a random colouring. At level 0 two nodes want
    different colours: 6 in 64.
    """

    name: ClassVar[str] = "colouring"
    unique_answer: ClassVar[bool] = False
    alphabet: ClassVar[str] = LETTERS
    thought_alphabet: ClassVar[str] = DIGITS + LETTERS + ":= "

    def legal_characters(self, level: int) -> str:
        """The level's colours."""
        return LETTERS[: COLOURS[level]]

    def answer_limit(self, level: int) -> int:
        """A colour for each node."""
        return NODES[level]

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Each node gets a colour and edges to an earlier node of every colour before that; then come random edges
        between different colours."""
        count = NODES[level]
        nodes = sorted(rng.sample(DIGITS, count))
        classes: list[list[int]] = [[0], [1]] + [[] for _ in range(COLOURS[level] - 2)]  # by colour, the nodes
        chosen, used = [0, 1], 2  # colours of the nodes; colours that have a node
        pairs = {(0, 1)}
        for node in range(2, count):
            colour = int(rng.random() * min(COLOURS[level], used + 1))
            used = max(used, colour + 1)
            # A node of the first colour joins one of another, lest it be in no edge at all.
            pairs |= {(rng.choice(classes[other]), node) for other in range(colour)} or {(rng.choice(classes[1]), node)}
            classes[colour].append(node)
            chosen.append(colour)
        rest = [(i, j) for j in range(count) for i in range(j) if chosen[i] != chosen[j] and (i, j) not in pairs]
        extra = rng.sample(rest, min(len(rest), max(0, EDGES[level] - len(pairs))))
        edges = [nodes[i] + nodes[j] for i, j in [*sorted(pairs), *extra]]
        rng.shuffle(edges)
        answer = "".join(LETTERS[colour] for colour in chosen)
        meta = {"nodes": "".join(nodes), "colours": self.legal_characters(level), "edges": edges}
        return f"colour {COLOURS[level]}: {' '.join(edges)}", answer, meta

    def solution(self, problem: Problem) -> str:
        """`0:=r 1:0r=g 2:0r1g=b`: each node, its neighbours that have a colour, and the first one that they leave."""
        steps: list[str] = []
        colour: dict[str, str] = {}
        for node, letter in zip(problem.meta["nodes"], problem.answer):
            steps.append(f"{node}:{coloured_neighbours(node, problem.meta['edges'], colour)}={letter}")
            colour[node] = letter
        return " ".join(steps)

    def check_steps(self, problem: Problem, trace: str) -> list[float]:
        """Nodes may come in any order, each once, and get any colour that their neighbours leave."""
        nodes, colours, edges = (problem.meta[key] for key in ("nodes", "colours", "edges"))
        colour: dict[str, str] = {}
        scores = []
        for step in trace.split():
            node, letter = step[0], step[-1]
            beside = coloured_neighbours(node, edges, colour)
            right = node in nodes and node not in colour and letter in colours and letter not in beside
            right = right and step == f"{node}:{beside}={letter}"
            if right:
                colour[node] = letter
            scores.append(float(right))
        return scores

    def grade(self, problem: Problem, answer: str) -> float:
        """See the class."""
        nodes, colours, edges = (problem.meta[key] for key in ("nodes", "colours", "edges"))
        colour = {node: letter for node, letter in zip(nodes, answer) if letter in colours}
        proper = sum(a in colour and b in colour and colour[a] != colour[b] for a, b in edges)
        if proper == len(edges):
            return 1.0
        chance = len(edges) * (1 - 1 / len(colours))
        beyond = max(0.0, (proper - chance) / (len(edges) - chance))
        return 0.2 * len(colour) / len(nodes) + 0.8 * beyond
