"""The gradient of attention over trees in Triton, from its output and log-sums (Dao 2307.08691).

Shapes as in `rlpt.kernels.tree_attention`. Queries' gradients are made by tiles of queries, keys' and values' by tiles
of keys, which meet the queries behind them: a branch's keys those of the branch, a stem's keys all of the tree's.
Probabilities and their slopes are rounded to the inputs' dtype for the products, which add up in f32; each sum has one
order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from rlpt.kernels.attention_block import power_of_two
from rlpt.kernels.tree_tiles import TILE, TreeTiles

_LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)


@triton.jit
def _meet_keys(asked, slope, keys, values, seen, lowered, along, total, unit, MASKED: tl.constexpr):
    """asked and slope [m, D], keys and values [n, D], seen [m, n] (with MASKED), lowered and along [m, 1] -> total
    [m, D] with what these keys add to the queries' gradient."""
    scores = tl.dot(asked, tl.trans(keys), input_precision="ieee")
    weight = tl.exp2(scores * unit - lowered)
    if MASKED:
        weight = tl.where(seen, weight, 0.0)
    bent = tl.dot(slope, tl.trans(values), input_precision="ieee")
    bent = (weight * (bent - along)).to(keys.dtype)
    return tl.dot(bent, keys, total, input_precision="ieee")


