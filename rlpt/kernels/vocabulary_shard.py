"""What every backend of the output layer shares: a shard's columns, the rows that are scored, the sum over shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

Group = dist.ProcessGroup | None  # None: a group of this rank alone


@dataclass(frozen=True)
class Shard:
    """This rank's columns of the output layer; column j is the global id `start + j`."""

    start: int
    vocab_size: int  # real ids, over all shards
    temperature: float
    illegal: Tensor | None  # [S, columns of the weight] bool: what each legal set leaves out

    def real_columns(self, columns: int) -> int:
        """How many of the shard's first columns are ids of the vocabulary; those after them are padding."""
        return min(max(self.vocab_size - self.start, 0), columns)


@dataclass(frozen=True)
class Scored:
    """What a call scores."""

    hidden: Tensor  # [N, H]
    ids: Tensor  # [N, J] i64, global: the label first, then candidates
    legal_index: Tensor | None  # [N] i64 into Shard.illegal

    def rows(self, shard: Shard, columns: int) -> Rows:
        """The same for one shard of so many columns."""
        return Rows(self.hidden, *owned_columns(self.ids, shard.start, columns), self.legal_index)


@dataclass(frozen=True)
class Rows:
    """Rows that are scored, each at J = 1 + K chosen ids: the label first."""

    hidden: Tensor  # [n, H]
    column: Tensor  # [n, J] i64 of each chosen id in this shard, clamped into it
    owned: Tensor  # [n, J] bool: the shard holds the id
    legal_index: Tensor | None  # [n] i64 into Shard.illegal

    def __getitem__(self, rows: slice | Tensor) -> Rows:
        index = None if self.legal_index is None else self.legal_index[rows]
        return Rows(self.hidden[rows], self.column[rows], self.owned[rows], index)

    def chunks(self, size: int) -> Iterator[tuple[slice, Rows]]:
        for begin in range(0, len(self.hidden), size):
            rows = slice(begin, min(begin + size, len(self.hidden)))
            yield rows, self[rows]


@dataclass(frozen=True)
class Finished:
    """A row's figures over the whole vocabulary, the same on all ranks."""

    log_sum: Tensor  # [n] log sum_j exp l_j
    entropy: Tensor  # [n] nats
    chosen: Tensor  # [n, J] log-probs

    def __getitem__(self, rows: slice | Tensor) -> Finished:
        return Finished(self.log_sum[rows], self.entropy[rows], self.chosen[rows])


@dataclass(frozen=True)
class Slopes:
    """Derivatives of the loss, in every figure of a row."""

    chosen: Tensor  # [n, J]
    entropy: Tensor  # [n]

    def __getitem__(self, rows: slice | Tensor) -> Slopes:
        return Slopes(self.chosen[rows], self.entropy[rows])

    def live(self) -> Tensor:
        """[n] bool: rows with any gradient."""
        return (self.chosen != 0).any(1) | (self.entropy != 0)

    def live_share(self) -> float:
        """Of the rows: how many have a gradient. 1 where there are none, or tensors hold no data, as in a plan."""
        live = self.live()
        return 1.0 if isinstance(live, FakeTensor) or not len(live) else int(live.count_nonzero()) / len(live)

    def has_entropy(self) -> bool:
        """Whether any row's entropy counts; True where tensors hold no data."""
        return isinstance(self.entropy, FakeTensor) or bool((self.entropy != 0).any())

    def of_known(self, unknown: Tensor) -> Slopes:
        """Without those of ids outside the vocabulary [n, J], which are not functions of the logits."""
        return Slopes(self.chosen.masked_fill(unknown, 0), self.entropy)

    def scaled(self, factor: float) -> Slopes:
        return replace(self, chosen=self.chosen * factor, entropy=self.entropy * factor)


@dataclass(frozen=True)
class Gradients:
    """Where gradients are written to; None: not wanted."""

    hidden: Tensor | None  # [n, H], this rank's part
    weight: Tensor | None  # [columns, H] in the dtype of sums, added to; or once it is whole, in the weight's own

    def __getitem__(self, rows: slice) -> Gradients:
        return Gradients(None if self.hidden is None else self.hidden[rows], self.weight)


