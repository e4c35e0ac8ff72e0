"""Tree search as options: rule, budget, and what judges leaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from rlpt import registry
from rlpt.errors import ConfigError
from rlpt.search import gumbel as gumbel
from rlpt.search import puct as puct
from rlpt.search.evaluators import PolicyEvaluator, Rollouts
from rlpt.search.mcts import Budget, TreeRule
from rlpt.types import Chooser, Tokenizer


@dataclass(frozen=True)
class TreeSearch:
    """Monte-Carlo tree search with the policy's own log-probs as priors."""

    rule: dict[str, Any] = field(default_factory=lambda: {"name": "puct"})  # puct | gumbel, with options
    simulations: int = 50  # a move
    tokens: int = 0  # a move, that the model may read; 0: no limit
    parallel: int = 1  # simulations of one tree that are under way at once
    leaf: Literal["value", "rollouts"] = "value"  # the value head, or games played on at random
    rollouts: int = 1  # such games a leaf

    def __post_init__(self) -> None:
        _ = self.budget
        self.tree_rule("search")
        if self.rollouts < 1:
            raise ConfigError(f"rollouts={self.rollouts}: must be at least 1")

    @property
    def budget(self) -> Budget:
        """What a search may cost."""
        return Budget(self.simulations, self.tokens, self.parallel)

    def tree_rule(self, where: str) -> TreeRule:
        """Which moves are tried. Raises ConfigError that names the key under `where`."""
        rule: TreeRule = registry.create("tree_rule", self.rule, f"{where}.rule")
        return rule

    def evaluator(self, chooser: Chooser, tokenizer: Tokenizer) -> PolicyEvaluator:
        """What judges leaves."""
        return PolicyEvaluator(chooser, tokenizer, Rollouts(self.rollouts) if self.leaf == "rollouts" else None)
