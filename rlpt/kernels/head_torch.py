"""The output layer in plain torch: matrix products of a chunk of rows, then a few passes over blocks that fit a cache.

Shapes: n rows of a chunk, H hidden, V real columns of the shard. `logits` [n, V] is the one large buffer.

With s_j = l_j - log Z and slopes a_k (chosen ids), b (entropy) of a row, A = sum_k a_k:

    G_j = d loss / d l_j = -e^{s_j} (b (s_j + H) + A) + sum_k a_k [j = k]

takes the place of the logits, divided by the temperature; then dX = G @ W and dW = G^T @ X.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from rlpt.kernels.vocabulary_shard import (
    Finished,
    Gradients,
    Group,
    OnePass,
    Rows,
    Scored,
    Shard,
    Slopes,
    empty_gradients,
    finish,
    sum_dtype,
    unknown_ids,
)

_CHUNK_ELEMENTS = 1 << 23  # of the logits of a chunk: 32 MB in f32
_LEAST_ROWS = 256  # of a chunk, however wide: with fewer, reading and writing dW costs as much as its product
_BLOCK_ELEMENTS = 1 << 18  # of a block: its passes find it in the cache of one or two cores
_NOTHING = -1e4  # stands for -inf where it is multiplied: e^-1e4 = 0 in f64 too, and 0 * -1e4 = 0
_SPARSE = 0.75  # below this share of rows with a gradient, only those are multiplied


class TorchHead:
    """One shard. `weight` [columns, H]; products and sums are f32, or f64 for f64 weights."""

    def __init__(self, weight: Tensor, shard: Shard, chunk_size: int | None = None) -> None:
        self._real = shard.real_columns(weight.shape[0])
        self._whole = weight
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
            self._products(part, self._logits(part), finished[at], slopes[at], into[at])

    def one_pass(self, scored: Scored, group: Group, wanted: tuple[bool, bool]) -> OnePass:
        rows = scored.rows(self._shard, len(self._whole))
        unknown = unknown_ids(scored.ids, self._shard.vocab_size)
        return _TorchPass(self, rows, unknown, group, empty_gradients(scored.hidden, self._whole, wanted))

    def open(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """The logits of at most `chunk_size` rows, and their statistics."""
        logits = self._logits(rows)
        found = rows.hidden.new_empty(len(rows.hidden), 3 + rows.column.shape[1], dtype=self._weight.dtype)
        self._reduce(rows, logits, found)
        return logits, found

    def close(self, rows: Rows, opened: Tensor, finished: Finished, slopes: Slopes, into: Gradients) -> None:
        """As `gradients`, from the logits of `open`, which are used up."""
        share = slopes.live_share()
        if share >= _SPARSE:
            self._products(rows, opened, finished, slopes, into)
            return
        if into.hidden is not None:
            into.hidden.zero_()
        if share > 0:
            at = slopes.live().nonzero().squeeze(1)
            part = Gradients(None if into.hidden is None else torch.empty_like(into.hidden[: len(at)]), into.weight)
            self._products(rows[at], opened[at], finished[at], slopes[at], part)
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
        logits = self._product(rows)
        if self._illegal is not None and rows.legal_index is not None:
            for block in _blocks(logits):
                logits[block].masked_fill_(self._illegal[rows.legal_index[block]], -torch.inf)
        return logits

    def _product(self, rows: Rows) -> Tensor:
        """`_logits`, whatever is legal."""
        count = len(rows.hidden)
        if self._buffer.numel() < count * self._real:
            self._buffer = self._weight.new_empty(count * self._real)
        logits = self._buffer[: count * self._real].view(count, self._real)
        hidden, scale = rows.hidden.to(self._weight.dtype), 1 / self._shard.temperature
        return torch.addmm(logits, hidden, self._weight.t(), beta=0, alpha=scale, out=logits)

    def _reduce(self, rows: Rows, logits: Tensor, found: Tensor) -> None:
        """Fills statistics [n, 3 + J]."""
        if not self._real:
            found.zero_()[:, 0] = -torch.inf
            return
        peak, total, first, picked = found[:, 0], found[:, 1], found[:, 2], found[:, 3:]
        column = rows.column.clamp(max=self._real - 1)
        for block in _blocks(logits):
            torch.amax(logits[block], 1, out=peak[block])
            picked[block] = logits[block].gather(1, column[block])
            shifted = logits[block] - _finite(peak[block])[:, None]
            exponentials = shifted.exp()
            torch.sum(exponentials, 1, out=total[block])
            if self._illegal is not None:
                shifted.clamp_min_(_NOTHING)
            first[block] = exponentials.mul_(shifted).sum(1)
        picked.masked_fill_(~rows.owned, 0)

    def _turn(self, rows: Rows, logits: Tensor, finished: Finished, slopes: Slopes) -> None:
        """The logits become the gradient in them, divided by the temperature."""
        scale = 1 / self._shard.temperature
        bend = -scale * slopes.entropy[:, None]
        level = bend * finished.entropy[:, None] - scale * slopes.chosen.sum(1, keepdim=True)
        curved = slopes.has_entropy()
        for block in _blocks(logits):
            part = logits[block].sub_(finished.log_sum[block, None])
            if not curved:
                part.exp_().mul_(level[block])
                continue
            exponentials = part.exp()
            part.clamp_min_(_NOTHING) if self._illegal is not None else None
            part.mul_(bend[block]).add_(level[block]).mul_(exponentials)
        if self._real:
            chosen = torch.where(rows.owned & (rows.column < self._real), slopes.chosen, 0) * scale
            logits.scatter_add_(1, rows.column.clamp(max=self._real - 1), chosen)

    def _products(self, rows: Rows, logits: Tensor, finished: Finished, slopes: Slopes, into: Gradients) -> None:
        """Gradients from logits, which are used up."""
        self._turn(rows, logits, finished, slopes)
        if into.hidden is not None:
            into.hidden.copy_(torch.mm(logits, self._weight))
        if into.weight is not None:
            into.weight[: self._real].addmm_(logits.t(), rows.hidden.to(self._weight.dtype))


class _TorchPass:
    """Each chunk's gradients are written where they belong as soon as they are made."""

    def __init__(self, head: TorchHead, rows: Rows, unknown: Tensor, group: Group, into: Gradients) -> None:
        self._head, self._rows, self._unknown, self._group, self._into = head, rows, unknown, group, into
        self._opened: tuple[slice, Tensor, Finished] | None = None

    def open(self, at: slice) -> Finished:
        logits, statistics = self._head.open(self._rows[at])
        finished = finish(statistics, self._unknown[at], self._group)
        self._opened = at, logits, finished
        return finished

    def close(self, slopes: Slopes) -> None:
        assert self._opened is not None, "close comes after open"
        (at, logits, finished), self._opened = self._opened, None
        known = slopes.of_known(self._unknown[at])
        self._head.close(self._rows[at], logits, finished, known, self._into[at])

    def pending(self) -> Callable[[float], Gradients]:
        return partial(_scaled, self._into)


def _scaled(made: Gradients, factor: float) -> Gradients:
    """In place."""
    for gradient in (made.hidden, made.weight):
        if gradient is not None and factor != 1:
            gradient.mul_(factor)
    return made


def _blocks(logits: Tensor) -> Iterator[slice]:
    """Rows of [n, V] by the block; all of them where tensors hold no data, as in a plan."""
    rows = max(1, _BLOCK_ELEMENTS // max(1, logits.shape[1]))
    rows = logits.shape[0] if isinstance(logits, FakeTensor) else rows
    for begin in range(0, logits.shape[0], max(1, rows)):
        yield slice(begin, begin + rows)


def _finite(peak: Tensor) -> Tensor:
    """The maximum, 0 where a shard has no legal column (so that -inf - -inf never happens)."""
    return peak.masked_fill(peak == -torch.inf, 0)
