"""The output layer in Triton: statistics in the product's epilogue, gradients by tiles, the large products by torch.mm.

Shapes: n rows, H hidden, V real columns of the shard, J = 1 + K chosen ids, S legal sets.

`_statistics_kernel`: a program reads a tile of rows against one split of the columns, tile by tile, and keeps
[m, sum e^(l - m), sum e^(l - m) (l - m)] of each row online; splits are merged afterwards. Columns beyond V and illegal
ones are -inf by mask, and m begins at -inf.

`_gradient_kernel`: a tile of d loss / d l in the weight's type:

    -p_j (A + b (log p_j + H)) + sum_k a_k [j = k],   log p_j = l_j - log sum e^l,   A = sum_k a_k

Both make the logits of a tile themselves. The one pass, in which each logit is made once, is `triton_one_pass`.

dX = G W and dW = G^T X are torch.mm with f32 results; over slices of columns they are summed in f32. f32 inputs are
multiplied in full f32, not tf32. No f64: that is the plain backend's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from rlpt.kernels.hardware import wide_product
from rlpt.kernels.one_pass_sizes import HELD_BYTES, chunk_rows
from rlpt.kernels.triton_one_pass import TritonPass
from rlpt.kernels.vocabulary_shard import (
    Finished,
    Gradients,
    Group,
    OnePass,
    Rows,
    Scored,
    Shard,
    Slopes,
    merge,
)

_SLICE_COLUMNS = 16384  # of the gradient by recompute
_SPLIT_COLUMNS = 8192  # that one program reduces


@dataclass(frozen=True)
class Tiles:
    """Sizes of a program's tiles; powers of two, at least 16."""

    rows: int = 128
    columns: int = 128
    inner: int = 64
    warps: int = 8
    stages: int = 3


# By (type, whether there are legal sets). Larger ones spill registers on compute capability 9.0.
SHIPPED: dict[tuple[torch.dtype, bool], Tiles] = {
    (torch.bfloat16, False): Tiles(),
    (torch.bfloat16, True): Tiles(rows=64, columns=64),
    (torch.float16, False): Tiles(),
    (torch.float16, True): Tiles(rows=64, columns=64),
    (torch.float32, False): Tiles(rows=32, columns=64, inner=16, warps=4),
    (torch.float32, True): Tiles(rows=32, columns=64, inner=16, warps=4),
}


