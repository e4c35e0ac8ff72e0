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

Step = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]  # tokens, lengths, longest -> hidden states, logits


@dataclass(frozen=True)
class _Recorded:
    replay: Callable[[], None]
    hidden: Tensor  # [rows, H]
    logits: Tensor  # [rows, V]


class StepGraphs:
    """The graphs of one `DecodeState`, whose cache and weights must stay where they are."""

    def __init__(self, slots: int, device: torch.device) -> None:
        self._slots = slots
        self._tokens = torch.zeros(slots, dtype=torch.int64, device=device)
        self._lengths = torch.full((slots,), -1, dtype=torch.int64, device=device)
        self._seen: set[int] = set()
        self._recorded: dict[int, _Recorded] = {}
        self._pool: Any = None

    def step(self, run: Step, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """tokens and lengths [n] -> hidden states [n, H] and logits [n, V], which the next step overwrites. `run` is
        the state's own step, handed in each time so that graphs go when their state does."""
        live = len(tokens)
        rows = min(self._slots, 1 << max(0, live - 1).bit_length())
        own = (self._tokens[:rows], self._lengths[:rows])
        own[0][:live].copy_(tokens)
        own[1][:live].copy_(lengths)
        own[1][live:].fill_(-1)
        if rows not in self._seen:
            self._seen.add(rows)
            hidden, logits = run(*own, 0)
            return hidden[:live], logits[:live]
        if rows not in self._recorded:
            replay, self._pool, found = record_graph(lambda: run(*own, 0), self._pool)
            self._recorded[rows] = _Recorded(replay, *found)
        recorded = self._recorded[rows]
        recorded.replay()
        return recorded.hidden[:live], recorded.logits[:live]
