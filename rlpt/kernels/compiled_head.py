"""The output layer with compiled passes over its logits (head_passes.cpp), for float32 weights on a CPU.

A row's statistics, and the gradient in its logits, are one pass each, and so is what is legal in it.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from rlpt.kernels.compiler import has_data, library, suits
from rlpt.kernels.head_torch import TorchHead
from rlpt.kernels.vocabulary_shard import Finished, Rows, Shard, Slopes

_SOURCE = Path(__file__).with_name("head_passes.cpp")
_Pointer, _Long = ctypes.c_void_p, ctypes.c_int64


class _Logits(ctypes.Structure):
    _fields_ = (
        *((name, _Long) for name in ("rows", "columns", "num_chosen", "sets", "set_stride", "threads")),
        *((name, _Pointer) for name in ("illegal", "legal_index", "column", "owned", "values")),
    )


def can_compile(weight: Tensor) -> bool:
    """Whether an output layer with such weights has compiled passes."""
    return has_data(weight) and suits(weight, _SOURCE)


class CompiledHead(TorchHead):
    """One shard. `weight` [columns, H] f32 on a CPU."""

    def __init__(self, weight: Tensor, shard: Shard, chunk_size: int | None = None) -> None:
        assert can_compile(weight), f"no compiled passes for {weight.dtype} on {weight.device.type}"
        super().__init__(weight, shard, chunk_size)
        self._library = library(_SOURCE)

    def _logits(self, rows: Rows) -> Tensor:
        """As `TorchHead`'s, except that illegal columns keep their logits: both passes look them up."""
        return self._product(rows)

    def _reduce(self, rows: Rows, logits: Tensor, found: Tensor) -> None:
        if self._call("rlpt_head_reduce", rows, logits, (found,)):
            raise IndexError("a legal_index is outside of the legal table")

    def _turn(self, rows: Rows, logits: Tensor, finished: Finished, slopes: Slopes) -> None:
        figures = (finished.log_sum, finished.entropy, slopes.chosen, slopes.entropy)
        self._call("rlpt_head_turn", rows, logits, figures, ctypes.c_float(1 / self._shard.temperature))

    def _call(self, name: str, rows: Rows, logits: Tensor, figures: tuple[Tensor, ...], *scale: ctypes.c_float) -> int:
        table = self._illegal
        places = [rows.legal_index, rows.column, rows.owned, logits, *figures]
        kept = [None if place is None else place.contiguous() for place in places]
        pointers = [None if place is None else place.data_ptr() for place in (table, *kept)]
        sets = (0, 0) if table is None else (len(table), table.stride(0))
        sizes = (*logits.shape, rows.column.shape[1], *sets, torch.get_num_threads())
        given = _Logits(*sizes, *pointers[:5])
        failed: int = getattr(self._library, name)(ctypes.byref(given), *map(_Pointer, pointers[5:]), *scale)
        return failed
