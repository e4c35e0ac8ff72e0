"""Search trees over moves: what was tried from a position, how often, and what came of it.

A tree grows one leaf a simulation. Statistics of a move are those of the seat that makes it, so that any number of
seats, in any order of turns, share one rule. Simulations that are under way count as visits that were lost (virtual
loss: Chaslot, Winands and van den Herik 2008, "Parallel Monte-Carlo tree search"), so that several can be at once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from rlpt.tasks.base import keyed_hash
from rlpt.tasks.games.base import OVER

LOSS = -1.0  # the return that a simulation under way counts as
WIN = 1.0  # the highest return


class Space(Protocol):
    """What is searched: positions, moves from them, returns in [-1, 1]. Every game with perfect information is one."""

    @property
    def num_players(self) -> int:
        """How many seats."""
        ...

    def player(self, state: Any) -> int:
        """The seat to move, from 0; `OVER` at the end."""
        ...

    def legal_moves(self, state: Any) -> Sequence[str]:
        """In a fixed order; empty at the end."""
        ...

    def apply(self, state: Any, move: str) -> Any:
        """The position after a legal move."""
        ...

    def returns(self, state: Any) -> Sequence[float]:
        """Each seat's return at the end."""
        ...

    def same(self, state: Any) -> Hashable | None:
        """Equal for positions that go on alike, whatever led to them; None: not known. No play meets one twice."""
        ...


@dataclass(frozen=True)
class Leaf:
    """What an evaluator says of a position: `priors` [A] f64 of its legal moves (they add up to 1), each seat's
    expected return, what it took to say so, and the moves themselves where they were sampled and no rule lists them."""

    priors: np.ndarray
    values: tuple[float, ...]
    tokens: int = 0  # that a model read or wrote
    moves: tuple[str, ...] | None = None  # None: those of `Space.legal_moves`


class Evaluator(Protocol):
    """Judges positions that are not over, in one call. `keys` (64-bit) name the noise of each."""

    def __call__(self, space: Space, states: Sequence[Any], keys: Sequence[int]) -> list[Leaf]: ...


@dataclass
class Node:
    """A position. Mutable: simulations add to it. Arrays are by legal move, for the seat that moves here."""

    state: Any
    path: tuple[str, ...]  # the moves from the root by which it was first reached
    player: int
    moves: tuple[str, ...]
    leaf: Leaf | None = None  # None: not judged yet, or the end
    priors: np.ndarray = field(default_factory=lambda: np.zeros(0))  # [A] f64; the root's may hold noise
    visits: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # [A] simulations that are finished
    totals: np.ndarray = field(default_factory=lambda: np.zeros(0))  # [A] f64 sums of their returns
    pending: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # [A] simulations under way
    children: dict[int, Node] = field(default_factory=dict)
    known: np.ndarray = field(default_factory=lambda: np.zeros(0))  # [A] f64 returns that are proved; NaN: not yet
    proved: tuple[float, ...] | None = None  # each seat's return when all play on as well as they can

    @property
    def is_over(self) -> bool:
        """Whether the game has ended here."""
        return self.player == OVER

    @property
    def value(self) -> float:
        """What the evaluator expects for the seat that moves."""
        assert self.leaf is not None, "a position that was not judged"
        return self.leaf.values[self.player]

    def tried(self) -> np.ndarray:
        """[A] simulations, those under way included."""
        return self.visits + self.pending

    def means(self, unvisited: float) -> np.ndarray:
        """[A] mean returns, those under way counted as lost; `unvisited` where there is none. What is proved counts as
        proved."""
        tried = self.tried()
        means = np.where(tried > 0, (self.totals + LOSS * self.pending) / np.maximum(tried, 1), unvisited)
        return np.where(np.isnan(self.known), means, self.known)

    def expand(self, leaf: Leaf) -> None:
        """The evaluator's word."""
        if leaf.moves is not None:
            self.moves = leaf.moves
        assert leaf.priors.shape == (len(self.moves),), "one prior a legal move"
        num_moves = len(self.moves)
        self.leaf, self.priors = leaf, leaf.priors.astype(np.float64)
        self.visits, self.pending = np.zeros(num_moves, np.int64), np.zeros(num_moves, np.int64)
        self.totals = np.zeros(num_moves)
        self.known = np.full(num_moves, np.nan)


@dataclass
class Path:
    """A simulation under way: the moves from the root to a position that is over or has to be judged."""

    steps: list[tuple[Node, int]]
    end: Node


