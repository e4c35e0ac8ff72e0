"""The output layer's one pass in Triton: chunks of logits become a narrow gradient, held for one large product.

Shapes: N rows of a call, n of a chunk, H hidden, C columns of the shard (padding included), V of them real, J chosen
ids, P splits of the columns. Rows of logits and of G begin `pitch` numbers apart, C rounded up.

For each chunk torch.mm makes f32 logits [n, C]. `_statistics_kernel`: a program goes through a split of one row, R x
LANES columns at a time, and keeps [m, sum e^(l - m), sum e^(l - m) (l - m)] in each lane, so that lanes meet only at
its end. `_finish_kernel` makes figures of all splits' (or ranks') parts. `_gradient_kernel` writes d loss / d l

    -p_j (A + b (log p_j + H)) + sum_k a_k [j = k],   log p_j = l_j - log sum e^l,   A = sum_k a_k

in the weight's dtype into the buffer G [rows held, C], where padding gets 0. dX = G W follows at once, in f32: a GPU
has that to do while the host asks for the next chunk. dW = G^T X is made of all that the buffer holds when it is full,
and in the end only when the factor is known that it is to be multiplied by. One buffer is enough for most calls, whose
dW then never exists in f32; those of several are summed in f32. A weight's padding must be finite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from rlpt.kernels.hardware import product, wide_product
from rlpt.kernels.one_pass_sizes import held_rows
from rlpt.kernels.vocabulary_shard import Finished, Gradients, Group, Scored, Shard, Slopes, gather

_ALIGNED = 16  # numbers: what Triton takes as aligned, and products want


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
    logits, ids, illegal, legal_index, parts, vocab_start, pitch, real, illegal_width, split_columns,
    inverse_temperature, J: tl.constexpr, LEGAL: tl.constexpr, R: tl.constexpr, LANES: tl.constexpr,
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
        at = tl.load(ids + row * J + k) - vocab_start
        mine = (at >= start) & (at < stop)
        picked = _kept_logits(
            logits, illegal, legal_index, row, tl.where(mine, at, 0), pitch, real, illegal_width, inverse_temperature,
            LEGAL,
        )  # fmt: skip
        tl.store(place + 3 + k, tl.where(mine, picked, 0.0))


@triton.jit
def _finish_kernel(
    parts, ids, merged, log_sum, entropy, chosen, n, num_parts, vocab_size, J: tl.constexpr, PARTS: tl.constexpr,
    ROWS: tl.constexpr, FIGURES: tl.constexpr,
):  # fmt: skip
    """parts [num_parts, n, 3 + J] -> their union's: figures as `vocabulary_shard.finish`, or else `merged` [n, 3 + J]
    as `vocabulary_shard.merge`. Grid: (tiles of ROWS rows)."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < n
    part = tl.arange(0, PARTS)[:, None]
    live = (part < num_parts) & inside[None, :]
    place = parts + (part * n + row[None, :]) * (3 + J)
    peaks = tl.load(place, mask=live, other=float("-inf"))
    totals = tl.load(place + 1, mask=live, other=0.0)
    firsts = tl.load(place + 2, mask=live, other=0.0)
    peak = tl.max(peaks, 0)
    finite = tl.where(peak == float("-inf"), 0.0, peak)[None, :]
    # A part without a legal column has maximum -inf and sums 0; only -inf - -inf must not happen.
    before = tl.where(peaks == float("-inf"), 0.0, peaks - finite)
    scale = tl.where(peaks == float("-inf"), 0.0, tl.exp(before))
    total = tl.sum(scale * totals, 0)
    first = tl.sum(scale * (firsts + totals * before), 0)
    log_total = tl.log(total)
    if FIGURES:
        tl.store(log_sum + row, peak + log_total, mask=inside)
        tl.store(entropy + row, log_total - first / total, mask=inside)
    else:
        tl.store(merged + row * (3 + J), peak, mask=inside)
        tl.store(merged + row * (3 + J) + 1, total, mask=inside)
        tl.store(merged + row * (3 + J) + 2, first, mask=inside)
    for k in range(J):
        picked = tl.sum(tl.load(place + 3 + k, mask=live, other=0.0), 0)
        if FIGURES:
            at = tl.load(ids + row * J + k, mask=inside, other=-1)
            logprob = tl.where((at >= 0) & (at < vocab_size), picked - peak - log_total, float("-inf"))
            tl.store(chosen + row * J + k, logprob, mask=inside)
        else:
            tl.store(merged + row * (3 + J) + 3 + k, picked, mask=inside)


