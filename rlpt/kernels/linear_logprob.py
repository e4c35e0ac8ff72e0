"""Log-probs and entropy of an output layer whose vocabulary is sharded, without logits for all rows at once.

Shapes: N rows, H hidden, V_local columns of this rank's shard (shards may be uneven), K candidates, S legal sets.
Column j of the shard is the global id `vocab_start + j`. Columns that are padding (global id >= `vocab_size`) or
outside a row's legal set are not in the distribution at all: their logit is -inf, never 0.

With logits l, m = max_j l_j, Z = sum_j exp(l_j - m), p_j = exp(l_j - m) / Z:

    log p_y = (l_y - m) - log Z          d log p_y / d l_j = [j = y] - p_j
    H       = log Z - sum_j p_j (l_j - m)          d H / d l_j = -p_j (log p_j + H)

Each rank reduces its own columns against its own maximum (a shard without a legal token has maximum -inf and
contributes exactly 0). One collective brings [m, Z, sum exp * (l - m), l_y, l_k] of all ranks together, 16 bytes a row
and rank without candidates.

Two ways to the gradient, with one result. The backward makes the logits again, chunk by chunk: 4 products of
2 N H V operations. Where the caller can say beforehand what the derivative of its loss in every row's figures will be
(up to one factor), each chunk's logits turn into gradients while they are there: 3 products (`slopes`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlpt.kernels.backend import Backend, choose_head
from rlpt.kernels.vocabulary_shard import (
    Finished,
    Gradients,
    Group,
    Head,
    Scored,
    Shard,
    Slopes,
    empty_gradients,
    finish,
    owned_columns,
    sum_dtype,
    unknown_ids,
)

_ROUNDING = 8  # units in the last place of the largest slope by which one may differ from what was foretold


@dataclass(frozen=True)
class LinearLogprob:
    """What the output layer says of N rows, the same on every rank of the group; or the slopes of a loss in that."""

    logprobs: Tensor  # [N] f32 (f64 for f64 inputs)
    entropy: Tensor  # [N] as logprobs, nats
    candidate_logprobs: Tensor | None = None  # [N, K] as logprobs


# (rows of the whole, their figures) -> the derivative of the loss in them, up to one factor that is common to all rows.
SlopesOf = Callable[[slice, LinearLogprob], LinearLogprob]


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
    outside = torch.arange(vocab_start, vocab_start + columns, device=logits_local.device) >= vocab_size
    illegal = outside[None] | _illegal_columns(legal_table, legal_index, vocab_start, columns)
    logits = (logits_local.to(sum_dtype(logits_local)) / temperature).masked_fill(illegal, -torch.inf)
    peak = _reduce(logits.amax(1).detach().clone(), dist.ReduceOp.MAX, group)[:, None]
    total = _reduce((logits - peak).exp().sum(1), dist.ReduceOp.SUM, group)[:, None]
    logprobs = logits - peak - total.log()
    entropy = -(logprobs.exp() * logprobs.masked_fill(illegal, 0)).sum(1)
    ids = _chosen_ids(labels, candidates)
    column, owned = owned_columns(ids, vocab_start, columns)
    chosen = torch.where(owned, logprobs.gather(1, column), 0)
    chosen = _reduce(chosen, dist.ReduceOp.SUM, group).masked_fill(unknown_ids(ids, vocab_size), -torch.inf)
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
    chunk_size: int | None = None,
    candidates: Tensor | None = None,
    slopes: SlopesOf | None = None,
    backend: Backend = "auto",
) -> LinearLogprob:
    """Log-probs of `labels` and `candidates`, and the entropy, of softmax(hidden @ weight.T / temperature).

    hidden [N, H] and labels [N] i64 (global ids) are the same on all ranks of `group`; weight [V_local, H] is this
    rank's rows of the output layer. Only rows that carry loss need to be passed; N may be 0. `legal_table` [S, V] bool
    (V >= `vocab_size`, global columns) and `legal_index` [N] i64 limit row n to the ids of set `legal_index[n]`;
    `candidates` [N, K] i64 are further ids to score. `chunk_size`: rows whose logits exist at a time, None: what suits
    the width and the backend.

    Sums are f32, or f64 where hidden is f64. An id outside [0, vocab_size) or outside its row's legal set has log-prob
    -inf; a row without any legal id gives NaN.

    Backward: exact for every output. The gradient of `weight` is whole. The gradient of `hidden` is this rank's
    PARTIAL sum (over its own columns): the caller's tensor-parallel mapping adds it up over the group. Rows whose
    gradient is 0 cost nothing in it.

    `slopes` foretells that gradient, chunk by chunk, and gradients are then made in the forward pass, with one
    collective a chunk. It cannot make them wrong: the backward compares what arrives with what was foretold, and makes
    the logits again unless it is the same up to one factor and rounding (8 units in the last place of the largest).

    Raises ValueError for a temperature <= 0, a chunk_size < 1, a legal table without an index or the other way round,
    and a table narrower than the vocabulary.
    """
    _check(labels, vocab_size, temperature, legal_table, legal_index)
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size}: must be at least 1 row")
    rows, width = hidden.shape
    assert weight.shape[1:] == (width,), f"weight {tuple(weight.shape)} does not fit hidden {tuple(hidden.shape)}"
    assert labels.shape == (rows,), f"labels {tuple(labels.shape)} do not fit hidden {tuple(hidden.shape)}"
    illegal = None if legal_table is None else _illegal_table(legal_table, vocab_start, weight.shape[0])
    shard = Shard(vocab_start, vocab_size, temperature, illegal)
    plan = _Plan(shard, group, chunk_size, backend, slopes if torch.is_grad_enabled() else None)
    ids = _chosen_ids(labels, candidates)
    chosen, entropy = _LinearLogprob.apply(hidden, weight, ids, legal_index, plan)
    return _result(chosen, entropy, candidates)


@dataclass(frozen=True)
class _Plan:
    shard: Shard
    group: Group
    chunk_size: int | None
    backend: Backend
    slopes: SlopesOf | None


@dataclass
class _Ready:
    """Gradients from the forward pass, for slopes that were foretold. Mutable: used once."""

    slopes: Slopes
    gradients: Callable[[float], Gradients] | None  # by the factor that the slopes are to be multiplied by


class _LinearLogprob(torch.autograd.Function):
    """(hidden [N, H], weight [V_local, H], ids [N, J = 1 + K]) -> log-probs [N, J] and entropy [N]."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, ids: Tensor, index: Tensor | None, plan: _Plan
    ) -> tuple[Tensor, Tensor]:
        head = choose_head(plan.backend, weight, plan.shard, plan.chunk_size)
        scored, wanted = Scored(hidden, ids, index), (ctx.needs_input_grad[0], ctx.needs_input_grad[1])
        ctx.ready = None
        if plan.slopes is not None and any(wanted):
            finished, ctx.ready = _one_pass(head, scored, plan.slopes, plan.group, wanted)
        else:
            statistics = head.statistics(scored.rows(plan.shard, len(weight)))
            finished = finish(statistics, unknown_ids(ids, plan.shard.vocab_size), plan.group)
        ctx.save_for_backward(hidden, weight, ids, index, finished.log_sum, finished.entropy, finished.chosen)
        ctx.plan = plan
        ctx.set_materialize_grads(False)
        return finished.chosen, finished.entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_chosen: Tensor | None, grad_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, ids, index, *figures = ctx.saved_tensors
        if grad_chosen is None and grad_entropy is None:
            return (None,) * 5
        plan: _Plan = ctx.plan
        finished = Finished(*figures)
        unknown = unknown_ids(ids, plan.shard.vocab_size)
        slopes = Slopes(
            torch.zeros_like(finished.chosen) if grad_chosen is None else grad_chosen,
            torch.zeros_like(finished.entropy) if grad_entropy is None else grad_entropy,
        ).of_known(unknown)
        into = _use(ctx.ready, slopes, unknown)
        if into is None:
            into = empty_gradients(hidden, weight, (ctx.needs_input_grad[0], ctx.needs_input_grad[1]))
            head = choose_head(plan.backend, weight, plan.shard, plan.chunk_size)
            head.gradients(Scored(hidden, ids, index).rows(plan.shard, len(weight)), finished, slopes, into)
        of_weight = None if into.weight is None else into.weight.to(weight.dtype)
        return into.hidden, of_weight, None, None, None


