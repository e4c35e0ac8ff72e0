"""The output layer's one pass in Triton: chunks of logits become a narrow gradient that is held for two large products.

Shapes: N rows of a call, n of a chunk, H hidden, C columns of the shard (padding included), V of them real, J chosen
ids, P splits of the columns. Rows of logits and of G begin `pitch` numbers apart, C rounded up.

For each chunk torch.mm makes f32 logits [n, C]. `_statistics_kernel`: a program goes through a split of one row, R x
LANES columns at a time, and keeps [m, sum e^(l - m), sum e^(l - m) (l - m)] in each lane, so that lanes meet only at
its end; `_merge_kernel` brings splits together. `_gradient_kernel` writes d loss / d l

    -p_j (A + b (log p_j + H)) + sum_k a_k [j = k],   log p_j = l_j - log sum e^l,   A = sum_k a_k

in the weight's dtype into the buffer G [rows held, C], where padding gets 0. What the buffer holds becomes dX = G W and
dW = G^T X at once: when it is full, and in the end only when a factor is known that goes into both products. One
buffer is enough for most calls, whose dW then is rounded from the product's own sums and never exists in f32; those of
several are summed in f32. A weight's padding must be finite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from rlpt.kernels.hardware import product, wide_product
from rlpt.kernels.vocabulary_shard import Finished, Gradients, Rows, Shard, Slopes

_LOGIT_BYTES = 768 << 20  # of a chunk: every one costs the caller's slopes and some twenty small kernels
_LEAST_ROWS = 256  # of a chunk, however wide
_ALIGNED = 16  # numbers: what Triton takes as aligned, and products want
HELD_BYTES = 2 << 30  # of the gradient in the logits


@dataclass(frozen=True)
class Sweeps:
    """How programs go through rows; powers of two."""

    split: int = 32768  # columns that one program reduces; a multiple of repeats * lanes
    repeats: int = 8
    lanes: int = 512
    columns: int = 2048  # of which one program makes the gradient
    warps: int = 4


SHIPPED = Sweeps()


@triton.jit
def _kept_logits(
    logits, illegal, legal_index, row, column, pitch, real, illegal_width, inverse_temperature, LEGAL: tl.constexpr
):  # fmt: skip
    """Logits of some columns of one row; -inf for columns from `real` on and illegal ones.

    Loads are bounded by sizes that are usually multiples of 16, so that each is of 16 bytes a thread.
    """
    live = column < real
    if LEGAL:
        place = tl.load(legal_index + row) * illegal_width
        live = live & (tl.load(illegal + place + column, mask=column < illegal_width, other=1) == 0)
    loaded = tl.load(logits + row * pitch + column, mask=column < pitch, other=0.0)
    return tl.where(live, loaded * inverse_temperature, float("-inf"))


@triton.jit
def _statistics_kernel(
    logits, chosen, illegal, legal_index, parts, pitch, real, illegal_width, split_columns, inverse_temperature,
    J: tl.constexpr, LEGAL: tl.constexpr, R: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """parts [P, n, 3 + J] f32. Grid: (n, P)."""
    row, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    lane = tl.arange(0, R)[:, None] * LANES + tl.arange(0, LANES)[None, :]
    peak = tl.full((LANES,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((LANES,), dtype=tl.float32)
    first = tl.zeros((LANES,), dtype=tl.float32)
    start = split * split_columns
    stop = tl.minimum(start + split_columns, real)
    for begin in range(start, stop, R * LANES):
        tile = _kept_logits(
            logits, illegal, legal_index, row, begin + lane, pitch, real, illegal_width, inverse_temperature, LEGAL
        )  # fmt: skip
        top = tl.maximum(peak, tl.max(tile, 0))
        finite = tl.where(top == float("-inf"), 0.0, top)
        before = tl.where(peak == float("-inf"), finite, peak) - finite
        scale = tl.exp(before)
        shifted = tile - finite[None, :]
        exponentials = tl.exp(shifted)
        first = scale * (first + total * before)
        first += tl.sum(tl.where(tile == float("-inf"), 0.0, exponentials * shifted), 0)
        total = scale * total + tl.sum(exponentials, 0)
        peak = top
    top = tl.max(peak, 0)
    finite = tl.where(top == float("-inf"), 0.0, top)
    before = tl.where(peak == float("-inf"), finite, peak) - finite
    scale = tl.exp(before)
    place = parts + (split.to(tl.int64) * tl.num_programs(0) + row) * (3 + J)
    tl.store(place, top)
    tl.store(place + 1, tl.sum(scale * total, 0))
    tl.store(place + 2, tl.sum(scale * (first + total * before), 0))
    for k in range(J):
        at = tl.load(chosen + row * J + k)
        picked = _kept_logits(
            logits, illegal, legal_index, row, tl.maximum(at, 0), pitch, real, illegal_width, inverse_temperature, LEGAL
        )  # fmt: skip
        tl.store(place + 3 + k, tl.where((at >= start) & (at < stop), picked, 0.0))


@triton.jit
def _merge_kernel(parts, merged, n, splits, J: tl.constexpr, SPLITS: tl.constexpr, ROWS: tl.constexpr):
    """parts [splits, n, 3 + J] -> merged [n, 3 + J], as `vocabulary_shard.merge`. Grid: (tiles of ROWS rows)."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    split = tl.arange(0, SPLITS)[:, None]
    live = (split < splits) & (row[None, :] < n)
    place = parts + (split * n + row[None, :]) * (3 + J)
    peaks = tl.load(place, mask=live, other=float("-inf"))
    totals = tl.load(place + 1, mask=live, other=0.0)
    firsts = tl.load(place + 2, mask=live, other=0.0)
    peak = tl.max(peaks, 0)
    finite = tl.where(peak == float("-inf"), 0.0, peak)[None, :]
    before = tl.where(peaks == float("-inf"), 0.0, peaks - finite)
    scale = tl.where(peaks == float("-inf"), 0.0, tl.exp(before))
    out = merged + row * (3 + J)
    tl.store(out, peak, mask=row < n)
    tl.store(out + 1, tl.sum(scale * totals, 0), mask=row < n)
    tl.store(out + 2, tl.sum(scale * (firsts + totals * before), 0), mask=row < n)
    for k in range(J):
        tl.store(out + 3 + k, tl.sum(tl.load(place + 3 + k, mask=live, other=0.0), 0), mask=row < n)