@triton.jit
def _gradient_kernel(
    logits, ids, illegal, legal_index, slopes, log_sum, entropy, bend, held, vocab_start, vocab_size, pitch, real,
    illegal_width, inverse_temperature, J: tl.constexpr, LEGAL: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """held [n, pitch] = d loss / d (unscaled logits). Grid: (n, tiles of COLUMNS columns)."""
    row = tl.num_programs(0).to(tl.int64) - 1 - tl.program_id(0)  # the last rows' logits are still in the cache
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    slant = tl.load(bend + row)
    flat = slant * tl.load(entropy + row)
    for k in range(J):
        at = tl.load(ids + row * J + k)
        flat += tl.where((at >= 0) & (at < vocab_size), tl.load(slopes + row * J + k), 0.0)
    tile = _kept_logits(
        logits, illegal, legal_index, row, column, pitch, real, illegal_width, inverse_temperature, LEGAL
    )  # fmt: skip
    logprob = tile - tl.load(log_sum + row)
    grad = tl.where(tile == float("-inf"), 0.0, -tl.exp(logprob) * (flat + slant * logprob))
    for k in range(J):
        at = tl.load(ids + row * J + k) - vocab_start
        here = (column == at) & (column < real)
        grad += tl.where(here, tl.load(slopes + row * J + k), 0.0)
    tl.store(
        held + row * pitch + column, (grad * inverse_temperature).to(held.dtype.element_ty), mask=column < pitch
    )  # fmt: skip


class TritonPass:
    """One call's rows against one shard. `weight` [C, H] in bf16, f16 or f32; sums are f32.

    The host does little before the first product and between a chunk's kernels: on an H200 it is what is waited for.
    """

    def __init__(
        self,
        weight: Tensor,
        shard: Shard,
        scored: Scored,
        group: Group,
        wanted: tuple[bool, bool],
        chunk_size: int,
        held_bytes: int,
    ) -> None:
        self._weight, self._shard, self._group, self._wanted = weight.detach(), shard, group, wanted
        self._hidden = scored.hidden.detach().contiguous()
        self._ids, self._legal_index = scored.ids.contiguous(), scored.legal_index
        self._real = shard.real_columns(len(weight))
        self._pitch = triton.cdiv(len(weight), _ALIGNED) * _ALIGNED
        room = held_bytes if wanted[1] else 0
        held = held_rows(len(self._hidden), chunk_size, self._pitch, weight.element_size(), room)
        self._held: Tensor | None = weight.new_empty(held, self._pitch)
        self._from = self._to = 0  # rows that it holds
        self._hidden_sums = torch.empty_like(self._hidden, dtype=torch.float32) if wanted[0] else None  # [N, H]
        self._weight_sums: Tensor | None = None  # [C, H] f32 of the buffers before
        self._at = slice(0, 0)
        self._logits: Tensor | None = None  # [n, C] of the chunk
        self._finished: Finished | None = None

    def open(self, at: slice) -> Finished:
        assert self._held is not None, "nothing is opened after the last chunk"
        if at.stop - self._from > len(self._held):
            self._flush()
        self._at, n, ids = at, at.stop - at.start, self._ids[at]
        logits = self._weight.new_empty(n, self._pitch, dtype=torch.float32)[:, : len(self._weight)]
        self._logits = wide_product(self._hidden[at], self._weight.t(), into=logits)
        splits = max(1, triton.cdiv(self._real, SHIPPED.split))
        parts = logits.new_empty(splits, n, 3 + ids.shape[1])
        if n:
            _statistics_kernel[(n, splits)](
                logits, ids, *self._legal(), parts, self._shard.start, self._pitch, self._real, self._illegal_width,
                SHIPPED.split, 1 / self._shard.temperature, J=ids.shape[1], LEGAL=self._legal_index is not None,
                R=SHIPPED.repeats, LANES=SHIPPED.lanes, num_warps=SHIPPED.warps,
            )  # fmt: skip
        self._finished = self._finish(parts, ids)
        return self._finished

    def close(self, slopes: Slopes) -> None:
        held, finished = self._held, self._finished
        assert held is not None and finished is not None, "close comes after open"  # noqa: PT018
        n, num_ids = self._at.stop - self._at.start, self._ids.shape[1]
        grad = held[self._to - self._from :][:n]
        if n:
            _gradient_kernel[(n, triton.cdiv(self._pitch, SHIPPED.columns))](
                self._logits, self._ids[self._at], *self._legal(), slopes.chosen.contiguous(), finished.log_sum,
                finished.entropy, slopes.entropy.contiguous(), grad, self._shard.start, self._shard.vocab_size,
                self._pitch, self._real, self._illegal_width, 1 / self._shard.temperature, J=num_ids,
                LEGAL=self._legal_index is not None, COLUMNS=SHIPPED.columns, num_warps=SHIPPED.warps,
            )  # fmt: skip
        if self._hidden_sums is not None:
            wide_product(grad[:, : len(self._weight)], self._weight, into=self._hidden_sums[self._at])
        self._to += n
        self._logits = self._finished = None  # the next chunk's logits take the place of these

    def pending(self) -> Callable[[float], Gradients]:
        return self._gradients

    def _gradients(self, factor: float) -> Gradients:
        assert self._held is not None, "the gradients are made once"
        of_weight = of_hidden = None
        if self._wanted[1]:
            grad, hidden = self._rows_held()
            if self._weight_sums is None:
                of_weight = product(grad.t(), hidden, factor)
            else:
                of_weight = wide_product(grad.t(), hidden, self._weight_sums, factor)
        self._held = None
        if self._hidden_sums is not None:
            of_hidden = torch.mul(self._hidden_sums, factor, out=torch.empty_like(self._hidden))
        return Gradients(of_hidden, of_weight)

    def _flush(self) -> None:
        """The buffer's rows go into sums, before there is a factor."""
        if self._wanted[1]:
            grad, hidden = self._rows_held()
            self._weight_sums = wide_product(grad.t(), hidden, self._weight_sums)
        self._from = self._to

    def _rows_held(self) -> tuple[Tensor, Tensor]:
        """Their gradients in the logits, and their hidden states."""
        assert self._held is not None, "the gradients are made once"
        return self._held[: self._to - self._from, : len(self._weight)], self._hidden[self._from : self._to]

    def _finish(self, parts: Tensor, ids: Tensor) -> Finished:
        """Statistics of splits [P, n, 3 + J] -> figures of whole rows, by one collective."""
        if self._group is not None:
            merged = torch.empty_like(parts[0])
            self._merge(parts, ids, merged)
            parts = gather(merged, self._group)
        n, num_ids = ids.shape
        finished = Finished(parts.new_empty(n), parts.new_empty(n), parts.new_empty(n, num_ids))
        self._merge(parts, ids, finished)
        return finished

    def _merge(self, parts: Tensor, ids: Tensor, into: Finished | Tensor) -> None:
        whole = isinstance(into, Finished)
        places = (
            (None, into.log_sum, into.entropy, into.chosen) if isinstance(into, Finished) else (into,) + 3 * (None,)
        )
        if len(ids):
            _finish_kernel[(triton.cdiv(len(ids), 32),)](
                parts, ids, *places, len(ids), len(parts), self._shard.vocab_size, J=ids.shape[1],
                PARTS=triton.next_power_of_2(len(parts)), ROWS=32, FIGURES=whole, num_warps=1,
            )  # fmt: skip

    def _legal(self) -> tuple[Tensor | None, Tensor | None]:
        table, index = self._shard.illegal, self._legal_index
        return None if table is None else table.view(torch.uint8), None if index is None else index[self._at]

    @property
    def _illegal_width(self) -> int:
        return 0 if self._shard.illegal is None else self._shard.illegal.shape[1]
