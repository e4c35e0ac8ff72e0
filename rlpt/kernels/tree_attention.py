"""Attention of packed rows and trees in Triton, whose rows are those of a decode step to the last bit.

Shapes: T columns, B rows, H heads, G groups of them that share a key, d channels (a power of two). A program owns a
tile of one run's queries and one head. It meets the keys by their positions in the text, from 0 on: those of the stem,
then those of the run itself, in f32 (`rlpt.kernels.attention_block`). The gradient is made by tiles of queries and by
tiles of keys (`rlpt.kernels.tree_gradient`), so nothing is added up in an order that changes.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlpt.kernels.attention_block import begin, finish, meet_block, power_of_two
from rlpt.kernels.causal_attention import shape
from rlpt.kernels.tree_gradient import tree_gradient
from rlpt.kernels.tree_tiles import TILE, TreeTiles


@triton.jit(do_not_specialize=["length"])  # compiled once, whatever it is
def _tree_attention_kernel(
    query, key, value, out, log_sums, tiles, query_at, query_row, query_head, key_at, key_row, key_head, value_at,
    value_row, value_head, out_at, out_row, out_head, length, unit, scale, HEADS: tl.constexpr, ROWS: tl.constexpr,
    D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """query and out [T, B, H, D], key and value [T, B, G, D] by strides (at, row, head, 1); log_sums [B, H, T];
    HEADS of a group; tiles as `TreeTiles.queries`. Grid: (heads, tiles)."""
    head = tl.program_id(0)
    entry = tiles + tl.program_id(1) * 6
    row = tl.load(entry).to(tl.int64)
    stem, above = tl.load(entry + 1), tl.load(entry + 2)
    start, own, first = tl.load(entry + 3), tl.load(entry + 4), tl.load(entry + 5)
    group = head // HEADS
    at = first + tl.arange(0, ROWS)
    channel = tl.arange(0, D)
    column = (start + at).to(tl.int64)
    real = tl.broadcast_to(at[:, None] < own, (ROWS, D))
    place = query + row * query_row + head * query_head + channel[None, :]
    asked = tl.load(place + column[:, None] * query_at, mask=real, other=0.0)
    keys = key + row * key_row + group * key_head + channel[None, :]
    values = value + row * value_row + group * value_head + channel[None, :]
    end = above + tl.minimum(first + ROWS, own)
    full = (above + first + 1) // BLOCK * BLOCK  # positions that all of the tile see
    peak, total, mixed = begin(ROWS, D)
    for begin_at in range(0, full, BLOCK):
        position = begin_at + tl.arange(0, BLOCK)
        stands = tl.where(position < above, stem + position, start - above + position)[:, None].to(tl.int64)
        past, held = tl.load(keys + stands * key_at), tl.load(values + stands * value_at)
        peak, total, mixed = meet_block(asked, past, held, True, peak, total, mixed, unit, MASKED=False)
    for begin_at in range(full, end, BLOCK):
        position = begin_at + tl.arange(0, BLOCK)
        stands = tl.where(position < above, stem + position, start - above + position)[:, None].to(tl.int64)
        inside = tl.broadcast_to(position[:, None] < end, (BLOCK, D))
        past = tl.load(keys + stands * key_at, mask=inside, other=0.0)
        held = tl.load(values + stands * value_at, mask=inside, other=0.0)
        seen = position[None, :] <= tl.broadcast_to((above + at)[:, None], (ROWS, BLOCK))
        peak, total, mixed = meet_block(asked, past, held, seen, peak, total, mixed, unit, MASKED=True)
    whole, mixed = finish(total, mixed)
    place = out + row * out_row + head * out_head + channel[None, :]
    tl.store(place + column[:, None] * out_at, mixed.to(out.dtype.element_ty), mask=real)
    sums = log_sums + (row * tl.num_programs(0) + head) * length + column
    tl.store(sums, peak * scale + tl.log(whole), mask=at < own)


def attend(query: Tensor, key: Tensor, value: Tensor, tiles: TreeTiles, scale: float) -> tuple[Tensor, Tensor]:
    """query [T, B, H, d], key and value [T, B, G, d], channels side by side -> attention [T, B, H, d], 0 at positions
    of no run, and the logarithms of the sums of exponentials [B, H, T] f32, not defined there."""
    length, rows, heads, channels = query.shape
    assert query.stride(3) == key.stride(3) == value.stride(3) == 1
    new = torch.empty if tiles.covers_all else torch.zeros
    out = new(query.shape, dtype=query.dtype, device=query.device)
    log_sums = torch.empty(rows, heads, length, dtype=torch.float32, device=query.device)
    if len(tiles.queries):
        options = {**shape(channels, query.element_size()), "ROWS": TILE}
        strides = [one.stride(axis) for one in (query, key, value, out) for axis in range(3)]
        _tree_attention_kernel[(heads, len(tiles.queries))](
            query, key, value, out, log_sums, tiles.queries, *strides, length, power_of_two(scale), scale,
            HEADS=heads // key.shape[2], D=channels, **options,
        )  # fmt: skip
    return out, log_sums


class _TreeAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, tiles: TreeTiles, scale: float) -> Tensor:
        out, log_sums = attend(query, key, value, tiles, scale)
        ctx.save_for_backward(query, key, value, out, log_sums)
        ctx.tiles, ctx.scale = tiles, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, log_sums = ctx.saved_tensors
        return *tree_gradient(grad, query, key, value, out, log_sums, ctx.tiles, ctx.scale), None, None


def tree_attention(query: Tensor, key: Tensor, value: Tensor, tiles: TreeTiles, scale: float) -> Tensor:
    """query [T, B, H, d], key and value [T, B, G, d] -> [T, B, H, d]; 0 at positions of no run."""
    query, key, value = (one if one.stride(3) == 1 else one.contiguous() for one in (query, key, value))
    out: Tensor = _TreeAttention.apply(query, key, value, tiles, scale)
    return out
