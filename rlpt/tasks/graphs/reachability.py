"""Which nodes of a small directed graph can be reached, one bit a query: `reach 01 12 31: 02 03` -> `10`."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS, Task, position_credit
from rlpt.types import Problem

NODES = (3, 4, 5, 6, 7, 8, 9, 10, 10, 10)  # by level
EDGES = (2, 4, 5, 7, 8, 10, 11, 13, 14, 16)  # by level
QUERIES = (1, 2, 3, 3, 4, 4, 5, 6, 7, 8)  # by level


def closure(edges: Sequence[str]) -> list[int]:
    """For each of ten nodes the set of nodes (bit j: node j) that one edge or more lead to (Warshall, 1962)."""
    reached = [0] * len(DIGITS)
    for edge in edges:
        reached[int(edge[0])] |= 1 << int(edge[1])
    for middle in range(len(DIGITS)):
        for node, found in enumerate(reached):
            if found >> middle & 1:
                reached[node] = found | reached[middle]
    return reached


def new_nodes(node: str, edges: Sequence[str], found: str) -> str:
    """The nodes, ascending, that an edge leads to from `node` and that are not in `found`."""
    return "".join(sorted(edge[1] for edge in edges if edge[0] == node and edge[1] not in found))


@register("task", "reachability")
@dataclass(frozen=True)
class Reachability(Task):
    """Level l: `NODES[l]` nodes, `EDGES[l]` directed edges, `QUERIES[l]` different pairs of start and goal, about half
    of them joined by a path, which is longer than an edge where it can be. Credit: share of bits right.

    No edge leads into one of the nodes, so that there are always pairs without a path. At level 0 the answer is one
    bit, guessed with the end mark: 1 in 9.
    """

    name: ClassVar[str] = "reachability"
    alphabet: ClassVar[str] = "01"
    thought_alphabet: ClassVar[str] = DIGITS + ">= "

    def answer_limit(self, level: int) -> int:
        """A bit for each query."""
        return QUERIES[level]

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Uniform among the edges between different nodes that do not lead into the first node drawn."""
        nodes = rng.sample(DIGITS[: NODES[level]], NODES[level])
        others = len(nodes) - 1
        edges = []
        for index in rng.sample(range(others * others), EDGES[level]):
            goal, start = 1 + index // others, index % others
            edges.append(nodes[start + (start >= goal)] + nodes[goal])
        reached, present = closure(edges), set(edges)
        pools: tuple[list[str], ...] = ([], [], [])  # without a path, joined by a longer path only, by an edge
        for a in nodes:
            for b in nodes:
                if a != b:
                    pools[(reached[int(a)] >> int(b) & 1) + (a + b in present)].append(a + b)
        queries, answer = [], ""
        for _ in range(QUERIES[level]):
            joined = pools[1] or pools[2]
            pool = (joined if rng.random() < 0.5 else pools[0]) or joined or pools[0]
            queries.append(pool.pop(int(rng.random() * len(pool))))
            answer += "0" if pool is pools[0] else "1"
        prompt = f"reach {' '.join(edges)}: {' '.join(queries)}"
        return prompt, answer, {"edges": edges, "queries": queries}

    def solution(self, problem: Problem) -> str:
        """`0>1 1>2 02=1`: for each query a breadth-first search, node by node with those it adds, until the goal is
        found or no node is left, and then the bit."""
        edges, steps = problem.meta["edges"], []
        for (start, goal), bit in zip(problem.meta["queries"], problem.answer):
            found, done = start, 0
            while goal not in found and done < len(found):
                added = new_nodes(found[done], edges, found)
                steps.append(f"{found[done]}>{added}")
                found += added
                done += 1
            steps.append(f"{start}{goal}={bit}")
        return " ".join(steps)

    def check_steps(self, problem: Problem, trace: str) -> list[float]:
        """Found nodes may be gone on from in any order, each once; the bit is right when the search has shown it."""
        edges, queries = problem.meta["edges"], list(problem.meta["queries"])
        found, waiting = queries[0][0], queries[0][0]  # nodes; those to go on from
        scores = []
        for step in trace.split():
            verdict = ""
            if queries and queries[0][1] in found:
                verdict = f"{queries[0]}=1"
            elif queries and not waiting:
                verdict = f"{queries[0]}=0"
            added = new_nodes(step[0], edges, found)
            expands = bool(queries) and step[0] in waiting and step == f"{step[0]}>{added}"
            if expands:
                found, waiting = found + added, waiting.replace(step[0], "") + added
            elif step == verdict:
                queries.pop(0)
                found = waiting = queries[0][0] if queries else ""
            scores.append(float(expands or step == verdict))
        return scores

    def grade(self, problem: Problem, answer: str) -> float:
        """Share of bits right."""
        return position_credit(answer, problem.answer)
