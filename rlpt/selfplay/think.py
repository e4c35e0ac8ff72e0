"""Think: a policy thinks where a text was cut, and what truly comes next is written after the thought.

The rollouts of RLP (Hatamizadeh et al. 2025, arXiv:2510.01265): a thought is worth the log-prob that it adds to the
true next tokens. No prediction is sampled and none is verified; a reward that asks the model reads the evidence.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.selfplay.passage import PassagePlay
from rlpt.tasks.base import Task
from rlpt.template import ANSWER, THINK
from rlpt.types import Completion, Episode, Problem, SamplingParams, Tokenizer


@register("selfplay", "think")
@dataclass(frozen=True)
class Think(PassagePlay):
    """A thought of up to `max_thought` tokens, its answer mark included where the policy says it; then `horizon` true
    tokens, which `evidence_mask` marks.

    A thought that reaches its limit is closed for the policy: that mark is given text. `truncated` says so. Without
    `may_stop` all reach it: where a wrong thought costs more than none, not to think is the first thing learned.
    """

    horizon: int = 1  # true tokens that a thought is judged by
    may_stop: bool = True  # False: the policy can't say the answer mark

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_thought < 1 or self.horizon < 1:
            raise ConfigError(f"max_thought={self.max_thought}, horizon={self.horizon}: must be at least 1")
        if not self.may_stop and not (self.characters and self.legal_mask):
            raise ConfigError(
                "may_stop=false: only `characters` with legal_mask keep the answer mark from being sampled"
            )

    @property
    def future_tokens(self) -> int:
        """All that a thought is judged by: peers and passages are compared over the same number of tokens."""
        return self.horizon

    def opening_mark(self) -> str:
        """A thought always comes first."""
        return THINK

    def sampling(self, tokenizer: Tokenizer) -> SamplingParams:
        """Stopped by the answer mark, where it may be said."""
        stop = (tokenizer.mark_id(ANSWER),) if self.may_stop else ()
        return self.limited(self.max_thought, stop, set(stop), tokenizer)

    def episode(
        self, problem: Problem, completion: Completion, tokenizer: Tokenizer, *, key: int, policy_step: int
    ) -> Episode:
        """No outcome: no program can say whether a thought is right."""
        assert problem.meta["context"], "without a context nothing can score the first true token"
        closed = completion.finish_reason == "stop"
        evidence = [int(token) for token in problem.meta["future"][: self.horizon]]
        given = evidence if closed else [tokenizer.mark_id(ANSWER), *evidence]
        prompt = self.prompt(problem, tokenizer)
        trajectory = self.trajectory(prompt, completion, key, policy_step, given, len(evidence))
        text = THINK + tokenizer.decode([*completion.token_ids.tolist(), *given])
        return Episode(problem, [trajectory], {}, text)

    def chance(self, task: Task, problem: Problem, tokenizer: Tokenizer) -> float:
        """1: every thought is worth something, and none has to be found first."""
        return 1.0