def _one_pass(
    head: Head, scored: Scored, slopes_of: SlopesOf, group: Group, wanted: tuple[bool, bool]
) -> tuple[Finished, _Ready]:
    """Figures of all rows, and gradients by the slopes that are foretold. A GPU is never waited for."""
    making = head.one_pass(scored, group, wanted)
    rows, few = len(scored.ids), scored.ids.shape[1] == 1
    parts, foretold = [], []
    for begin in range(0, max(rows, 1), head.chunk_size):  # once at least, so that a call without rows has figures too
        at = slice(begin, min(begin + head.chunk_size, rows))
        finished = making.open(at)
        said = slopes_of(
            at, LinearLogprob(finished.chosen[:, 0], finished.entropy, None if few else finished.chosen[:, 1:])
        )
        chosen = said.logprobs[:, None]
        if said.candidate_logprobs is not None:
            chosen = torch.cat([chosen, said.candidate_logprobs], 1)
        slopes = Slopes(chosen.to(finished.chosen.dtype), said.entropy.to(finished.entropy.dtype))
        making.close(slopes)
        parts.append(finished)
        foretold.append(slopes)
    gradients = making.pending()
    if len(parts) == 1:
        return parts[0], _Ready(foretold[0], gradients)
    finished = Finished(*(torch.cat(one) for one in zip(*((p.log_sum, p.entropy, p.chosen) for p in parts))))
    slopes = Slopes(torch.cat([one.chosen for one in foretold]), torch.cat([one.entropy for one in foretold]))
    return finished, _Ready(slopes, gradients)