@triton.jit
def _gradient_kernel(
    logits, chosen, illegal, legal_index, slopes, log_sum, entropy, bend, held, pitch, real, illegal_width,
    inverse_temperature, J: tl.constexpr, LEGAL: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """held [n, pitch] = d loss / d (unscaled logits). Grid: (n, tiles of COLUMNS columns)."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    slant = tl.load(bend + row)
    flat = slant * tl.load(entropy + row)
    for k in range(J):
        flat += tl.load(slopes + row * J + k)
    tile = _kept_logits(
        logits, illegal, legal_index, row, column, pitch, real, illegal_width, inverse_temperature, LEGAL
    )  # fmt: skip
    logprob = tile - tl.load(log_sum + row)
    grad = tl.where(tile == float("-inf"), 0.0, -tl.exp(logprob) * (flat + slant * logprob))
    for k in range(J):
        grad += tl.where(column == tl.load(chosen + row * J + k), tl.load(slopes + row * J + k), 0.0)
    tl.store(
        held + row * pitch + column, (grad * inverse_temperature).to(held.dtype.element_ty), mask=column < pitch
    )  # fmt: skip


def chunk_rows(columns: int) -> int:
    """Rows of a chunk, whose logits take `_LOGIT_BYTES`."""
    return max(_LEAST_ROWS, _LOGIT_BYTES // (4 * max(1, columns)) // 128 * 128)


class TritonPass:
    """One call's rows against one shard. `weight` [C, H] in bf16, f16 or f32; sums are f32."""

    def __init__(
        self, weight: Tensor, shard: Shard, rows: Rows, wanted: tuple[bool, bool], chunk_size: int, held_bytes: int
    ) -> None:
        self._weight, self._shard, self._wanted = weight.detach(), shard, wanted
        self._real = shard.real_columns(weight.shape[0])
        self._hidden = rows.hidden.detach().contiguous()
        self._chosen = torch.where(rows.owned, rows.column, -1)  # [N, J], -1 where another shard holds one
        self._legal_index = rows.legal_index
        self._hidden_gradient = torch.empty_like(self._hidden) if wanted[0] else None
        self._sums: Tensor | None = None  # [C, H] f32 of the buffers before
        self._pitch = triton.cdiv(weight.shape[0], _ALIGNED) * _ALIGNED
        room = max(chunk_size, held_bytes // max(1, self._pitch * weight.element_size()))
        self._held: Tensor | None = weight.new_empty(min(room, len(self._hidden)), self._pitch)
        self._from = self._to = 0  # rows that it holds
        self._at = slice(0, 0)
        self._logits: Tensor | None = None

    def open(self, at: slice) -> Tensor:
        assert self._held is not None, "nothing is opened after the last chunk"
        if at.stop - self._from > len(self._held):
            self._flush()
        self._at, n, ids = at, at.stop - at.start, self._chosen.shape[1]
        self._logits = wide_product(self._hidden[at], self._weight.t(), into=self._room_for(n))
        splits = max(1, triton.cdiv(self._real, SHIPPED.split))
        parts = self._logits.new_empty(splits, n, 3 + ids)
        if n:
            _statistics_kernel[(n, splits)](
                self._logits, self._chosen[at], *self._legal(), parts, self._pitch, self._real,
                self._illegal_width, SHIPPED.split, 1 / self._shard.temperature, J=ids,
                LEGAL=self._legal_index is not None, R=SHIPPED.repeats, LANES=SHIPPED.lanes, num_warps=SHIPPED.warps,
            )  # fmt: skip
        if splits == 1 or not n:
            return parts[0]
        merged = parts.new_empty(n, 3 + ids)
        _merge_kernel[(triton.cdiv(n, 32),)](
            parts, merged, n, splits, J=ids, SPLITS=triton.next_power_of_2(splits), ROWS=32, num_warps=1
        )
        return merged

    def close(self, finished: Finished, slopes: Slopes) -> None:
        assert self._logits is not None, "close comes after open"
        assert self._held is not None, "nothing is closed after the last chunk"
        n, ids = len(self._logits), self._chosen.shape[1]
        if n:
            _gradient_kernel[(n, triton.cdiv(self._pitch, SHIPPED.columns))](
                self._logits, self._chosen[self._at], *self._legal(), slopes.chosen.contiguous(), finished.log_sum,
                finished.entropy, slopes.entropy.contiguous(), self._held[self._to - self._from :],
                self._pitch, self._real, self._illegal_width, 1 / self._shard.temperature, J=ids,
                LEGAL=self._legal_index is not None, COLUMNS=SHIPPED.columns, num_warps=SHIPPED.warps,
            )  # fmt: skip
        self._to += n
        self._logits = None  # the next chunk's take its place

    def pending(self) -> Callable[[float], Gradients]:
        return self._finish

    def _room_for(self, rows: int) -> Tensor:
        """[rows, C] of logits."""
        return self._weight.new_empty(rows, self._pitch, dtype=torch.float32)[:, : len(self._weight)]

    def _flush(self) -> None:
        """Products of the rows held, before there is a factor; then the buffer is free."""
        grad, hidden = self._rows_held()
        if self._wanted[1]:
            self._sums = wide_product(grad.t(), hidden, onto=self._sums)
        self._from = self._to

    def _finish(self, factor: float) -> Gradients:
        if self._hidden_gradient is not None and factor != 1:
            self._hidden_gradient[: self._from].mul_(factor)
        grad, hidden = self._rows_held(factor)
        self._held = None
        of_weight = None
        if self._wanted[1] and self._sums is None:
            of_weight = product(grad.t(), hidden, factor)
        elif self._wanted[1]:
            of_weight = wide_product(grad.t(), hidden, self._sums, factor)
        return Gradients(self._hidden_gradient, of_weight)

    def _rows_held(self, factor: float = 1.0) -> tuple[Tensor, Tensor]:
        """Their gradients in the logits, and hidden states, whose gradient is written."""
        assert self._held is not None, "the gradients are made once"
        grad, hidden = self._held[: self._to - self._from, : len(self._weight)], self._hidden[self._from : self._to]
        if self._hidden_gradient is not None:
            # By f32: parts of a sum over so many columns must not be narrow.
            self._hidden_gradient[self._from : self._to] = wide_product(grad, self._weight, factor=factor)
        return grad, hidden

    def _legal(self) -> tuple[Tensor | None, Tensor | None]:
        table, index = self._shard.illegal, self._legal_index
        return None if table is None else table.view(torch.uint8), None if index is None else index[self._at]

    @property
    def _illegal_width(self) -> int:
        return 0 if self._shard.illegal is None else self._shard.illegal.shape[1]
