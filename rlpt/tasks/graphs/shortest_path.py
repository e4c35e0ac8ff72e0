"""A path of least total weight in a weighted graph: `shortest 0>3: 01:4 02:1 12:2 13:1` -> `0213`."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS, Task
from rlpt.tasks.graphs.path import valid_prefix
from rlpt.tasks.graphs.random_graph import connected_edges
from rlpt.types import Problem

NODES = (2, 3, 4, 5, 6, 7, 8, 9, 10, 10)  # by level
EXTRA_EDGES = (0, 1, 1, 2, 3, 4, 5, 6, 7, 9)  # beyond a tree, by level


def settle(start: str, edges: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Node -> (least weight from `start`, node before it) by Dijkstra's algorithm (1959), in the order in which nodes
    are settled: nearest first, then by the node and the one before. Edges are undirected, `ab:weight`."""
    neighbours: dict[str, list[tuple[str, int]]] = {}
    for edge in edges:
        neighbours.setdefault(edge[0], []).append((edge[1], int(edge[3:])))
        neighbours.setdefault(edge[1], []).append((edge[0], int(edge[3:])))
    settled: dict[str, tuple[int, str]] = {}
    queue = [(0, start, "")]
    while queue:
        weight, node, before = heappop(queue)
        if node not in settled:
            settled[node] = weight, before
            for other, step in neighbours.get(node, []):
                if other not in settled:
                    heappush(queue, (weight + step, other, node))
    return settled


def weights(edges: Sequence[str]) -> dict[str, int]:
    """Weight by edge, written in both directions."""
    return {pair: int(edge[3:]) for edge in edges for pair in (edge[:2], edge[1::-1])}


@register("task", "shortest_path")
@dataclass(frozen=True)
class ShortestPath(Task):
    """Level l: `NODES[l]` nodes, `EXTRA_EDGES[l]` undirected edges beyond a tree, weights 1 to 9; the goal is one of
    the nodes whose shortest path has the most edges.

    Right is any path of least weight. Else the credit is the share of the answer that is a valid beginning, times least
    weight over the least weight after that beginning, halved unless the goal is reached. At level 0 the goal is the
    start or its neighbour: three equally likely symbols solve it 1 in 9 or 1 in 27 times.
    """

    name: ClassVar[str] = "shortest_path"
    unique_answer: ClassVar[bool] = False
    thought_alphabet: ClassVar[str] = DIGITS + ":+=< "

    def legal_characters(self, level: int) -> str:
        """The level's nodes."""
        return DIGITS[: NODES[level]]

    def answer_limit(self, level: int) -> int:
        """A path through every node."""
        return NODES[level]

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """A random connected graph with uniform weights, a uniform start."""
        nodes = self.legal_characters(level)
        edges = [f"{edge}:{1 + int(rng.random() * 9)}" for edge in connected_edges(rng, nodes, EXTRA_EDGES[level])]
        start = rng.choice(nodes)
        paths: dict[str, str] = {"": ""}
        settled = settle(start, edges)
        for node, (_, before) in settled.items():
            paths[node] = paths[before] + node
        answer = max(paths.values(), key=len) if level else paths[rng.choice(nodes)]
        goal = answer[-1]
        meta = {"start": start, "goal": goal, "edges": edges, "weight": settled[goal][0]}
        return f"shortest {start}>{goal}: {' '.join(edges)}", answer, meta

    def solution(self, problem: Problem) -> str:
        """`0=0 02:0+1=1 21:1+2=3 13:3+1=4 3<1 1<2 2<0`: nodes as they are settled, each by an edge from a settled one
        with the sum of weights, until the goal; then the way back from it."""
        start, goal, edges = (problem.meta[key] for key in ("start", "goal", "edges"))
        settled, steps = settle(start, edges), [f"{start}=0"]
        for node, (weight, before) in settled.items():
            if before:
                step = weight - settled[before][0]
                steps.append(f"{before}{node}:{settled[before][0]}+{step}={weight}")
            if node == goal:
                break
        back = problem.answer[::-1]
        return " ".join(steps + [f"{back[i]}<{back[i + 1]}" for i in range(len(back) - 1)])

    def check_steps(self, problem: Problem, trace: str) -> list[float]:
        """A node is settled rightly by any edge that gives the least sum of all that leave the settled ones; the way
        back goes from the goal along edges whose weight is the difference of the sums."""
        start, at, edges = (problem.meta[key] for key in ("start", "goal", "edges"))
        weight = weights(edges)
        sums: dict[str, int] = {}
        scores = []
        for step in trace.split():
            leaving = {pair: sums[pair[0]] + weight[pair] for pair in weight if pair[0] in sums and pair[1] not in sums}
            nearest = {
                f"{pair}:{total - weight[pair]}+{weight[pair]}={total}": pair[1]
                for pair, total in leaving.items()
                if total == min(leaving.values())
            }
            back = {
                f"{at}<{pair[1]}": pair[1]
                for pair in weight
                if pair[0] == at and at in sums and sums.get(pair[1]) == sums[at] - weight[pair]
            }
            if step in nearest:
                sums[nearest[step]] = int(step.rpartition("=")[2])
            elif step in back:
                at = back[step]
            elif step == f"{start}=0" and not sums:
                sums[start] = 0
            else:
                scores.append(0.0)
                continue
            scores.append(1.0)
        return scores

    def grade(self, problem: Problem, answer: str) -> float:
        """See the class."""
        start, goal, edges, least = (problem.meta[key] for key in ("start", "goal", "edges", "weight"))
        valid = valid_prefix(answer, start, [edge[:2] for edge in edges])
        if valid == 0:
            return 0.0
        weight = weights(edges)
        total = sum(weight[answer[i : i + 2]] for i in range(valid - 1))
        reached = valid == len(answer) and answer[-1] == goal
        if reached and total == least:
            return 1.0
        whole = total + settle(goal, edges)[answer[valid - 1]][0]
        quality = least / whole if whole else 1.0
        return valid / max(len(answer), len(problem.answer)) * quality * (1.0 if reached else 0.5)
