"""Gumbel search: a policy improvement with few simulations (Danihelka et al. 2022, "Policy improvement by planning with
Gumbel", ICLR; the schedule and the defaults are those of its authors' mctx)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.search.tree import Node, Tree


def considered_visits(considered: int, simulations: int) -> list[int]:
    """Sequential halving as a list: simulation t goes to a move that was tried `list[t]` times.

    `considered` moves are tried equally often; then the better half; and so on down to two (Karnin, Koren and Somekh
    2013; figure 1 of the paper).
    """
    if considered <= 1:
        return list(range(simulations))
    rounds = math.ceil(math.log2(considered))
    visits, sequence, left = [0] * considered, list[int](), considered
    while len(sequence) < simulations:
        for _ in range(max(1, int(simulations / (rounds * left)))):
            sequence += visits[:left]
            for index in range(left):
                visits[index] += 1
        left = max(2, left // 2)
    return sequence[:simulations]


@dataclass(frozen=True)
class GumbelPlan:
    """What is drawn and planned once a search."""

    noise: np.ndarray  # [A] g of the root's moves
    schedule: list[int]  # simulation t goes to a move that was tried so often


@register("tree_rule", "gumbel")
@dataclass(frozen=True)
class Gumbel:
    """At the root: the `considered` moves with the highest g(a) + logit(a), by sequential halving on
    g(a) + logit(a) + sigma(q(a)); below: argmax pi'(a) - N(a) / (1 + sum N), pi' = softmax(logit + sigma(completed q)).

    sigma(q) = (c_visit + max N) c_scale q with q in [0, 1]; moves that were not tried are completed by v_mix (appendix
    D of the paper). `noise: false` leaves g out: the search is then deterministic, for evaluation.
    """

    considered: int = 16
    c_visit: float = 50.0
    c_scale: float = 1.0
    noise: bool = True
    proves: bool = False  # ends of the game are taken as proofs, equal positions as one

    def __post_init__(self) -> None:
        if self.considered < 1 or self.c_visit < 0 or self.c_scale <= 0:
            raise ConfigError(
                f"considered={self.considered}, c_visit={self.c_visit}, c_scale={self.c_scale}: need considered >= 1, "
                "c_visit >= 0 and c_scale > 0"
            )

    def prepare(self, tree: Tree, simulations: int) -> None:
        """Draws g and the schedule of a root that was just judged."""
        num_moves = len(tree.root.moves)
        noise = tree.generator("gumbel").gumbel(size=num_moves)
        schedule = considered_visits(min(self.considered, num_moves), simulations)
        tree.plan = GumbelPlan(noise if self.noise else np.zeros(num_moves), schedule)

    def choose(self, tree: Tree, node: Node) -> int:
        """The move of the next simulation."""
        tried = node.tried()
        if node is not tree.root:
            return int(np.argmax(self.improved(node) - tried / (1 + tried.sum())))
        wanted = tree.plan.schedule[int(tried.sum())]
        return int(np.argmax(np.where(tried == wanted, self._root_scores(tree), -np.inf)))

    def completed(self, node: Node) -> np.ndarray:
        """[A] mean returns; v_mix where nothing was tried: the judged value, mixed with the means by their visits."""
        tried = node.tried()
        means = node.means(0.0)
        share = node.priors[tried > 0].sum()
        known = (node.priors * means)[tried > 0].sum() / share if share > 0 else 0.0
        mixed = (node.value + tried.sum() * known) / (1 + tried.sum())
        return np.where(tried > 0, means, mixed)

    def improved(self, node: Node) -> np.ndarray:
        """[A] the improved policy pi'."""
        scores = _logits(node) + self._sigma(node, self.completed(node))
        weights = np.exp(scores - scores.max())
        return weights / weights.sum()

    def target(self, tree: Tree) -> np.ndarray:
        """[A] what a policy learns from a search: pi' of the root."""
        return self.improved(tree.root)

    def move(self, tree: Tree) -> int:
        """What is played: of the most visited moves the one with the highest g + logit + sigma(q)."""
        visits = tree.root.visits
        return int(np.argmax(np.where(visits == visits.max(), self._root_scores(tree), -np.inf)))

    def _root_scores(self, tree: Tree) -> np.ndarray:
        return tree.plan.noise + _logits(tree.root) + self._sigma(tree.root, self.completed(tree.root))

    def _sigma(self, node: Node, means: np.ndarray) -> np.ndarray:
        return (self.c_visit + node.tried().max()) * self.c_scale * (means + 1) / 2


def _logits(node: Node) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(node.priors), -1e9)