def _use(ready: _Ready | None, slopes: Slopes, unknown: Tensor) -> Gradients | None:
    """The gradients from the forward pass, if they are those of `slopes`; None: they must be made now."""
    if ready is None or ready.gradients is None:
        return None
    factor = _factor(slopes, ready.slopes.of_known(unknown))
    if factor is None:
        return None
    gradients, ready.gradients = ready.gradients, None  # a second backward makes its own
    return gradients(factor)


def _factor(arrived: Slopes, foretold: Slopes) -> float | None:
    """The number that makes `arrived` of `foretold`, up to rounding; None: there is none. The host waits once."""
    if not arrived.entropy.numel():
        return 1.0
    parts = (foretold.chosen, foretold.entropy, arrived.chosen, arrived.entropy)
    before, after = both = torch.cat([part.flatten() for part in parts]).double().view(2, -1)
    square, along = both @ before
    factor = along / square.clamp_min(torch.finfo(torch.float64).tiny)
    off, largest = torch.addcmul(after, before, factor, value=-1).abs().max(), after.abs().max()
    found, off_by, size = torch.stack([factor, off, largest]).tolist()
    return float(found) if off_by <= _ROUNDING * torch.finfo(arrived.entropy.dtype).eps * size else None


def _illegal_table(table: Tensor, start: int, columns: int) -> Tensor:
    """[S, V_local] bool: what each legal set leaves out of the shard."""
    illegal = torch.ones(table.shape[0], columns, dtype=torch.bool, device=table.device)
    covered = table[:, start : start + columns]
    illegal[:, : covered.shape[1]] = ~covered
    return illegal


def _illegal_columns(table: Tensor | None, index: Tensor | None, start: int, columns: int) -> Tensor:
    """[N, V_local] bool, or [1, 1] without a table."""
    if table is None or index is None:
        return torch.zeros(1, 1, dtype=torch.bool)
    return _illegal_table(table, start, columns)[index]


def _chosen_ids(labels: Tensor, candidates: Tensor | None) -> Tensor:
    """[N, 1+K]: the label first."""
    return labels[:, None] if candidates is None else torch.cat([labels[:, None], candidates], 1)


def _result(chosen: Tensor, entropy: Tensor, candidates: Tensor | None) -> LinearLogprob:
    return LinearLogprob(chosen[:, 0], entropy, None if candidates is None else chosen[:, 1:])


def _reduce(tensor: Tensor, operation: Any, group: Group) -> Tensor:
    """`tensor` reduced in place over the group. All ranks have the same N, so all skip an empty one."""
    if group is not None and tensor.numel():
        dist.all_reduce(tensor, op=operation, group=group)
    return tensor


def _check(labels: Tensor, vocab_size: int, temperature: float, table: Tensor | None, index: Tensor | None) -> None:
    assert labels.dtype == torch.int64, f"labels must be int64, are {labels.dtype}"
    assert index is None or index.dtype == torch.int64, f"legal_index must be int64, is {index.dtype}"
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}: must be above 0 (a greedy sample is scored at temperature 1)")
    if (table is None) != (index is None):
        raise ValueError("legal_table and legal_index go together: give both or neither")
    if table is not None and table.shape[1] < vocab_size:
        raise ValueError(f"legal_table has {table.shape[1]} columns for a vocabulary of {vocab_size}")
