"""Sequential revision: the policy reads its last attempt and writes again (Snell et al. 2408.03314, section 6; the
roadmap of Zeng et al. 2025 expects it at test time, and tree search in training)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.search.base import Call, Draft, Search
from rlpt.tasks.base import keyed_hash
from rlpt.types import Completion

ENOUGH = 1.0  # a judge's value that nothing can be added to


@register("search", "revision")
@dataclass(frozen=True)
class Revision(Search):
    """Up to `attempts`, one after the other; none after one that is judged 1 or more. Returned is the best (ties: the
    first) or the last.

    Attempt n + 1 reads the prompt, attempt n as it was written, and the prompt's last token again, the mark that a
    thought or an answer begins with. A completion brings this reading along (`Completion.context`): a trajectory has it
    as given text between prompt and actions, so the trainer scores every token from what the policy saw. What is
    learned is to revise, not to be right at once; rows must have room for two attempts.
    """

    attempts: int = 2
    keep: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attempts < 1:
            raise ConfigError(f"attempts={self.attempts}: must be at least 1")

    def run(self, call: Call) -> list[Completion]:
        """A round is one more attempt of every row that is not right yet."""
        drafts = [call.plain(row) for row in range(len(call.prompts))]
        found: list[list[tuple[float, Completion]]] = [[] for _ in call.prompts]
        while drafts:
            written = [_read(draft, one) for draft, one in zip(drafts, call.sample(drafts), strict=True)]
            rows = [draft.row for draft in drafts]
            for row, value, one in zip(rows, call.judged(rows, written), written, strict=True):
                found[row].append((value, one))
            drafts = [self._again(call, row, found[row]) for row in rows if self._goes_on(call, row, found[row])]
        if self.keep == "last":
            return [attempts[-1][1] for attempts in found]
        return [max(attempts, key=lambda pair: pair[0])[1] for attempts in found]

    def _goes_on(self, call: Call, row: int, done: list[tuple[float, Completion]]) -> bool:
        most = call.generated[row] + call.params[row].max_new_tokens
        return len(done) < self.attempts and done[-1][0] < ENOUGH and not 0 < self.tokens < most

    def _again(self, call: Call, row: int, done: list[tuple[float, Completion]]) -> Draft:
        after = (*done[-1][1].token_ids.tolist(), int(call.prompts[row][-1]))
        return Draft(row, after, call.params[row], keyed_hash("revision", call.keys[row], len(done)) >> 1)


def _read(draft: Draft, completion: Completion) -> Completion:
    """With what stood between the prompt and it."""
    return replace(completion, context=np.array(draft.after, np.int64)) if draft.after else completion