def empty_gradients(hidden: Tensor, weight: Tensor, wanted: tuple[bool, bool]) -> Gradients:
    """Room for those that are `wanted` of both, the weight's at 0 in the dtype of sums."""
    return Gradients(
        torch.empty_like(hidden) if wanted[0] else None,
        torch.zeros_like(weight, dtype=sum_dtype(weight)) if wanted[1] else None,
    )


class OnePass(Protocol):
    """Gradients of a call's rows from logits that are made once, by chunks of rows in their order."""

    def open(self, at: slice) -> Finished:
        """Figures of those rows, at most `chunk_size`, by one collective; their logits stay until `close`."""
        ...

    def close(self, slopes: Slopes) -> None:
        """The logits of the rows opened last become their gradients. Those of unknown ids don't count."""
        ...

    def pending(self) -> Callable[[float], Gradients]:
        """After the last chunk: what gives the gradients times a factor, once."""
        ...


class Head(Protocol):
    """One shard of an output layer: logits are made, reduced to statistics, and turned into gradients."""

    chunk_size: int  # rows whose logits exist at a time, where logits are kept between statistics and gradients

    def statistics(self, rows: Rows) -> Tensor:
        """[n, 3 + J] of this shard alone: the maximum m (-inf without a legal column), sum_j e^(l_j - m), sum_j
        e^(l_j - m) (l_j - m), and the chosen ids' logits (0 where another shard holds the id)."""
        ...

    def gradients(self, rows: Rows, finished: Finished, slopes: Slopes, into: Gradients) -> None:
        """Makes the logits again; writes the gradient of `rows.hidden`, adds that of the weight."""
        ...

    def one_pass(self, scored: Scored, group: Group, wanted: tuple[bool, bool]) -> OnePass:
        """Begins one, for the gradients that are wanted: of the hidden states, of the weight."""
        ...


def finish(statistics: Tensor, unknown: Tensor, group: Group) -> Finished:
    """Statistics of each rank's shard [n, 3 + J] -> figures of the whole rows, by one collective.

    Each rank sends 3 + J numbers a row (16 bytes in f32 without candidates). All ranks add in the order of their ranks,
    so they get the same bits. `unknown` [n, J]: chosen ids outside the vocabulary.
    """
    whole = merge(gather(statistics, group))
    peak, total, first, picked = whole[:, 0], whole[:, 1], whole[:, 2], whole[:, 3:]
    log_total = total.log()
    chosen = (picked - peak[:, None] - log_total[:, None]).masked_fill(unknown, -torch.inf)
    return Finished(peak + log_total, log_total - first / total, chosen)


def merge(parts: Tensor) -> Tensor:
    """Statistics of disjoint sets of columns [P, n, 3 + J] -> those of their union [n, 3 + J], in the order given."""
    if len(parts) == 1:
        return parts[0]
    peaks, totals, firsts, picked = parts[..., 0], parts[..., 1], parts[..., 2], parts[..., 3:].sum(0)
    peak = peaks.amax(0)
    # A part without a legal column has maximum -inf and sums 0; only -inf - -inf must not happen.
    top = peak.masked_fill(peak == -torch.inf, 0)
    scale = (peaks - top).exp()
    total = (scale * totals).sum(0)
    first = (scale * (firsts + totals * (peaks.masked_fill(peaks == -torch.inf, 0) - top))).sum(0)
    return torch.cat([torch.stack([peak, total, first], 1), picked], 1)


def gather(statistics: Tensor, group: Group) -> Tensor:
    """[ranks, ...] of all ranks. All have the same number of rows, so all skip an empty one."""
    if group is None or not statistics.numel():
        return statistics[None]
    ranks = dist.get_world_size(group)
    gathered = statistics.new_empty(ranks, *statistics.shape)
    dist.all_gather(list(gathered.unbind(0)), statistics.contiguous(), group=group)
    return gathered


def sum_dtype(tensor: Tensor) -> torch.dtype:
    """f32, or f64 for f64."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def owned_columns(ids: Tensor, start: int, columns: int) -> tuple[Tensor, Tensor]:
    """Column of each global id in this shard (clamped into it), and whether the shard holds it."""
    column = ids - start
    return column.clamp(0, columns - 1), (column >= 0) & (column < columns)


def unknown_ids(ids: Tensor, vocab_size: int) -> Tensor:
    """Bool: the id is none of the vocabulary."""
    return (ids < 0) | (ids >= vocab_size)
