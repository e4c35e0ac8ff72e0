"""Log-probs and entropy of an output layer whose vocabulary is sharded, without logits for all rows at once.

Shapes: N rows, H hidden, V_local columns of this rank's shard (shards may be uneven), K candidates, S legal sets.
Column j of the shard is the global id `vocab_start + j`. Columns that are padding (global id >= `vocab_size`) or
outside a row's legal set are not in the distribution at all: their logit is -inf, never 0.

With logits l, m = max_j l_j, Z = sum_j exp(l_j - m), p_j = exp(l_j - m) / Z:

    log p_y = (l_y - m) - log Z          d log p_y / d l_j = [j = y] - p_j
    H       = log Z - sum_j p_j (l_j - m)          d H / d l_j = -p_j (log p_j + H)

Each rank reduces its own columns against its own maximum (a shard without a legal token has maximum -inf and
contributes exactly 0). Then one max over the group rescales the sums, and one sum of [Z, sum exp * (l - m), l_y, l_k]
finishes every row, so a call costs two collectives whatever N is. The backward recomputes the logits by chunks of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

Group = dist.ProcessGroup | None  # None: a group of this rank alone


@dataclass(frozen=True)
class LinearLogprob:
    """What the output layer says of N rows; the same on every rank of the group."""

    logprobs: Tensor  # [N] f32 (f64 for f64 inputs)
    entropy: Tensor  # [N] as logprobs, nats
    candidate_logprobs: Tensor | None = None  # [N, K] as logprobs


@dataclass(frozen=True)
class _Shard:
    start: int  # global id of the shard's first column
    vocab_size: int  # real ids, over all shards
    group: Group
    temperature: float
    chunk_size: int  # rows whose logits exist at a time


def vocab_parallel_logprob(
    logits_local: Tensor,
    labels: Tensor,
    *,
    vocab_start: int,
    vocab_size: int,
    group: Group = None,
    temperature: float = 1.0,
    legal_table: Tensor | None = None,
    legal_index: Tensor | None = None,
    candidates: Tensor | None = None,
) -> LinearLogprob:
    """The reference: the same figures from logits [N, V_local] that exist already, straight from the definition.

    Differentiable by torch with `group=None`; with a group it is a forward only (assert). The arguments are those of
    `linear_logprob`.
    """
    assert group is None or not logits_local.requires_grad, "over a group the reference has no backward"
    _check(labels, vocab_size, temperature, legal_table, legal_index)
    columns = logits_local.shape[1]
    illegal = _illegal_columns(legal_table, vocab_start, columns, vocab_size, logits_local.device)
    illegal = illegal if legal_index is None else illegal[legal_index]
    logits = (logits_local.to(_sum_dtype(logits_local)) / temperature).masked_fill(illegal, -torch.inf)
    peak = _reduce(logits.amax(1).detach().clone(), dist.ReduceOp.MAX, group)[:, None]
    total = _reduce((logits - peak).exp().sum(1), dist.ReduceOp.SUM, group)[:, None]
    logprobs = logits - peak - total.log()
    entropy = -(logprobs.exp() * logprobs.masked_fill(illegal, 0)).sum(1)
    ids = _chosen_ids(labels, candidates)
    column, owned = _owned(ids, vocab_start, columns)
    chosen = torch.where(owned, logprobs.gather(1, column), 0)
    chosen = _reduce(chosen, dist.ReduceOp.SUM, group).masked_fill(~_valid(ids, vocab_size), -torch.inf)
    return _result(chosen, _reduce(entropy, dist.ReduceOp.SUM, group), candidates)


def linear_logprob(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    vocab_start: int,
    vocab_size: int,
    group: Group = None,
    temperature: float = 1.0,
    legal_table: Tensor | None = None,
    legal_index: Tensor | None = None,
    chunk_size: int = 1024,
    candidates: Tensor | None = None,
) -> LinearLogprob:
    """Log-probs of `labels` and `candidates`, and the entropy, of softmax(hidden @ weight.T / temperature).

    hidden [N, H] and labels [N] i64 (global ids) are the same on all ranks of `group`; weight [V_local, H] is this
    rank's rows of the output layer. Only rows that carry loss need to be passed; N may be 0. `legal_table` [S, V] bool
    (V >= `vocab_size`, global columns) and `legal_index` [N] i64 limit row n to the ids of set `legal_index[n]`;
    `candidates` [N, K] i64 are further ids to score.

    Sums are f32, or f64 where hidden is f64; narrower inputs are widened before they are multiplied. An id outside
    [0, vocab_size) or outside its row's legal set has log-prob -inf; a row without any legal id gives NaN.

    Backward: exact for every output, once. The gradient of `weight` is whole. The gradient of `hidden` is this rank's
    PARTIAL sum (over its own columns): the caller's tensor-parallel mapping adds it up over the group.

    Raises ValueError for a temperature <= 0, a chunk_size < 1, a legal table without an index or the other way round,
    and a table narrower than the vocabulary.
    """
    _check(labels, vocab_size, temperature, legal_table, legal_index)
    if chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size}: must be at least 1 row")
    rows, width = hidden.shape
    assert weight.shape[1:] == (width,), f"weight {tuple(weight.shape)} does not fit hidden {tuple(hidden.shape)}"
    assert labels.shape == (rows,), f"labels {tuple(labels.shape)} do not fit hidden {tuple(hidden.shape)}"
    illegal = _illegal_columns(legal_table, vocab_start, weight.shape[0], vocab_size, hidden.device)
    shard = _Shard(vocab_start, vocab_size, group, temperature, chunk_size)
    ids = _chosen_ids(labels, candidates)
    chosen, entropy = _LinearLogprob.apply(hidden, weight, ids, illegal, legal_index, shard)
    return _result(chosen, entropy, candidates)


class _LinearLogprob(torch.autograd.Function):
    """(hidden [N, H], weight [V_local, H], ids [N, 1+K]) -> log-probs [N, 1+K] and entropy [N]."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, ids: Tensor, illegal: Tensor, index: Tensor | None, shard: _Shard
    ) -> tuple[Tensor, Tensor]:
        dtype = _sum_dtype(hidden)
        peak, total, first = (hidden.new_empty(hidden.shape[0], dtype=dtype) for _ in range(3))
        picked = hidden.new_empty(ids.shape, dtype=dtype)
        column, owned = _owned(ids, shard.start, weight.shape[0])
        for rows, logits in _chunks(hidden, weight.to(dtype), illegal, index, shard):
            peak[rows] = logits.amax(1)
            picked[rows] = logits.gather(1, column[rows])
            shifted = logits.sub_(_finite(peak[rows])[:, None])
            exponentials = shifted.exp()
            total[rows] = exponentials.sum(1)
            first[rows] = exponentials.mul_(shifted.clamp_min_(torch.finfo(dtype).min)).sum(1)  # 0 * -inf is 0 here

        top = _reduce(peak.clone(), dist.ReduceOp.MAX, shard.group)
        scale = (peak - top).exp()
        first = scale * (first + total * (_finite(peak) - top))
        picked = torch.where(owned, picked - top[:, None], 0)
        packed = torch.cat([(scale * total)[:, None], first[:, None], picked], 1)
        packed = _reduce(packed, dist.ReduceOp.SUM, shard.group)
        log_total = packed[:, 0].log()
        entropy = log_total - packed[:, 1] / packed[:, 0]
        valid = _valid(ids, shard.vocab_size)
        chosen = (packed[:, 2:] - log_total[:, None]).masked_fill(~valid, -torch.inf)

        ctx.save_for_backward(hidden, weight, ids, illegal, index, top + log_total, entropy)
        ctx.shard = shard
        ctx.set_materialize_grads(False)
        return chosen, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_chosen: Tensor | None, grad_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, ids, illegal, index, log_sum, entropy = ctx.saved_tensors
        shard: _Shard = ctx.shard
        if grad_chosen is None and grad_entropy is None:
            return (None,) * 6
        wide = weight.to(log_sum.dtype)
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(wide) if ctx.needs_input_grad[1] else None
        grad_ids = torch.zeros_like(ids, dtype=wide.dtype) if grad_chosen is None else grad_chosen
        grad_ids = grad_ids.masked_fill(~_valid(ids, shard.vocab_size), 0)
        column, owned = _owned(ids, shard.start, weight.shape[0])
        for rows, logits in _chunks(hidden, wide, illegal, index, shard):
            logprobs = logits.sub_(log_sum[rows, None])
            probabilities = logprobs.exp()
            grad = probabilities * -grad_ids[rows].sum(1, keepdim=True)
            if grad_entropy is not None:
                surprise = logprobs.clamp_min_(torch.finfo(wide.dtype).min).add_(entropy[rows, None])
                grad.sub_(probabilities.mul_(surprise).mul_(grad_entropy[rows, None]))
            grad.scatter_add_(1, column[rows], torch.where(owned[rows], grad_ids[rows], 0))
            grad.div_(shard.temperature)
            if grad_hidden is not None:
                grad_hidden[rows] = (grad @ wide).to(hidden.dtype)
            if grad_weight is not None:
                grad_weight.addmm_(grad.t(), hidden[rows].to(wide.dtype))
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None, None, None