class Tree:
    """A search from one position. `key` names all of its noise.

    With `proves`, ends of the game are seen one move ahead, and what they prove goes up the tree: a position with a
    proved win is won, one whose moves are all proved is as good as the best of them (MCTS-Solver: Winands, Björnsson
    and Saito 2008). A simulation ends where the return is proved. Positions that are the `same` are one node then, so
    that what is found out about one on one way counts on all (Czech, Korus and Kersting 2020, "Monte-Carlo graph
    search for AlphaZero", 2012.11045).
    """

    def __init__(self, space: Space, state: Any, key: int, proves: bool = False) -> None:
        self.space, self.key, self.proves = space, key, proves
        self._shared: dict[Hashable, Node] = {}
        self.root = self._node(state, ())
        self.simulations = 0  # finished, the root's own judgement not counted
        self.tokens = 0  # spent by the evaluator
        self.plan: Any = None  # what a rule drew and planned for this search
        if self.root.is_over:
            raise ValueError("nothing can be searched in a position that is over")

    def generator(self, use: str) -> np.random.Generator:
        """Noise of one use, keyed by the tree."""
        return np.random.Generator(np.random.PCG64(keyed_hash(use, self.key)))

    def descend(self, choose: Callable[[Node], int]) -> Path:
        """Starts a simulation: takes moves (by index) until a position is over or not judged yet, and marks them as
        under way."""
        node, steps = self.root, []
        while not node.is_over and node.leaf is not None and (node.proved is None or node is self.root):
            index = choose(node)
            node.pending[index] += 1
            steps.append((node, index))
            if index not in node.children:
                after = self.space.apply(node.state, node.moves[index])
                node.children[index] = self._met(after) or self._node(after, (*node.path, node.moves[index]))
            node = node.children[index]
        return Path(steps, node)

    def finish(self, path: Path, leaf: Leaf | None) -> None:
        """Ends a simulation: `leaf` judges its end, None where that is over. Returns go to every move on the way."""
        end = path.end
        if leaf is not None and end.leaf is None:
            end.expand(leaf)
            self.tokens += leaf.tokens
            if self.proves:
                self._look_ahead(end)
        elif end.is_over:
            end.proved = tuple(self.space.returns(end.state)) if self.proves else None
        returns = end.proved if end.proved is not None else self._returns(end)
        for node, index in path.steps:
            node.pending[index] -= 1
            node.visits[index] += 1
            node.totals[index] += returns[node.player]
        if self.proves:
            for node, _ in reversed(path.steps):
                self._take_proofs(node)
        self.simulations += bool(path.steps)

    def _returns(self, end: Node) -> Sequence[float]:
        """What a position counts as: the game's end, or the evaluator's word."""
        if end.is_over:
            return self.space.returns(end.state)
        assert end.leaf is not None, "a position that was not judged"
        return end.leaf.values

    def _look_ahead(self, node: Node) -> None:
        """Marks moves that end the game, and finds what is known of the positions after the others."""
        for index, move in enumerate(node.moves):
            after = self.space.apply(node.state, move)
            if self.space.player(after) == OVER:
                self._prove(node, index, tuple(self.space.returns(after)))
            elif (met := self._met(after)) is not None:
                node.children[index] = met
        self._take_proofs(node)

    def _take_proofs(self, node: Node) -> None:
        """What is proved of the positions after it."""
        for index, child in node.children.items():
            if child.proved is not None and np.isnan(node.known[index]):
                self._prove(node, index, child.proved)

    def _prove(self, node: Node, index: int, returns: tuple[float, ...]) -> None:
        """What the move leads to is proved."""
        node.known[index] = returns[node.player]
        if returns[node.player] >= WIN or not np.isnan(node.known).any():
            best = np.nanmax(node.known)
            if node.proved is None or best > node.proved[node.player]:
                node.proved = returns if returns[node.player] == best else self._returns_of(node, best)

    def _returns_of(self, node: Node, best: float) -> tuple[float, ...]:
        """Each seat's returns after a move that is proved to be worth `best`."""
        index = int(np.argmax(node.known == best))
        child = node.children.get(index)
        if child is not None and child.proved is not None:
            return child.proved
        return tuple(self.space.returns(self.space.apply(node.state, node.moves[index])))

    def nodes(self) -> list[Node]:
        """Every position once; parents first, then in the order of moves."""
        found, seen = [self.root], {id(self.root)}
        for node in found:
            for index in sorted(node.children):
                if id(child := node.children[index]) not in seen:
                    seen.add(id(child))
                    found.append(child)
        return found

    def dump(self) -> dict[str, Any]:
        """JSON-able: all that `Recorded` needs to grow the same tree again, and all that a viewer shows."""
        return {
            "key": self.key,
            "simulations": self.simulations,
            "tokens": self.tokens,
            "nodes": [_dumped(node) for node in self.nodes()],
        }

    def _met(self, state: Any) -> Node | None:
        """The node of the same position, where they are shared."""
        return self._shared.get(self.space.same(state)) if self.proves else None

    def _node(self, state: Any, path: tuple[str, ...]) -> Node:
        node = Node(state, path, self.space.player(state), tuple(self.space.legal_moves(state)))
        if self.proves and (same := self.space.same(state)) is not None:
            self._shared[same] = node
        return node


def _dumped(node: Node) -> dict[str, Any]:
    shown: dict[str, Any] = {"moves": list(node.path), "player": node.player}
    if node.leaf is not None:
        shown |= {
            "legal": list(node.moves),
            "leaf": {"priors": node.leaf.priors.tolist(), "values": list(node.leaf.values), "tokens": node.leaf.tokens},
            "priors": node.priors.tolist(),
            "visits": node.visits.tolist(),
            "totals": node.totals.tolist(),
        }
        if node.leaf.moves is not None:
            shown["leaf"]["moves"] = list(node.leaf.moves)
    return shown
