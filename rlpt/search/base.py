"""What a search over completions is: a Generator that wraps a Generator and spends more of it on each prompt.

A search asks the inner generator for several drafts, all rows of a call at once, and hands on the best. What it chose
is off-policy: the log-probs in a completion are those that its tokens were sampled with, and say nothing of the choice.
Learn from it by imitation (expert_iteration, distill); a policy gradient takes it for a sample of the policy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from rlpt.errors import ConfigError
from rlpt.search.tree import Tree
from rlpt.template import ANSWER
from rlpt.types import Chooser, Completion, Generator, SamplingParams, Tokenizer

WHITESPACE = b" \t\r\n"


class Judge(Protocol):
    """How good completions are, finished or not: `rows[i]` is the row of the search's call that completion i answers.
    Finite, higher is better. Judges are asked about all that they compare at once."""

    def __call__(self, rows: Sequence[int], completions: Sequence[Completion]) -> list[float]: ...


@dataclass(frozen=True)
class Draft:
    """What is asked of the inner generator: to go on after a row's prompt and the tokens `after` it."""

    row: int
    after: tuple[int, ...]
    params: SamplingParams
    key: int


@dataclass
class Call:
    """One call of a search: what it was asked, what it may ask, and what it has cost so far. Mutable: costs add up."""

    generator: Generator
    judge: Judge
    tokenizer: Tokenizer
    chooser: Chooser | None
    prompts: Sequence[Sequence[int]]
    params: Sequence[SamplingParams]
    keys: Sequence[int]
    generated: list[int] = field(default_factory=list)  # tokens sampled, by row
    read: list[int] = field(default_factory=list)  # tokens before them, by row; those of equal drafts once
    trees: list[Tree] = field(default_factory=list)  # where the search keeps some

    def __post_init__(self) -> None:
        self.generated, self.read = [0] * len(self.prompts), [0] * len(self.prompts)

    def sample(self, drafts: Sequence[Draft]) -> list[Completion]:
        """A completion a draft, of the inner generator, in one call."""
        if not drafts:
            return []
        written = self.generator(
            [[*self.prompts[draft.row], *draft.after] for draft in drafts],
            [draft.params for draft in drafts],
            [draft.key for draft in drafts],
        )
        for draft, completion in zip(drafts, written, strict=True):
            self.generated[draft.row] += len(completion.token_ids)
        for row, after in {(draft.row, draft.after) for draft in drafts}:
            self.read[row] += len(self.prompts[row]) + len(after)
        return written

    def plain(self, row: int) -> Draft:
        """The draft that the inner generator would write without a search."""
        return Draft(row, (), self.params[row], self.keys[row])

    def judged(self, rows: Sequence[int], completions: Sequence[Completion]) -> list[float]:
        """The judge's word."""
        values = self.judge(rows, completions) if completions else []
        assert len(values) == len(completions), f"{len(values)} verdicts on {len(completions)} completions"
        assert np.isfinite(values).all(), "a judge's values are finite"
        return values


@dataclass(frozen=True)
class Search(ABC):
    """A search. Subclasses are frozen dataclasses whose fields are their YAML options.

    `tokens` is a row's budget: a round that could take it beyond is not begun. The first attempt always is, since
    something has to be returned.
    """

    judge: dict[str, Any] = field(default_factory=lambda: {"name": "verifier"})  # says which completion is best
    tokens: int = 0  # generated tokens a row; 0: no limit

    def __post_init__(self) -> None:
        if self.tokens < 0:
            raise ConfigError(f"tokens={self.tokens}: must be 0 (no limit) or more")

    def wrap(
        self, generator: Generator, judge: Judge, tokenizer: Tokenizer, chooser: Chooser | None = None
    ) -> Searcher:
        """This search as a Generator. Row i depends on (prompts[i], params[i], keys[i]) alone, whatever the batch; with
        a budget of one attempt it is the inner generator's completion."""
        return Searcher(self, generator, judge, tokenizer, chooser)

    @abstractmethod
    def run(self, call: Call) -> list[Completion]:
        """A completion a prompt of the call."""


class Searcher:
    """A search with its generator: a Generator. Remembers its last call, and counts generated tokens of all."""

    def __init__(
        self, search: Search, generator: Generator, judge: Judge, tokenizer: Tokenizer, chooser: Chooser | None
    ) -> None:
        self.search, self._asks = search, (generator, judge, tokenizer, chooser)
        self.tokens = 0
        self.last: Call | None = None

    def __call__(
        self, prompts: Sequence[Sequence[int]], params: Sequence[SamplingParams], keys: Sequence[int]
    ) -> list[Completion]:
        """See `Generator`."""
        self.last = Call(*self._asks, prompts, params, keys)
        found = self.search.run(self.last)
        self.tokens += sum(self.last.generated)
        return found


NOTHING = Completion(np.zeros(0, np.int64), np.zeros(0, np.float32), "length")


def join(pieces: Sequence[Completion], finish_reason: str) -> Completion:
    """Pieces that were sampled one after the other as one completion; empty ones are left out."""
    pieces = [piece for piece in pieces if len(piece.token_ids)]
    if not pieces:
        return replace(NOTHING, finish_reason=finish_reason)
    kept = [piece.kept_ids for piece in pieces if piece.kept_ids is not None]
    certainty = [piece.certainty for piece in pieces if piece.certainty is not None]
    return Completion(
        token_ids=np.concatenate([piece.token_ids for piece in pieces]),
        logprobs=np.concatenate([piece.logprobs for piece in pieces]),
        finish_reason=finish_reason,
        kept_ids=tuple(ids for part in kept for ids in part) if len(kept) == len(pieces) else None,
        certainty=np.concatenate(certainty) if len(certainty) == len(pieces) else None,
    )


def is_over(completion: Completion, params: SamplingParams) -> bool:
    """Whether nothing can be added to it: it stopped, or is as long as it may be."""
    return completion.finish_reason == "stop" or len(completion.token_ids) >= params.max_new_tokens


def step_params(params: SamplingParams, written: int, longest: int, tokenizer: Tokenizer) -> SamplingParams:
    """Sampling of one step after `written` tokens: it ends at whitespace, at the answer mark, or where the completion
    would; `longest` bounds its tokens (0: nothing but the completion's limit does)."""
    left = params.max_new_tokens - written
    ends = step_ends(tokenizer, params.legal_ids)
    return replace(params, max_new_tokens=min(left, longest or left), stop=tuple(sorted({*params.stop, *ends})))


@lru_cache(maxsize=256)
def step_ends(tokenizer: Tokenizer, legal_ids: tuple[int, ...] | None) -> frozenset[int]:
    """Ids that a step ends with: the answer mark, and legal tokens that hold whitespace."""
    ids = range(tokenizer.vocab_size) if legal_ids is None else legal_ids
    blank = {token for token in ids if any(byte in WHITESPACE for byte in tokenizer.decode_bytes([token]))}
    return frozenset(blank | {tokenizer.mark_id(ANSWER)})


def is_stopped_at(piece: Completion, params: SamplingParams) -> bool:
    """Whether a step's last token ends the whole completion."""
    return len(piece.token_ids) > 0 and int(piece.token_ids[-1]) in params.stop
