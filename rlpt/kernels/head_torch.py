"""The output layer in plain torch: matrix products of a chunk of rows, then a few passes over blocks that fit a cache.

Shapes: n rows of a chunk, H hidden, V real columns of the shard. `logits` [n, V] is the one large buffer.

With s_j = l_j - shift, E_j = e^{s_j} and slopes a_k (chosen ids), b (entropy) of a row, A = sum_k a_k:

    p_j = r E_j,   r = e^{shift - log Z}
    d loss / d l_j = -r E_j (A + b (s_j + shift - log Z + H)) + sum_k a_k [j = k]

The row's factor r (and the temperature's) moves to the small side of the products, and so do the chosen ids:

    dX = -r (M @ W) + sum_k a_k W[k]         M_j = E_j (b s_j + A + b (shift - log Z + H)),  or E_j A where b = 0
    dW = M^T @ (-r X) + sum_k a_k X at row k
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from rlpt.kernels.vocabulary_shard import Finished, Gradients, Rows, Shard, Slopes, sum_dtype

_CHUNK_ELEMENTS = 1 << 23  # of the logits of a chunk: 32 MB in f32
_LEAST_ROWS = 256  # of a chunk, however wide: with fewer, reading and writing dW costs as much as its product
_BLOCK_ELEMENTS = 1 << 18  # of a block: its passes find it in the cache of one or two cores
_NOTHING = -1e4  # stands for -inf where it is multiplied: e^-1e4 = 0 in f64 too, and 0 * -1e4 = 0
_SPARSE = 0.75  # below this share of rows with a gradient, only those are multiplied


class TorchHead:
    """One shard. `weight` [columns, H]; products and sums are f32, or f64 for f64 weights."""

    def __init__(self, weight: Tensor, shard: Shard, chunk_size: int | None = None) -> None:
        self._real = shard.real_columns(weight.shape[0])
        self._weight = weight[: self._real].to(sum_dtype(weight))
        self._shard = shard
        self._illegal = None if shard.illegal is None else shard.illegal[:, : self._real]
        self.chunk_size = chunk_size or max(_LEAST_ROWS, _CHUNK_ELEMENTS // max(1, self._real))
        self._buffer = weight.new_empty(0, dtype=self._weight.dtype)

    def statistics(self, rows: Rows) -> Tensor:
        found = rows.hidden.new_empty(len(rows.hidden), 3 + rows.column.shape[1], dtype=self._weight.dtype)
        for at, part in rows.chunks(self.chunk_size):
            self._reduce(part, self._logits(part), found[at])
        return found

    def gradients(self, rows: Rows, finished: Finished, slopes: Slopes, into: Gradients) -> None:
        if slopes.live_share() < 1:
            self._of_live_rows(slopes.live(), rows, finished, slopes, into)
            return
        for at, part in rows.chunks(self.chunk_size):
            logits = self._logits(part).sub_(finished.log_sum[at, None])
            self._products(part, logits, finished.log_sum[at], finished[at], slopes[at], into[at])

    def open(self, rows: Rows) -> tuple[tuple[Tensor, Tensor], Tensor]:
        logits = self._logits(rows)
        found = rows.hidden.new_empty(len(rows.hidden), 3 + rows.column.shape[1], dtype=self._weight.dtype)
        self._reduce(rows, logits, found)
        return (logits, _finite(found[:, 0])), found

    def close(
        self, rows: Rows, opened: tuple[Tensor, Tensor], finished: Finished, slopes: Slopes, into: Gradients
    ) -> None:
        logits, shift = opened
        share = slopes.live_share()
        if share >= _SPARSE:
            self._products(rows, logits, shift, finished, slopes, into)
            return
        if into.hidden is not None:
            into.hidden.zero_()
        if share > 0:
            at = slopes.live().nonzero().squeeze(1)
            part = Gradients(None if into.hidden is None else torch.empty_like(into.hidden[: len(at)]), into.weight)
            self._products(rows[at], logits[at], shift[at], finished[at], slopes[at], part)
            if into.hidden is not None and part.hidden is not None:
                into.hidden.index_copy_(0, at, part.hidden)

    def _of_live_rows(self, live: Tensor, rows: Rows, finished: Finished, slopes: Slopes, into: Gradients) -> None:
        """`gradients` of the rows that have any; the others' logits aren't made again."""
        at = live.nonzero().squeeze(1)
        part = Gradients(None if into.hidden is None else torch.empty_like(into.hidden[: len(at)]), into.weight)
        self.gradients(rows[at], finished[at], slopes[at], part)
        if into.hidden is not None and part.hidden is not None:
            into.hidden.zero_().index_copy_(0, at, part.hidden)

    def _logits(self, rows: Rows) -> Tensor:
        """[n, V] at the temperature, illegal columns at -inf, in the buffer that every chunk uses."""
        count = len(rows.hidden)
        if self._buffer.numel() < count * self._real:
            self._buffer = self._weight.new_empty(count * self._real)
        logits = self._buffer[: count * self._real].view(count, self._real)
        torch.mm(rows.hidden.to(self._weight.dtype) / self._shard.temperature, self._weight.t(), out=logits)
        if self._illegal is not None and rows.legal_index is not None:
            for block in _blocks(logits):
                logits[block].masked_fill_(self._illegal[rows.legal_index[block]], -torch.inf)
        return logits

    def _reduce(self, rows: Rows, logits: Tensor, found: Tensor) -> None:
        """Fills statistics [n, 3 + J]; leaves the logits less their maximum in `logits`."""
        if not self._real:
            found.zero_()[:, 0] = -torch.inf
            return
        peak, total, first, picked = found[:, 0], found[:, 1], found[:, 2], found[:, 3:]
        column = rows.column.clamp(max=self._real - 1)
        for block in _blocks(logits):
            part = logits[block]
            torch.amax(part, 1, out=peak[block])
            picked[block] = part.gather(1, column[block])
            part.sub_(_finite(peak[block])[:, None])
            exponentials = part.exp()
            torch.sum(exponentials, 1, out=total[block])
            if self._illegal is not None:
                part.clamp_min_(_NOTHING)
            first[block] = exponentials.mul_(part).sum(1)
        picked.masked_fill_(~rows.owned, 0)

    def _products(
        self, rows: Rows, logits: Tensor, shift: Tensor, finished: Finished, slopes: Slopes, into: Gradients
    ) -> None:
        """Gradients from logits less `shift` [n], which are used up."""
        count, wide = len(rows.hidden), self._weight.dtype
        offset = shift - finished.log_sum
        factor = -offset.exp()[:, None] / self._shard.temperature
        bend = slopes.entropy[:, None]
        level = slopes.chosen.sum(1, keepdim=True) + bend * (offset + finished.entropy)[:, None]
        curved = slopes.has_entropy()
        for block in _blocks(logits):
            part = logits[block]
            if not curved:
                part.exp_()
                continue
            exponentials = part.exp()
            part.clamp_min_(_NOTHING) if self._illegal is not None else None
            part.mul_(bend[block]).add_(level[block]).mul_(exponentials)
        factor = factor if curved else factor * level
        hidden = rows.hidden.to(wide)
        chosen = torch.where(rows.owned & (rows.column < self._real), slopes.chosen, 0) / self._shard.temperature
        column = rows.column.clamp(max=max(0, self._real - 1))
        if into.hidden is not None:
            grad = torch.mm(logits, self._weight).mul_(factor)
            for k in range(chosen.shape[1] if self._real else 0):
                grad.addcmul_(self._weight[column[:, k]], chosen[:, k, None])
            into.hidden.copy_(grad)
        if into.weight is not None and self._real and count:
            grad = into.weight[: self._real]
            grad.addmm_(logits.t(), hidden * factor)
            for k in range(chosen.shape[1]):
                grad.index_add_(0, column[:, k], hidden * chosen[:, k, None])


def _blocks(logits: Tensor) -> Iterator[slice]:
    """Rows of [n, V] by the block; all of them where tensors hold no data, as in a plan."""
    rows = max(1, _BLOCK_ELEMENTS // max(1, logits.shape[1]))
    rows = logits.shape[0] if isinstance(logits, FakeTensor) else rows
    for begin in range(0, logits.shape[0], max(1, rows)):
        yield slice(begin, begin + rows)


def _finite(peak: Tensor) -> Tensor:
    """The maximum, 0 where a shard has no legal column (so that -inf - -inf never happens)."""
    return peak.masked_fill(peak == -torch.inf, 0)
