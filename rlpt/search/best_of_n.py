"""Best of N: N attempts, and the one that the judge puts highest. With a perfect verifier 1 - (1 - p)^N succeed."""

from __future__ import annotations

from dataclasses import dataclass

from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.search.base import Call, Draft, Search
from rlpt.tasks.base import keyed_hash
from rlpt.types import Completion


@register("search", "best_of_n")
@dataclass(frozen=True)
class BestOfN(Search):
    """`attempts` a row; ties go to the first. The first attempt is the plain one.

    With the judge `majority` it is self-consistency (Wang et al. 2203.11171); `self_certainty` asks nobody else. A
    learned judge is over-optimised: the more attempts it chooses from, the more of its mistakes it finds (Gao et al.
    2210.10760).
    """

    attempts: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attempts < 1:
            raise ConfigError(f"attempts={self.attempts}: must be at least 1")

    def run(self, call: Call) -> list[Completion]:
        """In one round where no budget of tokens limits it; else a round takes as many attempts as are sure to fit."""
        found: list[list[Completion]] = [[] for _ in call.prompts]
        while drafts := [draft for row in range(len(found)) for draft in self._round(call, row, len(found[row]))]:
            for draft, completion in zip(drafts, call.sample(drafts), strict=True):
                found[draft.row].append(completion)
        rows = [row for row, attempts in enumerate(found) for _ in attempts]
        values = iter(call.judged(rows, [one for attempts in found for one in attempts]))
        return [max(zip(attempts, values), key=lambda pair: pair[1])[0] for attempts in found]

    def _round(self, call: Call, row: int, done: int) -> list[Draft]:
        count = self.attempts - done
        if self.tokens:
            fits = (self.tokens - call.generated[row]) // call.params[row].max_new_tokens
            count = min(count, max(fits, 1 if done == 0 else 0))
        plain = call.plain(row)
        return [plain if n == 0 else _attempt(plain, n) for n in range(done, done + count)]


def _attempt(plain: Draft, number: int) -> Draft:
    key = keyed_hash("best of n", plain.key, number) >> 1  # 63 bits: a signed tensor holds it
    return Draft(plain.row, plain.after, plain.params, key)
