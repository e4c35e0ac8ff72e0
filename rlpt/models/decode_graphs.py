"""A decode step as recorded graphs: two hundred small kernels start as one, and the GPU does not wait for Python.

A graph has a fixed number of rows, so there is one for each power of two (and one for all slots), recorded when a
number comes up for the second time: the first time its kernels are compiled and warmed up. Rows beyond the live ones
have length -1, which attention leaves out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlpt.distributed.device import record_graph


@dataclass(frozen=True)
class _Recorded:
    replay: Callable[[], None]
    hidden: Tensor  # [rows, H]
    logits: Tensor  # [rows, V]


class StepGraphs:
    """The graphs of one `DecodeState`, which must neither move its cache nor change its weights meanwhile."""

    def __init__(self, state: Any) -> None:
        slots, device = len(state.slots), state.slots.device
        self._state, self._slots = state, slots
        self._tokens = torch.zeros(slots, dtype=torch.int64, device=device)
        self._lengths = torch.full((slots,), -1, dtype=torch.int64, device=device)
        self._seen: set[int] = set()
        self._recorded: dict[int, _Recorded] = {}
        self._pool: Any = None

    def step(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """tokens and lengths [n] -> hidden states [n, H] and logits [n, V], which the next step overwrites."""
        live = len(tokens)
        rows = min(self._slots, 1 << max(0, live - 1).bit_length())
        self._tokens[:live].copy_(tokens)
        self._lengths[:live].copy_(lengths)
        self._lengths[live:rows].fill_(-1)
        if rows not in self._seen:
            self._seen.add(rows)
            hidden, logits = self._run(rows)
            return hidden[:live], logits[:live]
        if rows not in self._recorded:
            self._recorded[rows] = self._record(rows)
        recorded = self._recorded[rows]
        recorded.replay()
        return recorded.hidden[:live], recorded.logits[:live]

    def _run(self, rows: int) -> tuple[Tensor, Tensor]:
        hidden, logits = self._state.run_step(self._tokens[:rows], self._lengths[:rows], 0)
        return hidden, logits

    def _record(self, rows: int) -> _Recorded:
        replay, self._pool, (hidden, logits) = record_graph(lambda: self._run(rows), self._pool)
        return _Recorded(replay, hidden, logits)
