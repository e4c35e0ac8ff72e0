"""Monte-Carlo tree search over a text's tokens or steps, by the rules that search games (`puct`, `gumbel`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from rlpt import registry
from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.search import gumbel, puct  # noqa: F401 (registers the rules)
from rlpt.search.base import Call, Search
from rlpt.search.mcts import Budget, search
from rlpt.search.text import TextEvaluator, TextSpace, TextState
from rlpt.types import Completion, SamplingParams


@register("search", "mcts")
@dataclass(frozen=True)
class TextMcts(Search):
    """`simulations` a row, the judgement of the prompt itself counted as one: with 1 it is the plain completion.

    Moves are `step`s, `expansions` of which are sampled after each text that is reached (equal ones count once), or
    `token`s, all that are legal. Priors are the policy's own log-probs. A text's value is the judge's word, which must
    lie in [0, 1], on a completion sampled from there; without `rollouts` on the text as it stands, for learned judges.
    Returned is the best finished completion that came up (ties: the first). The trees of the last call are
    `Searcher.last.trees`; their dumps grow again under `evaluators.Recorded`.
    """

    simulations: int = 16
    moves: Literal["step", "token"] = "step"
    expansions: int = 4
    max_step: int = 0  # tokens of a step; 0: no limit
    rollouts: bool = True
    parallel: int = 1  # simulations of one tree that are under way at once
    rule: dict[str, Any] = field(default_factory=lambda: {"name": "puct"})

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("simulations", "expansions", "parallel"):
            if getattr(self, key) < 1:
                raise ConfigError(f"{key}={getattr(self, key)}: must be at least 1")
        registry.create("tree_rule", self.rule, "rule")

    def run(self, call: Call) -> list[Completion]:
        """Rows whose budget does not do for two simulations are not searched."""
        every = range(len(call.prompts))
        budgets = {row: budget for row in every if (budget := self._budget(call.params[row])).simulations}
        plain = [row for row in every if row not in budgets]
        found = dict(zip(plain, call.sample([call.plain(row) for row in plain]), strict=True))
        evaluator = TextEvaluator(call, self._steps, self.max_step, self.rollouts)
        space = TextSpace(call.params, evaluator.worth, self.moves == "step")
        rule = registry.create("tree_rule", self.rule, "rule")
        states, keys = [TextState(row) for row in budgets], [call.keys[row] for row in budgets]
        call.trees = search(space, states, keys, evaluator, rule, list(budgets.values()))
        for row in budgets:
            found[row] = max(evaluator.found[row], key=lambda pair: pair[0])[1]
        return [found[row] for row in every]

    @property
    def _steps(self) -> int:
        return self.expansions if self.moves == "step" else 0

    def _budget(self, params: SamplingParams) -> Budget:
        """What is left after the prompt was judged; a tree stops before a round that could exceed the tokens."""
        longest = params.max_new_tokens
        steps = self._steps * min(longest, self.max_step or longest)
        first, each = longest + steps, self.parallel * (longest * self.rollouts + steps)
        if not self.tokens:
            return Budget(self.simulations - 1, parallel=self.parallel)
        if first + each > self.tokens:
            return Budget(0)
        return Budget(self.simulations - 1, self.tokens - each + 1, self.parallel)