@triton.jit(do_not_specialize=["length"])  # compiled once, whatever it is
def _of_queries_kernel(
    query, key, value, out, grad, log_sums, products, of_query, tiles, query_at, query_row, query_head, key_at, key_row,
    key_head, value_at, value_row, value_head, out_at, out_row, out_head, grad_at, grad_row, grad_head, of_at, of_row,
    of_head, length, unit, scale, HEADS: tl.constexpr, ROWS: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """query, out, grad, of_query [T, B, H, D], key and value [T, B, G, D], by strides (at, row, head, 1); log_sums and
    products [B, H, T], the latter of output and its gradient, which are written. Grid: (heads, tiles)."""
    head = tl.program_id(0)
    entry = tiles + tl.program_id(1) * 6
    row = tl.load(entry).to(tl.int64)
    stem, above = tl.load(entry + 1), tl.load(entry + 2)
    start, own, first = tl.load(entry + 3), tl.load(entry + 4), tl.load(entry + 5)
    group = head // HEADS
    at = first + tl.arange(0, ROWS)
    channel = tl.arange(0, D)
    column = (start + at).to(tl.int64)
    wide = column[:, None]
    real = tl.broadcast_to(at[:, None] < own, (ROWS, D))
    here = at < own
    asked = tl.load(query + row * query_row + head * query_head + wide * query_at + channel[None, :], real, 0.0)
    slope = tl.load(grad + row * grad_row + head * grad_head + wide * grad_at + channel[None, :], real, 0.0)
    found = tl.load(out + row * out_row + head * out_head + wide * out_at + channel[None, :], real, 0.0)
    along = tl.sum(found.to(tl.float32) * slope.to(tl.float32), 1)
    of_tokens = (row * tl.num_programs(0) + head) * length + column
    tl.store(products + of_tokens, along, mask=here)
    along = along[:, None]
    lowered = (tl.load(log_sums + of_tokens, mask=here, other=0.0) * _LOG2_E)[:, None]
    keys = key + row * key_row + group * key_head + channel[None, :]
    values = value + row * value_row + group * value_head + channel[None, :]
    end = above + tl.minimum(first + ROWS, own)
    full = (above + first + 1) // BLOCK * BLOCK  # positions that all of the tile see
    total = tl.zeros((ROWS, D), tl.float32)
    for begin_at in range(0, full, BLOCK):
        position = begin_at + tl.arange(0, BLOCK)
        stands = tl.where(position < above, stem + position, start - above + position)[:, None].to(tl.int64)
        past, held = tl.load(keys + stands * key_at), tl.load(values + stands * value_at)
        total = _meet_keys(asked, slope, past, held, True, lowered, along, total, unit, MASKED=False)
    for begin_at in range(full, end, BLOCK):
        position = begin_at + tl.arange(0, BLOCK)
        stands = tl.where(position < above, stem + position, start - above + position)[:, None].to(tl.int64)
        inside = tl.broadcast_to(position[:, None] < end, (BLOCK, D))
        past = tl.load(keys + stands * key_at, mask=inside, other=0.0)
        held = tl.load(values + stands * value_at, mask=inside, other=0.0)
        seen = position[None, :] <= tl.broadcast_to((above + at)[:, None], (ROWS, BLOCK))
        total = _meet_keys(asked, slope, past, held, seen, lowered, along, total, unit, MASKED=True)
    place = of_query + row * of_row + head * of_head + wide * of_at + channel[None, :]
    tl.store(place, (total * scale).to(of_query.dtype.element_ty), mask=real)


@triton.jit(do_not_specialize=["length"])  # compiled once, whatever it is
def _of_keys_kernel(
    query, key, value, grad, log_sums, products, of_key, of_value, tiles, query_at, query_row, query_head, key_at,
    key_row, key_head, value_at, value_row, value_head, grad_at, grad_row, grad_head, of_at, of_row, of_head, length,
    unit, scale, HEADS: tl.constexpr, ROWS: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """As `_of_queries_kernel`, which runs before; of_key and of_value by the same strides; BLOCK queries meet ROWS keys
    at a time. Grid: (groups, tiles of keys)."""
    group = tl.program_id(0)
    entry = tiles + tl.program_id(1) * 4
    row = tl.load(entry).to(tl.int64)
    first, stop, end = tl.load(entry + 1), tl.load(entry + 2), tl.load(entry + 3)
    channel = tl.arange(0, D)
    column = first + tl.arange(0, ROWS)
    wide = column[:, None].to(tl.int64)
    real = tl.broadcast_to(column[:, None] < stop, (ROWS, D))
    keys = tl.load(key + row * key_row + group * key_head + wide * key_at + channel[None, :], real, 0.0)
    values = tl.load(value + row * value_row + group * value_head + wide * value_at + channel[None, :], real, 0.0)
    total, mixed = tl.zeros((ROWS, D), tl.float32), tl.zeros((ROWS, D), tl.float32)
    count = tl.cdiv(end - first, BLOCK)
    for turn in range(count * HEADS):  # all of one head's queries, then the next one's
        head = group * HEADS + turn // count
        at = first + turn % count * BLOCK + tl.arange(0, BLOCK)
        inside = tl.broadcast_to(at[:, None] < end, (BLOCK, D))
        stands = at[:, None].to(tl.int64)
        place = row * query_row + head * query_head + stands * query_at + channel[None, :]
        asked = tl.load(query + place, mask=inside, other=0.0)
        place = row * grad_row + head * grad_head + stands * grad_at + channel[None, :]
        slope = tl.load(grad + place, mask=inside, other=0.0)
        of_tokens = (row * tl.num_programs(0) * HEADS + head) * length + at
        lowered = tl.load(log_sums + of_tokens, mask=at < end, other=0.0) * _LOG2_E
        along = tl.load(products + of_tokens, mask=at < end, other=0.0)
        seen = column[:, None] <= tl.broadcast_to(at[None, :], (ROWS, BLOCK))
        scores = tl.dot(keys, tl.trans(asked), input_precision="ieee")
        weight = tl.where(seen, tl.exp2(scores * unit - lowered[None, :]), 0.0)
        mixed = tl.dot(weight.to(slope.dtype), slope, mixed, input_precision="ieee")
        bent = tl.dot(values, tl.trans(slope), input_precision="ieee")
        bent = (weight * (bent - along[None, :])).to(asked.dtype)
        total = tl.dot(bent, asked, total, input_precision="ieee")
    place = row * of_row + group * of_head + wide * of_at + channel[None, :]
    tl.store(of_key + place, (total * scale).to(of_key.dtype.element_ty), mask=real)
    tl.store(of_value + place, mixed.to(of_value.dtype.element_ty), mask=real)


def shape(channels: int) -> dict[str, int]:
    """Of a program: the queries or keys of its tile, how many of the others it meets at a time, and how it runs; made
    for numbers of two bytes."""
    is_large = channels > 128
    return {"ROWS": TILE, "BLOCK": 16 if is_large else 64, "num_warps": 8 if is_large else 4, "num_stages": 2}


def tree_gradient(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, log_sums: Tensor, tiles: TreeTiles,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """grad and out [T, B, H, d] and log_sums [B, H, T] of queries, keys and values as in `tree_attention` -> their
    gradients; 0 at positions of no run."""
    if grad.stride(3) != 1:
        grad = grad.contiguous()
    new = torch.empty if tiles.covers_all else torch.zeros
    of_query, of_key, of_value = (new(one.shape, dtype=one.dtype, device=one.device) for one in (query, key, value))
    if len(tiles.queries):
        length, _, heads, channels = query.shape
        groups = key.shape[2]
        products = torch.empty_like(log_sums)
        rest = (length, power_of_two(scale), scale)
        options = {"HEADS": heads // groups, "D": channels, **shape(channels)}
        _of_queries_kernel[(heads, len(tiles.queries))](
            query, key, value, out, grad, log_sums, products, of_query, tiles.queries,
            *_strides(query, key, value, out, grad, of_query), *rest, **options,
        )  # fmt: skip
        _of_keys_kernel[(groups, len(tiles.keys))](
            query, key, value, grad, log_sums, products, of_key, of_value, tiles.keys,
            *_strides(query, key, value, grad, of_key), *rest, **options,
        )  # fmt: skip
    return of_query, of_key, of_value


def _strides(*tensors: Tensor) -> list[int]:
    return [one.stride(axis) for one in tensors for axis in range(3)]