@triton.jit
def _logits_tile(
    x, w, illegal, legal_index, row, column, n, end, hidden, illegal_width, inverse_temperature,
    LEGAL: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """[BLOCK_N, BLOCK_V] f32 logits; -inf for columns from `end` on and illegal ones."""
    live_row = row[:, None] < n
    real_column = tl.broadcast_to(column[None, :] < end, (BLOCK_N, BLOCK_V))
    total = tl.zeros((BLOCK_N, BLOCK_V), dtype=tl.float32)
    live_column = column[:, None] < end
    for begin in range(0, hidden, BLOCK_H):
        at = begin + tl.arange(0, BLOCK_H)[None, :]
        inside = at < hidden
        left = tl.load(x + row[:, None].to(tl.int64) * hidden + at, mask=live_row & inside, other=0.0)
        right = tl.load(w + column[:, None].to(tl.int64) * hidden + at, mask=live_column & inside, other=0.0)
        total = tl.dot(left, tl.trans(right), total, input_precision="ieee")
    total = total * inverse_temperature
    if LEGAL:
        chosen_set = tl.load(legal_index + row, mask=row < n, other=0).to(tl.int32)
        place = chosen_set[:, None] * illegal_width + column[None, :]
        out = tl.load(illegal + place, mask=live_row & real_column, other=0)
        real_column = real_column & (out == 0)
    return tl.where(real_column, total, float("-inf"))


@triton.jit
def _statistics_kernel(
    x, w, chosen, illegal, legal_index, parts, n, real, hidden, illegal_width, split_columns, inverse_temperature,
    J: tl.constexpr, LEGAL: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """parts [splits, n, 3 + J] f32; the chosen ids' places hold 0 before. Grid: (row tiles, splits)."""
    row = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    split = tl.program_id(1)
    peak = tl.full((BLOCK_N,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_N,), dtype=tl.float32)
    first = tl.zeros((BLOCK_N,), dtype=tl.float32)
    place = parts + (split.to(tl.int64) * n + row) * (3 + J)
    start = split * split_columns
    for begin in range(start, tl.minimum(start + split_columns, real), BLOCK_V):
        column = begin + tl.arange(0, BLOCK_V)
        tile = _logits_tile(
            x, w, illegal, legal_index, row, column, n, real, hidden, illegal_width, inverse_temperature, LEGAL,
            BLOCK_N, BLOCK_V, BLOCK_H,
        )  # fmt: skip
        top = tl.maximum(peak, tl.max(tile, 1))
        finite = tl.where(top == float("-inf"), 0.0, top)
        before = tl.where(peak == float("-inf"), finite, peak)
        scale = tl.exp(before - finite)
        shifted = tile - finite[:, None]
        exponentials = tl.exp(shifted)
        first = scale * (first + total * (before - finite))
        first += tl.sum(tl.where(tile == float("-inf"), 0.0, exponentials * shifted), 1)
        total = scale * total + tl.sum(exponentials, 1)
        peak = top
        for k in range(J):
            at = tl.load(chosen + row.to(tl.int64) * J + k, mask=row < n, other=-1)
            picked = tl.sum(tl.where(column[None, :] == at[:, None], tile, 0.0), 1)
            tl.store(place + 3 + k, picked, mask=(row < n) & (at >= begin) & (at < begin + BLOCK_V))
    tl.store(place, peak, mask=row < n)
    tl.store(place + 1, total, mask=row < n)
    tl.store(place + 2, first, mask=row < n)


@triton.jit
def _gradient_kernel(
    x, w, chosen, illegal, legal_index, slopes, log_sum, level, bend, out, n, first_column, end, hidden, illegal_width,
    inverse_temperature, J: tl.constexpr, LEGAL: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr,
    BLOCK_H: tl.constexpr,
):  # fmt: skip
    """out [n, end - first_column] = d loss / d (unscaled logits). Grid: (row tiles, column tiles)."""
    row = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = first_column + tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)
    live = (row[:, None] < n) & (column[None, :] < end)
    tile = _logits_tile(
        x, w, illegal, legal_index, row, column, n, end, hidden, illegal_width, inverse_temperature, LEGAL, BLOCK_N,
        BLOCK_V, BLOCK_H,
    )  # fmt: skip
    logprob = tile - tl.load(log_sum + row, mask=row < n, other=0.0)[:, None]
    flat = tl.load(level + row, mask=row < n, other=0.0)[:, None]
    slant = tl.load(bend + row, mask=row < n, other=0.0)[:, None]
    grad = tl.where(tile == float("-inf"), 0.0, -tl.exp(logprob) * (flat + slant * logprob))
    for k in range(J):
        at = tl.load(chosen + row.to(tl.int64) * J + k, mask=row < n, other=-1)
        slope = tl.load(slopes + row.to(tl.int64) * J + k, mask=row < n, other=0.0)
        grad += tl.where(column[None, :] == at[:, None], slope[:, None], 0.0)
    grad = grad * inverse_temperature
    place = out + row[:, None].to(tl.int64) * (end - first_column) + (column - first_column)[None, :]
    tl.store(place, grad.to(out.dtype.element_ty), mask=live)


class TritonHead:
    """One shard. `weight` [columns, H] in bf16, f16 or f32; all sums are f32."""

    def __init__(
        self, weight: Tensor, shard: Shard, chunk_size: int | None = None, held_bytes: int = HELD_BYTES
    ) -> None:
        assert (weight.dtype, False) in SHIPPED, f"the Triton backend has no {weight.dtype}"
        self._real = shard.real_columns(weight.shape[0])
        self._weight = weight.contiguous()
        self._shard = shard
        self._held_bytes = held_bytes
        self.chunk_size = chunk_size or chunk_rows(weight.shape[0])

    def one_pass(self, scored: Scored, group: Group, wanted: tuple[bool, bool]) -> OnePass:
        return TritonPass(self._weight, self._shard, scored, group, wanted, self.chunk_size, self._held_bytes)

    def statistics(self, rows: Rows) -> Tensor:
        n, chosen, tiles = len(rows.hidden), self._chosen(rows), self._tiles(rows)
        splits = max(1, triton.cdiv(self._real, _SPLIT_COLUMNS))
        parts = rows.hidden.new_zeros(splits, n, 3 + chosen.shape[1], dtype=torch.float32)
        if n:
            _statistics_kernel[(triton.cdiv(n, tiles.rows), splits)](
                rows.hidden.contiguous(), self._weight, chosen, *self._legal(rows), parts, n, self._real,
                rows.hidden.shape[1], self._illegal_width, _SPLIT_COLUMNS, 1 / self._shard.temperature,
                J=chosen.shape[1], LEGAL=rows.legal_index is not None, BLOCK_N=tiles.rows, BLOCK_V=tiles.columns,
                BLOCK_H=tiles.inner, num_warps=tiles.warps, num_stages=tiles.stages,
            )  # fmt: skip
        return merge(parts)

    def gradients(self, rows: Rows, finished: Finished, slopes: Slopes, into: Gradients) -> None:
        hidden = rows.hidden.contiguous()
        summed: Tensor | None = None
        for begin, end in self._slices(len(hidden)):
            grad = self._gradient_slice(rows, hidden, finished, slopes, begin, end)
            if into.hidden is not None:
                summed = wide_product(grad, self._weight[begin:end], onto=summed)
            if into.weight is not None:
                wide_product(grad.t(), hidden, onto=into.weight[begin:end])
        if into.hidden is not None:
            into.hidden.zero_() if summed is None else into.hidden.copy_(summed)

    def _gradient_slice(
        self, rows: Rows, hidden: Tensor, finished: Finished, slopes: Slopes, begin: int, end: int
    ) -> Tensor:
        """[n, end - begin] in the weight's type."""
        n, chosen, tiles = len(hidden), self._chosen(rows), self._tiles(rows)
        grad = hidden.new_empty(n, end - begin, dtype=self._weight.dtype)
        level = slopes.chosen.sum(1) + slopes.entropy * finished.entropy
        _gradient_kernel[(triton.cdiv(n, tiles.rows), triton.cdiv(end - begin, tiles.columns))](
            hidden, self._weight, chosen, *self._legal(rows), slopes.chosen.contiguous(), finished.log_sum, level,
            slopes.entropy.contiguous(), grad, n, begin, end, hidden.shape[1], self._illegal_width,
            1 / self._shard.temperature, J=chosen.shape[1], LEGAL=rows.legal_index is not None, BLOCK_N=tiles.rows,
            BLOCK_V=tiles.columns, BLOCK_H=tiles.inner, num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip
        return grad

    def _slices(self, rows: int) -> Iterator[tuple[int, int]]:
        for begin in range(0, self._real if rows else 0, _SLICE_COLUMNS):
            yield begin, min(begin + _SLICE_COLUMNS, self._real)

    def _tiles(self, rows: Rows) -> Tiles:
        return SHIPPED[self._weight.dtype, rows.legal_index is not None]

    def _chosen(self, rows: Rows) -> Tensor:
        """[n, J] i64: columns of the chosen ids, -1 where another shard holds one."""
        return torch.where(rows.owned, rows.column, -1).contiguous()

    def _legal(self, rows: Rows) -> tuple[Tensor | None, Tensor | None]:
        table = self._shard.illegal
        return None if table is None else table.view(torch.uint8), rows.legal_index

    @property
    def _illegal_width(self) -> int:
        return 0 if self._shard.illegal is None else self._shard.illegal.shape[1]
