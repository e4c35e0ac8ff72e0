"""A decode step as recorded graphs: two hundred small kernels start as one, and the GPU does not wait for Python.

A graph has a fixed number of rows, so there is one for each power of two (and one for all slots). Its kernels must have
run before it is recorded: a number of rows that this process has not run yet runs once without. Rows beyond the live
ones have length -1, which attention leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from rlpt.distributed.device import GraphRecorder, lend_recorder

Step = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]  # tokens, lengths, longest -> hidden states, logits
_WARM: set[Hashable] = set()  # (model, rows) that this process has run


@dataclass(frozen=True)
class _Recorded:
    replay: Callable[[], None]
    hidden: Tensor  # [rows, H]
    logits: Tensor  # [rows, V]


class StepGraphs:
    """The graphs of one `DecodeState`, whose cache and weights must stay where they are.

    `tokens` and `lengths` [slots] i64 are what they read.
    """

    def __init__(self, slots: int, device: torch.device, model: Hashable) -> None:
        """`model`: the same for all states whose steps run the same kernels."""
        self._slots, self._model = slots, model
        self.tokens = torch.zeros(slots, dtype=torch.int64, device=device)
        self.lengths = torch.full((slots,), -1, dtype=torch.int64, device=device)
        self._recorded: dict[int, _Recorded] = {}
        self._recorder: GraphRecorder | None = None

    def padded(self, live: int) -> int:
        """The rows that run for so many live ones."""
        return min(self._slots, 1 << max(0, live - 1).bit_length())

    def fill(self, tokens: Tensor, lengths: Tensor) -> None:
        """Puts tokens and lengths [n] where graphs read them."""
        live = len(tokens)
        self.tokens[:live].copy_(tokens)
        self.lengths[:live].copy_(lengths)
        self.lengths[live : self.padded(live)].fill_(-1)

    def step(self, run: Step, live: int) -> tuple[Tensor, Tensor]:
        """Hidden states [live, H] and logits [live, V], which the next step overwrites, for what stands in `tokens` and
        `lengths`; behind the live rows, up to `padded`, lengths are -1. `run` is the state's own step, handed in each
        time so that graphs go when their state does."""
        rows = self.padded(live)
        own = (self.tokens[:rows], self.lengths[:rows])
        if (self._model, rows) not in _WARM:
            hidden, logits = run(*own, 0)
            _WARM.add((self._model, rows))
            return hidden[:live], logits[:live]
        if rows not in self._recorded:
            if self._recorder is None:
                self._recorder = lend_recorder(self)
            replay, found = self._recorder.record(lambda: run(*own, 0))
            self._recorded[rows] = _Recorded(replay, *found)
        recorded = self._recorded[rows]
        recorded.replay()
        return recorded.hidden[:live], recorded.logits[:live]
