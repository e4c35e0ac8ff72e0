"""A path between two nodes of a small undirected graph: `path 0>3: 01 12 13` -> `013`."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS, Task
from rlpt.tasks.search_trace import Option, check_search, search, show_search
from rlpt.types import Problem

NODES = (2, 3, 4, 5, 6, 7, 8, 9, 10, 10)  # by level
DISTANCES = ((0, 1), (1, 2), (2, 2), (2, 3), (3, 3), (3, 4), (4, 4), (4, 5), (5, 5), (6, 6))  # least, most, by level
EXTRA_EDGES = (0, 0, 0, 1, 1, 2, 2, 3, 4, 6)  # beyond a tree, by level


def distances_to(goal: str, edges: Sequence[str]) -> dict[str, int]:
    """Edges between each reachable node and `goal`."""
    neighbours: dict[str, list[str]] = {}
    for edge in edges:
        neighbours.setdefault(edge[0], []).append(edge[1])
        neighbours.setdefault(edge[1], []).append(edge[0])
    found, queue = {goal: 0}, deque([goal])
    while queue:
        node = queue.popleft()
        for other in neighbours.get(node, []):
            if other not in found:
                found[other] = found[node] + 1
                queue.append(other)
    return found


def shortest_path(start: str, goal: str, edges: Sequence[str]) -> str:
    """The first in order among the shortest paths from `start` to `goal`, which must be joined."""
    away = distances_to(goal, edges)
    path = start
    while path[-1] != goal:
        neighbours = [edge.replace(path[-1], "") for edge in edges if path[-1] in edge]
        path += min(node for node in neighbours if away[node] == away[path[-1]] - 1)
    return path


def valid_prefix(answer: str, start: str, edges: Sequence[str]) -> int:
    """How many leading nodes of `answer` are a walk from `start` along `edges` that meets no node twice."""
    joined = {frozenset(edge) for edge in edges}
    if not answer.startswith(start):
        return 0
    length = 1
    while (
        length < len(answer)
        and frozenset(answer[length - 1 : length + 1]) in joined
        and answer[length] not in answer[:length]
    ):
        length += 1
    return length


@dataclass(frozen=True)
class Walk:
    """Nodes to walk to from a node, in order, none of them twice in a whole search (`search_trace.Space`)."""

    revisits: ClassVar[bool] = False
    one_group_decides: ClassVar[bool] = True

    start: str
    goal: str
    edges: Sequence[str]

    def groups(self, state: str) -> list[list[Option[str]]]:
        """`01`, or `2` as an alternative: the neighbours, unless this is the goal."""
        others = sorted(edge.replace(state, "") for edge in self.edges if state in edge)
        return [[Option(state + other, other, other) for other in others]] if state != self.goal else []

    def checks(self, state: str) -> dict[str, bool]:
        """`1!3`, or `3=3`: where the walk ends, beside the goal."""
        return {f"{state}={state}": True} if state == self.goal else {f"{state}!{self.goal}": False}


@register("task", "graph_path")
@dataclass(frozen=True)
class GraphPath(Task):
    """Level l: `NODES[l]` nodes, start and goal `DISTANCES[l]` edges apart, `EXTRA_EDGES[l]` edges beyond a tree.

    Right is any path that meets no node twice, not only a shortest one. Else the credit is the share of the answer that
    is a valid beginning, halved unless that beginning comes nearer to the goal. At level 0 the goal is the start or its
    neighbour: three equally likely symbols solve it 1 in 9 or 1 in 27 times.
    """

    name: ClassVar[str] = "graph_path"
    unique_answer: ClassVar[bool] = False

    search_trace: bool = False  # worked traces show a depth-first search, and answers are the paths that it finds

    def __post_init__(self) -> None:
        if self.search_trace:
            show_search(self, DIGITS + "=!")

    def legal_characters(self, level: int) -> str:
        """The level's nodes."""
        return DIGITS[: NODES[level]]

    def answer_limit(self, level: int) -> int:
        """A path through every node."""
        return NODES[level]

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """A backbone from start to goal, the other nodes hung on at random, then edges that are no short cut."""
        nodes = list(self.legal_characters(level))
        rng.shuffle(nodes)
        distance = rng.randint(*DISTANCES[level])
        start, goal = nodes[0], nodes[distance]
        edges = [nodes[i] + nodes[i + 1] for i in range(distance)]
        edges += [nodes[rng.randrange(i)] + nodes[i] for i in range(distance + 1, len(nodes))]
        missing = [a + b for i, a in enumerate(nodes) for b in nodes[:i] if a + b not in edges and b + a not in edges]
        rng.shuffle(missing)
        added = 0
        for edge in missing:
            if added < EXTRA_EDGES[level] and distances_to(goal, [*edges, edge])[start] == distance:
                edges.append(edge)
                added += 1
        edges = ["".join(sorted(edge)) for edge in edges]
        rng.shuffle(edges)
        if self.search_trace:
            answer = start + "".join(edge[1] for edge in search(Walk(start, goal, edges)).path)
        else:
            answer = shortest_path(start, goal, edges)
        return f"path {start}>{goal}: {' '.join(edges)}", answer, {"start": start, "goal": goal, "edges": edges}

    def solution(self, problem: Problem) -> str:
        """`01 13`: the edges walked; a lone node where the start is the goal. With `search_trace`,
        `01|2 ?1!3 <02 23 ?3=3`: see the module of that name."""
        if self.search_trace:
            return " ".join(search(self._space(problem)).steps)
        answer = problem.answer
        return " ".join(answer[i : i + 2] for i in range(len(answer) - 1)) or answer

    def check_steps(self, problem: Problem, trace: str) -> list[float]:
        """A step is right when it is an edge that goes on from where the last right step ended, or when the search may
        go on with it."""
        if self.search_trace:
            return check_search(self._space(problem), trace)
        edges, at = {frozenset(edge) for edge in problem.meta["edges"]}, problem.meta["start"]
        scores = []
        for step in trace.split():
            stay = step == at == problem.meta["goal"]
            move = len(step) == 2 and step[0] == at and frozenset(step) in edges
            at = step[1] if move else at
            scores.append(float(stay or move))
        return scores

    def grade(self, problem: Problem, answer: str) -> float:
        """See the class."""
        start, goal, edges = (problem.meta[key] for key in ("start", "goal", "edges"))
        valid = valid_prefix(answer, start, edges)
        if valid == len(answer) and answer[-1] == goal:
            return 1.0
        if valid == 0:
            return 0.0
        away = distances_to(goal, edges)
        progress = max(0.0, 1 - away[answer[valid - 1]] / away[start]) if away[start] else 0.0
        return valid / max(len(answer), away[start] + 1) * (0.5 + 0.5 * progress)

    def _space(self, problem: Problem) -> Walk:
        return Walk(*(problem.meta[key] for key in ("start", "goal", "edges")))
