"""PUCT: AlphaZero's rule for which move to try next (Silver et al. 2018, Science 362, 1140)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.search.tree import LOSS, Node, Tree


@register("tree_rule", "puct")
@dataclass(frozen=True)
class Puct:
    """argmax Q(a) + c P(a) sqrt(N) / (1 + N(a)), c = c_init + log((1 + N + c_base) / c_base), N = 1 + sum N(a): the
    position's own judgement counts. Ties go to the first move.

    `noise_share` of the root's priors is drawn from a Dirichlet distribution: for self-play, so that every move has a
    chance. `unvisited` is Q where nothing was tried: the return of a loss, as AlphaZero has it, is -1, a draw's 0.
    """

    c_init: float = 2.5  # published as 1.25 for values in [0, 1]; ours are in [-1, 1]
    c_base: float = 19652.0
    unvisited: float = 0.0
    noise_share: float = 0.0  # AlphaZero: 0.25
    noise_alpha: float = 0.3  # of the Dirichlet distribution; AlphaZero: about 10 by the usual number of legal moves
    proves: bool = False  # ends of the game are taken as proofs, equal positions as one
    temperature: float = 0.0  # of `move`: moves by visits to the power 1 / temperature; 0: the most visited

    def __post_init__(self) -> None:
        if not 0 <= self.noise_share <= 1 or self.noise_alpha <= 0:
            raise ConfigError(
                f"noise_share={self.noise_share}, noise_alpha={self.noise_alpha}: need 0 <= noise_share <= 1 and "
                "noise_alpha > 0"
            )
        if self.c_base <= 0 or self.temperature < 0:
            raise ConfigError(
                f"c_base={self.c_base}, temperature={self.temperature}: need c_base > 0, temperature >= 0"
            )

    def prepare(self, tree: Tree, simulations: int) -> None:
        """Mixes noise into the priors of a root that was just judged."""
        if self.noise_share:
            root = tree.root
            drawn = tree.generator("noise").dirichlet(np.full(len(root.moves), self.noise_alpha))
            root.priors = (1 - self.noise_share) * root.priors + self.noise_share * drawn

    def choose(self, tree: Tree, node: Node) -> int:
        """The move of the next simulation: none that is proved to lose, while there are others."""
        scores, lost = self.scores(node), node.known <= LOSS
        return int(np.argmax(scores if lost.all() else np.where(lost, -np.inf, scores)))

    def scores(self, node: Node) -> np.ndarray:
        """[A] Q + U."""
        tried = node.tried()
        total = 1 + tried.sum()
        constant = self.c_init + np.log((1 + total + self.c_base) / self.c_base)
        return node.means(self.unvisited) + constant * node.priors * np.sqrt(total) / (1 + tried)

    def target(self, tree: Tree) -> np.ndarray:
        """[A] shares of the visits: what a policy learns from a search. The priors where nothing was visited."""
        visits = tree.root.visits
        return visits / visits.sum() if visits.any() else tree.root.priors

    def move(self, tree: Tree) -> int:
        """What is played: of equally visited moves the one with the highest mean return; a proved win before all, a
        proved loss after all."""
        root = tree.root
        decided = np.where(np.isnan(root.known), 0.0, np.trunc(root.known))
        if self.temperature:
            weights = (root.visits / max(1, root.visits.max())) ** (1 / self.temperature)
            weights = weights if weights.any() else root.priors
            return int(tree.generator("move").choice(len(weights), p=weights / weights.sum()))
        best = np.lexsort((np.arange(len(root.moves))[::-1], root.priors, root.means(-np.inf), root.visits, decided))
        return int(best[-1])
