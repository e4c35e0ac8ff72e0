"""Drawing tokens where every tensor rank keeps its own columns of the logits, and a few numbers a row travel.

Inverse-CDF sampling (Devroye 1986, Non-Uniform Random Variate Generation, III.2) in three levels: one uniform number a
row, the same on all ranks, says in which shard the cumulative distribution crosses it, then in which block of that
shard's columns, then at which column. For the first, each rank sends three numbers a row; the rank that holds the token
then tells its id and log-prob. Shards stand in the order of their ids, so that the token is the one that
`sampling.draw` finds in the whole row: sums are rounded otherwise, which tells where the uniform number is within about
1e-7 of an edge.

Top-k and top-p ask for the order of the whole vocabulary, which no shard knows: where a row asks for one, whole rows
are gathered and drawn from by `sampling`, and so they are where shards are narrow.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlpt.distributed.mesh import Axis
from rlpt.rollout.requests import Filters
from rlpt.rollout.sampling import BLOCK, in_blocks, restricted

NARROW = 1024  # columns of a shard below which one gather is quicker than two small collectives (docs/results.md)


@dataclass(frozen=True)
class Shard:
    """One rank's columns of n rows, without those of the padding; column j is the id `start + j`."""

    start: int
    scaled: Tensor  # [n, C] f32: logits / temperature, -inf where the id is not legal
    weights: Tensor  # [n, B, BLOCK] f32: exp(scaled - the row's maximum in this shard), 0 after the last column
    blocks: Tensor  # [n, B] f64: their sums
    statistics: Tensor  # [n, 3] f64: maximum, sum of weights, sum of what is legal of `scaled`


@dataclass(frozen=True)
class Merged:
    """What all ranks know of n whole rows once the statistics of P shards have travelled; the same bits on all."""

    peaks: Tensor  # [P, n] f64: each shard's maximum
    masses: Tensor  # [P, n] f64: each shard's sum of exp(scaled - the row's maximum)
    peak: Tensor  # [n] f64
    log_sum: Tensor  # [n] f64: log sum_j exp scaled_j
    total: Tensor  # [n] f64: sum of scaled_j over the legal


def can_draw_from_shards(logits: Tensor, filters: Filters, axis: Axis) -> bool:
    """Whether rows that are sampled so are drawn from this rank's logits [n, columns] without gathering them; all ranks
    of the axis say the same."""
    return axis.size > 1 and logits.shape[1] >= NARROW and not filters.need_order


def draw_from_shards(
    logits: Tensor, filters: Filters, uniform: Tensor, vocab_size: int, axis: Axis
) -> tuple[Tensor, Tensor]:
    """This rank's logits [n, padded V / axis size], uniform [n] f64 in [0, 1) -> ids [n] i64, and log-probs and
    certainty [2, n] f32, the same on all ranks of the axis.

    Two collectives: 24 bytes a row and rank, then 16. `filters` must ask for neither top-k nor top-p.
    """
    assert not filters.need_order, "no shard knows the order of the vocabulary"
    shard = open_shard(logits, filters, vocab_size, axis.rank)
    # shards of padding alone, the last ones, have no say
    merged = merge(axis.all_gather(shard.statistics)[: -(-vocab_size // logits.shape[1])])
    found = axis.all_reduce(propose(shard, merged, uniform, filters.greedy, axis.rank))
    size = torch.full_like(uniform, vocab_size) if filters.num_legal is None else filters.num_legal.double()
    certainty = merged.log_sum - merged.total / size - size.log()  # as `sampling.certainty`
    return found[0].long(), torch.stack([found[1], certainty]).float()


def open_shard(logits: Tensor, filters: Filters, vocab_size: int, rank: int) -> Shard:
    """Rank `rank`'s logits [n, padded V / ranks]. Of a rank that has padding alone, whose statistics must not be
    merged, the shard is the vocabulary's last id."""
    start = min(rank * logits.shape[1], vocab_size - 1)
    columns = min(logits.shape[1], vocab_size - start)
    legal = None if filters.legal is None else filters.legal[:, start : start + columns]
    scaled = restricted(logits[:, :columns], filters.temperature, legal)
    peak = scaled.amax(-1, keepdim=True)
    # a maximum of -inf, where nothing is legal, must not be subtracted from itself
    weights = in_blocks((scaled - peak.clamp(min=torch.finfo(scaled.dtype).min)).exp_())
    blocks = weights.sum(-1).double()
    total = in_blocks(scaled if legal is None else torch.where(legal, scaled, 0.0)).sum(-1).double().sum(-1)
    return Shard(start, scaled, weights, blocks, torch.stack([peak.squeeze(1).double(), blocks.sum(-1), total], 1))


def merge(statistics: Tensor) -> Merged:
    """Statistics [P, n, 3] of shards in the order of their ids, at least one of which has a legal id in each row."""
    peaks, sums, totals = statistics.unbind(-1)
    peak = peaks.amax(0)
    masses = sums * (peaks - peak).exp()
    return Merged(peaks, masses, peak, peak + masses.sum(0).log(), totals.sum(0))


def propose(shard: Shard, merged: Merged, uniform: Tensor, greedy: Tensor | None, rank: int) -> Tensor:
    """[2, n] f64: id and log-prob of the row's token where it is shard `rank`'s, else 0, so that the sum over shards is
    every row's. `greedy` [n] bool: rows that take the largest, of equal ones the lowest id."""
    owner, target = _cross(merged.masses.T, uniform * merged.masses.sum(0))
    if rank < len(merged.peaks):
        target = target / (merged.peaks[rank] - merged.peak).exp()  # in units of the shard's own weights
    block, target = _cross(shard.blocks, target)
    inside = shard.weights.gather(1, block[:, None, None].expand(-1, 1, BLOCK)).squeeze(1).double()
    place, _ = _cross(inside, target)
    # rows of other shards, and those that are not numbers, may point anywhere
    column = (block * BLOCK + place).clamp(max=shard.scaled.shape[1] - 1)
    if greedy is not None:
        owner = torch.where(greedy, merged.peaks.argmax(0), owner)
        column = torch.where(greedy, shard.scaled.argmax(-1), column)
    chosen = shard.scaled.gather(1, column[:, None]).squeeze(1).double()
    told = torch.stack([(shard.start + column).double(), chosen - merged.log_sum])
    return torch.where(owner == rank, told, 0.0)


def _cross(masses: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Where the running sum of a row's masses [n, C] f64 first exceeds its target [n], and what of the target is left
    before that column. A target that rounding has put at the sum of the row or above is taken as just below, so that a
    column of mass 0 is never the one."""
    running = masses.cumsum(-1)
    end = running[:, -1]
    target = torch.minimum(target, end.nextafter(torch.zeros_like(end)))[:, None]
    index = torch.searchsorted(running, target, right=True).clamp(max=masses.shape[1] - 1)
    before = torch.where(index > 0, running.gather(1, (index - 1).clamp(min=0)), 0.0)
    return index.squeeze(1), (target - before).squeeze(1)
