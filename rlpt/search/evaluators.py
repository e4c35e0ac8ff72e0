"""What judges positions without a model: random play-outs, and what an earlier search was told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlpt.errors import ConfigError
from rlpt.search.tree import Leaf, Space
from rlpt.tasks.base import keyed_random
from rlpt.tasks.games.base import OVER


@dataclass(frozen=True)
class Rollouts:
    """Uniform priors; values are the mean returns of `count` games played on at random."""

    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"count={self.count}: must be at least 1")

    def __call__(self, space: Space, states: Sequence[Any], keys: Sequence[int]) -> list[Leaf]:
        """See `Evaluator`."""
        return [self._judged(space, state, key) for state, key in zip(states, keys, strict=True)]

    def _judged(self, space: Space, state: Any, key: int) -> Leaf:
        rng = keyed_random("rollouts", key, 0)
        returns = np.zeros(space.num_players)
        for _ in range(self.count):
            at = state
            while space.player(at) != OVER:
                at = space.apply(at, rng.choice(space.legal_moves(at)))
            returns += space.returns(at)
        num_moves = len(space.legal_moves(state))
        return Leaf(np.full(num_moves, 1 / num_moves), tuple((returns / self.count).tolist()))


class Recorded:
    """Says what was said in a search that was dumped, so that the same rule and budget grow the same tree again.

    States must hold the moves since the opening (`GameState.moves`). Raises LookupError for a position that is not in
    the dump: the rule, the budget or the code is not the one that made it.
    """

    def __init__(self, dump: Mapping[str, Any], root: Any) -> None:
        before = tuple(root.moves)
        self.leaves = {
            (*before, *node["moves"]): Leaf(
                np.array(node["leaf"]["priors"]),
                tuple(node["leaf"]["values"]),
                node["leaf"]["tokens"],
                tuple(node["leaf"]["moves"]) if "moves" in node["leaf"] else None,
            )
            for node in dump["nodes"]
            if "leaf" in node
        }

    def __call__(self, space: Space, states: Sequence[Any], keys: Sequence[int]) -> list[Leaf]:
        """See `Evaluator`."""
        for state in states:
            if tuple(state.moves) not in self.leaves:
                raise LookupError(f"the dump has no judgement of the position after {' '.join(state.moves) or 'none'}")
        return [self.leaves[tuple(state.moves)] for state in states]
