"""Predict: a policy thinks about where a text goes on, says how, and the text itself is the verifier.

Next-token reasoning of Reinforcement Pre-Training (Dong et al. 2025, arXiv:2506.08007, section 3): what is said may
cover several tokens, and is right where it stops at a boundary of the true ones. Bytes are compared, so that another
cut of the same text into tokens is as good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.selfplay.base import ROLE
from rlpt.selfplay.passage import PassagePlay
from rlpt.tasks.base import Task
from rlpt.template import ANSWER, END, THINK
from rlpt.types import Completion, Episode, Problem, SamplingParams, Tokenizer


def boundary_credit(prediction: bytes, future: Sequence[bytes]) -> float:
    """1 where `prediction` is the first l > 0 bytes of `future` and l is the length of its first k tokens for some k;
    else 0: for half a token, one byte too many, nothing at all, and for what goes on after the last token of `future`.

    The prefix-matching reward of RPT (section 3.2 there). `future` holds the bytes of the true tokens one by one.
    """
    length = 0
    for token in future:
        if not prediction.startswith(token, length):
            return 0.0
        length += len(token)
        if length and length == len(prediction):
            return 1.0
    return 0.0


@register("selfplay", "predict")
@dataclass(frozen=True)
class Predict(PassagePlay):
    """A completion is a thought, the answer mark, the prediction and the end mark.

    `max_thought` and `max_prediction` are one budget together: a short thought leaves more for the prediction.
    `max_thought` 0 asks for the prediction at once, without a thought and its mark. `plain` asks for less still: one
    token after the context as it stands, with no marks, by which the same weights are compared with themselves (the
    first row of RPT's table 1); `max_thought` and `max_prediction` have no say there.
    """

    max_prediction: int = 4  # tokens
    first_token_only: bool = False  # the first token alone counts, whatever follows it (a variant that RPT tried)
    plain: bool = False  # next-token prediction

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_thought < 0 or self.max_prediction < 1:
            raise ConfigError(
                f"max_thought={self.max_thought}, max_prediction={self.max_prediction}: "
                "need max_thought >= 0 and max_prediction >= 1"
            )

    @property
    def future_tokens(self) -> int:
        """One: a text may end before the longest prediction does."""
        return 1

    def opening_mark(self) -> str:
        """The prediction's own mark where there is no thought; "" for a plain prediction."""
        if self.plain:
            return ""
        return THINK if self.max_thought else ANSWER

    def prompt(self, problem: Problem, tokenizer: Tokenizer) -> list[int]:
        """A plain prediction is asked for by the context alone."""
        return [*map(int, problem.meta["context"])] if self.plain else super().prompt(problem, tokenizer)

    def sampling(self, tokenizer: Tokenizer) -> SamplingParams:
        """Stopped by the end mark, which a whole completion holds; a plain prediction by its length."""
        if self.plain:
            return self.limited(1, (), set(), tokenizer)
        end = tokenizer.mark_id(END)
        thought, marks = (self.max_thought + 1, {tokenizer.mark_id(ANSWER)}) if self.max_thought else (0, set())
        return self.limited(thought + self.max_prediction + 1, (end,), marks | {end}, tokenizer)

    def episode(
        self, problem: Problem, completion: Completion, tokenizer: Tokenizer, *, key: int, policy_step: int
    ) -> Episode:
        """The outcome is 1 for a right prediction, else 0; well formed is one that holds text and its marks."""
        prompt = self.prompt(problem, tokenizer)
        trajectory = self.trajectory(prompt, completion, key, policy_step)
        trajectory.truncated &= not self.plain
        prediction = self.prediction(completion, tokenizer)
        trajectory.well_formed = float(bool(prediction))
        outcome = self.credit(prediction, problem.meta["future"], tokenizer)
        text = self.opening_mark() + tokenizer.decode(completion.token_ids.tolist())
        return Episode(problem, [trajectory], {ROLE: outcome}, text)

    def prediction(self, completion: Completion, tokenizer: Tokenizer) -> list[int]:
        """The tokens between the last answer mark and the end mark; none where a mark is missing or where one of them
        is no text (a mark, padding)."""
        ids = completion.token_ids.tolist()
        if not self.plain:
            if completion.finish_reason != "stop":
                return []
            ids = self._answered(ids[:-1], tokenizer.mark_id(ANSWER))
        return ids if all(tokenizer.decode_bytes([token]) for token in ids) else []

    def _answered(self, ids: list[int], answer: int) -> list[int]:
        """What follows the last answer mark; everything where none is asked for."""
        if answer in ids:
            return ids[len(ids) - ids[::-1].index(answer) :]
        return [] if self.max_thought else ids

    def credit(self, prediction: Sequence[int], future: Sequence[int], tokenizer: Tokenizer) -> float:
        """`boundary_credit` of these tokens, or of the first one against the first true one."""
        if self.first_token_only:
            prediction, future = prediction[:1], future[:1]
        return boundary_credit(tokenizer.decode_bytes(prediction), [tokenizer.decode_bytes([one]) for one in future])

    def chance(self, task: Task, problem: Problem, tokenizer: Tokenizer) -> float:
        """For the first true token and the marks around it: a thought may be anything. 0 where `characters` can't
        spell it."""
        legal, tokens = self.sampling(tokenizer).legal_ids, [problem.meta["future"][0]]
        if legal is not None:
            tokens = tokenizer.encode_characters(tokenizer.decode(tokens))
            if not set(tokens) <= set(legal):
                return 0.0
        num_open = tokenizer.vocab_size if legal is None else len(legal)
        if self.plain:
            return 1.0 / num_open if len(tokens) == 1 else 0.0
        return float(num_open) ** -(len(tokens) + 1 + bool(self.max_thought))
