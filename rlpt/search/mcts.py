"""Monte-Carlo tree search of many positions at once: one call of the evaluator judges the leaves of all trees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from rlpt.errors import ConfigError
from rlpt.search.tree import Evaluator, Leaf, Node, Path, Space, Tree
from rlpt.tasks.base import keyed_hash


class TreeRule(Protocol):
    """Which moves are tried, and what is made of the visits."""

    @property
    def proves(self) -> bool:
        """Whether ends of the game are taken as proofs (see `Tree`)."""
        ...

    def prepare(self, tree: Tree, simulations: int) -> None:
        """Called once, after the root was judged."""
        ...

    def choose(self, tree: Tree, node: Node) -> int:
        """Index of the move that a simulation takes in a judged position."""
        ...

    def target(self, tree: Tree) -> np.ndarray:
        """[A] f64: what a policy learns from a search; adds up to 1."""
        ...

    def move(self, tree: Tree) -> int:
        """Index of the move that is played."""
        ...


@dataclass(frozen=True)
class Budget:
    """What a search may cost: simulations, and tokens that a model reads or writes (0: no limit)."""

    simulations: int = 50
    tokens: int = 0
    parallel: int = 1  # simulations of one tree that are under way at once

    def __post_init__(self) -> None:
        if self.simulations < 0 or self.tokens < 0 or self.parallel < 1:
            raise ConfigError(
                f"simulations={self.simulations}, tokens={self.tokens}, parallel={self.parallel}: "
                "need simulations >= 0, tokens >= 0 and parallel >= 1"
            )


def search(
    space: Space,
    states: Sequence[Any],
    keys: Sequence[int],
    evaluate: Evaluator,
    rule: TreeRule,
    budget: Budget | Sequence[Budget],
) -> list[Tree]:
    """Searches each position; tree i depends on (states[i], keys[i]) and its budget alone, whatever else is in the
    call. `budget`: of each tree, or one a tree.

    A position that is reached twice in one round is judged once. A tree stops after its simulations, or before a round
    where its tokens are spent. Raises ValueError for a position that is over.
    """
    trees = [Tree(space, state, key, rule.proves) for state, key in zip(states, keys, strict=True)]
    budgets = [budget] * len(trees) if isinstance(budget, Budget) else budget
    _play_round(trees, [[Path([], tree.root)] for tree in trees], evaluate)
    for tree, one in zip(trees, budgets, strict=True):
        rule.prepare(tree, one.simulations)
    while live := [(tree, one) for tree, one in zip(trees, budgets) if _goes_on(tree, one)]:
        paths = []
        for tree, one in live:
            count = min(one.parallel, one.simulations - tree.simulations)
            paths.append([tree.descend(partial(rule.choose, tree)) for _ in range(count)])
        _play_round([tree for tree, _ in live], paths, evaluate)
    return trees


def _goes_on(tree: Tree, budget: Budget) -> bool:
    return tree.simulations < budget.simulations and not 0 < budget.tokens <= tree.tokens


def _play_round(trees: Sequence[Tree], paths: Sequence[Sequence[Path]], evaluate: Evaluator) -> None:
    """Judges the ends of all simulations in one call and finishes these, tree by tree, in the order they were begun."""
    asked: dict[int, tuple[Tree, Node, int]] = {}
    for tree, begun in zip(trees, paths, strict=True):
        for at, path in enumerate(begun):
            if not path.end.is_over and path.end.leaf is None:
                asked.setdefault(id(path.end), (tree, path.end, keyed_hash("leaf", tree.key, tree.simulations + at)))
    found: dict[int, Leaf] = {}
    if asked:
        space = trees[0].space
        states, keys = [node.state for _, node, _ in asked.values()], [key for *_, key in asked.values()]
        found = dict(zip(asked, evaluate(space, states, keys), strict=True))
    for tree, begun in zip(trees, paths, strict=True):
        for path in begun:
            tree.finish(path, found.get(id(path.end), path.end.leaf))