def _chunks(
    hidden: Tensor, weight: Tensor, illegal: Tensor, index: Tensor | None, shard: _Shard
) -> Iterator[tuple[slice, Tensor]]:
    """(rows, their logits [rows, V_local] at the temperature, -inf where illegal), chunk by chunk."""
    for begin in range(0, hidden.shape[0], shard.chunk_size):
        rows = slice(begin, min(begin + shard.chunk_size, hidden.shape[0]))
        logits = (hidden[rows].to(weight.dtype) @ weight.t()).div_(shard.temperature)
        yield rows, logits.masked_fill_(illegal if index is None else illegal[index[rows]], -torch.inf)


def _illegal_columns(table: Tensor | None, start: int, columns: int, vocab_size: int, device: torch.device) -> Tensor:
    """[S, V_local] bool (S = 1 without a table): padding, and what each legal set leaves out."""
    if table is None:
        illegal = torch.zeros(1, columns, dtype=torch.bool, device=device)
    else:
        illegal = torch.ones(table.shape[0], columns, dtype=torch.bool, device=device)
        covered = table[:, start : start + columns]
        illegal[:, : covered.shape[1]] = ~covered
    illegal[:, max(0, vocab_size - start) :] = True
    return illegal


def _owned(ids: Tensor, start: int, columns: int) -> tuple[Tensor, Tensor]:
    """Column of each global id in this shard (clamped into it), and whether the shard holds it."""
    column = ids - start
    return column.clamp(0, columns - 1), (column >= 0) & (column < columns)


