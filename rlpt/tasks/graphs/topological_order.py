"""The nodes of a directed acyclic graph, each after all that lead to it: `topological 4: 20 01 23` -> `2013`.

The number says how many nodes of an order are wanted: all, but at level 0, where one that can come first will do.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS, Task
from rlpt.tasks.graphs.random_graph import connected_edges
from rlpt.types import Problem

NODES = (3, 3, 4, 5, 6, 7, 8, 9, 10, 10)  # by level
WANTED = (1, *NODES[1:])  # nodes of the order, by level
EXTRA_EDGES = (0, 1, 1, 2, 2, 3, 4, 6, 7, 10)  # beyond a tree, by level


def predecessors(edges: Sequence[str]) -> dict[str, set[str]]:
    """Node -> those with an edge to it, nodes ascending."""
    before: dict[str, set[str]] = {node: set() for node in sorted(set("".join(edges)))}
    for edge in edges:
        before[edge[1]].add(edge[0])
    return before


def valid_beginning(answer: str, before: Mapping[str, set[str]]) -> int:
    """How many leading nodes of `answer` are new and come after all that lead to them."""
    placed: set[str] = set()
    for length, node in enumerate(answer):
        if node not in before or node in placed or not before[node] <= placed:
            return length
        placed.add(node)
    return len(answer)


def taking(node: str, edges: Sequence[str], counts: Mapping[str, int]) -> str:
    """`2>0:0,3:1`: the step that takes a node, with the edges left to each of its successors, ascending."""
    return f"{node}>" + ",".join(f"{b}:{counts[b] - 1}" for b in sorted(e[1] for e in edges if e[0] == node))


@register("task", "topological_order")
@dataclass(frozen=True)
class TopologicalOrder(Task):
    """Level l: `NODES[l]` nodes, `EXTRA_EDGES[l]` edges beyond a tree, `WANTED[l]` nodes of an order.

    Right is any order; the oracle's takes the least node that is free. Else the credit is half the share of the answer
    that is a valid beginning and half the share of edges whose two nodes it has in order. At level 0 one or two of
    three nodes can be first, guessed with the end mark: 1 in 16 or in 8.
    """

    name: ClassVar[str] = "topological_order"
    unique_answer: ClassVar[bool] = False
    thought_alphabet: ClassVar[str] = DIGITS + "=>:, "

    def legal_characters(self, level: int) -> str:
        """The level's nodes."""
        return DIGITS[: NODES[level]]

    def answer_limit(self, level: int) -> int:
        """The nodes wanted."""
        return WANTED[level]

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """A random connected graph whose edges lead the way of a random ranking."""
        nodes = self.legal_characters(level)
        rank = rng.sample(range(len(nodes)), len(nodes))
        edges = connected_edges(rng, nodes, EXTRA_EDGES[level])
        edges = [edge if rank[int(edge[0])] < rank[int(edge[1])] else edge[::-1] for edge in edges]
        before, order = predecessors(edges), ""
        while len(order) < WANTED[level]:
            order += next(node for node in nodes if node not in order and before[node].issubset(order))
        return f"topological {WANTED[level]}: {' '.join(edges)}", order, {"edges": edges, "wanted": WANTED[level]}

    def solution(self, problem: Problem) -> str:
        """`0=1 1=1 2=0 3=1 2>0:0,3:0 0>1:0 1> 3>`: the edges into each node, then Kahn's algorithm (1962): a node
        without any is taken, and its edges with it."""
        edges = problem.meta["edges"]
        counts = {node: len(before) for node, before in predecessors(edges).items()}
        steps = [f"{node}={count}" for node, count in counts.items()]
        for node in problem.answer:
            steps.append(taking(node, edges, counts))
            counts.update({edge[1]: counts[edge[1]] - 1 for edge in edges if edge[0] == node})
        return " ".join(steps)

    def check_steps(self, problem: Problem, trace: str) -> list[float]:
        """Any free node may be taken, as often as nodes are wanted; counts are right once for each node."""
        edges = problem.meta["edges"]
        counts = {node: len(before) for node, before in predecessors(edges).items()}
        counting, free, scores = {f"{node}={count}" for node, count in counts.items()}, dict(counts), []
        for step in trace.split():
            node = step[0]
            takes = free.get(node) == 0 and step == taking(node, edges, counts)
            if takes:
                del free[node]
                counts.update({edge[1]: counts[edge[1]] - 1 for edge in edges if edge[0] == node})
                free.update({edge[1]: counts[edge[1]] for edge in edges if edge[0] == node})
            scores.append(float(takes or step in counting))
            counting.discard(step)
        return scores

    def grade(self, problem: Problem, answer: str) -> float:
        """See the class."""
        edges, wanted = problem.meta["edges"], problem.meta["wanted"]
        valid = valid_beginning(answer, predecessors(edges))
        if valid == len(answer) == wanted:
            return 1.0
        respected = sum(-1 < answer.find(a) < answer.find(b) for a, b in edges)
        return 0.5 * valid / max(len(answer), wanted) + 0.5 * respected / len(edges)