def _valid(ids: Tensor, vocab_size: int) -> Tensor:
    return (ids >= 0) & (ids < vocab_size)


def _chosen_ids(labels: Tensor, candidates: Tensor | None) -> Tensor:
    """[N, 1+K]: the label first."""
    return labels[:, None] if candidates is None else torch.cat([labels[:, None], candidates], 1)


def _result(chosen: Tensor, entropy: Tensor, candidates: Tensor | None) -> LinearLogprob:
    return LinearLogprob(chosen[:, 0], entropy, None if candidates is None else chosen[:, 1:])


def _finite(peak: Tensor) -> Tensor:
    """The maximum, 0 where a shard has no legal column (so that -inf - -inf never happens)."""
    return peak.masked_fill(peak == -torch.inf, 0)


def _sum_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _reduce(tensor: Tensor, operation: Any, group: Group) -> Tensor:
    """`tensor` reduced in place over the group. All ranks have the same N, so all skip an empty one."""
    if group is not None and tensor.numel():
        dist.all_reduce(tensor, op=operation, group=group)
    return tensor


def _check(labels: Tensor, vocab_size: int, temperature: float, table: Tensor | None, index: Tensor | None) -> None:
    assert labels.dtype == torch.int64, f"labels must be int64, are {labels.dtype}"
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}: must be above 0 (a greedy sample is scored at temperature 1)")
    if (table is None) != (index is None):
        raise ValueError("legal_table and legal_index go together: give both or neither")
    if table is not None and table.shape[1] < vocab_size:
        raise ValueError(f"legal_table has {table.shape[1]} columns for a vocabulary of {vocab_size}")
