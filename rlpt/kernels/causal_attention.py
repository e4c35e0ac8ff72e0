"""Causal attention of whole texts in Triton, whose rows are those of a decode step to the last bit.

Shapes: B rows, T queries, S keys, H heads, G groups of them that share a key, d channels (a power of two). A program
owns a tile of one head's queries (Dao 2307.08691) and meets the keys before them block by block, in f32
(`rlpt.kernels.attention_block`). It reads prompts.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from rlpt.kernels.attention_block import begin, block_keys, finish, meet_block, power_of_two

_ROWS = 64  # queries of a program


@triton.jit(do_not_specialize=["count", "columns"])  # compiled once, whatever they are
def _causal_attention_kernel(
    query, key, value, out, starts, query_row, query_at, query_head, key_row, key_at, key_head, value_row,
    value_at, value_head, out_row, out_at, out_head, count, columns, unit, HEADS: tl.constexpr,
    STARTS: tl.constexpr, ROWS: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """query [B, count, H, D], key and value [B, columns, G, D], out as query, all by strides (row, at, head, 1);
    HEADS of a group; query i of row b stands at column starts[b] + i (without STARTS: i).
    Grid: (tiles of queries, heads, rows)."""
    tile = tl.num_programs(0) - 1 - tl.program_id(0)  # the longest first
    head = tl.program_id(1)
    row = tl.program_id(2).to(tl.int64)
    group = head // HEADS
    first = tile * ROWS
    at = first + tl.arange(0, ROWS)
    channel = tl.arange(0, D)
    start = tl.load(starts + row).to(tl.int32) if STARTS else 0
    position = start + at
    real = tl.broadcast_to(at[:, None] < count, (ROWS, D))
    own = query + row * query_row + first.to(tl.int64) * query_at + head * query_head
    within = tl.arange(0, ROWS)[:, None]
    asked = tl.load(own + within * query_at + channel[None, :], mask=real, other=0.0)
    keys = key + row * key_row + group * key_head + channel[None, :]
    values = value + row * value_row + group * value_head + channel[None, :]
    end = tl.minimum(start + tl.minimum(first + ROWS, count), columns)
    full = tl.minimum(start + first + 1, columns) // BLOCK * BLOCK  # columns that all of the tile see
    peak, total, mixed = begin(ROWS, D)
    for begin_at in range(0, full, BLOCK):
        column = (begin_at + tl.arange(0, BLOCK))[:, None].to(tl.int64)
        past, held = tl.load(keys + column * key_at), tl.load(values + column * value_at)
        peak, total, mixed = meet_block(asked, past, held, True, peak, total, mixed, unit, MASKED=False)
    for begin_at in range(full, end, BLOCK):
        column = begin_at + tl.arange(0, BLOCK)
        inside = tl.broadcast_to(column[:, None] < columns, (BLOCK, D))
        wide = column[:, None].to(tl.int64)
        past = tl.load(keys + wide * key_at, mask=inside, other=0.0)
        held = tl.load(values + wide * value_at, mask=inside, other=0.0)
        seen = column[None, :] <= tl.broadcast_to(position[:, None], (ROWS, BLOCK))
        peak, total, mixed = meet_block(asked, past, held, seen, peak, total, mixed, unit, MASKED=True)
    _, mixed = finish(total, mixed)
    place = out + row * out_row + first.to(tl.int64) * out_at + head * out_head
    tl.store(place + within * out_at + channel[None, :], mixed.to(out.dtype.element_ty), mask=real)


def shape(channels: int, width: int) -> dict[str, int]:
    """Of a program: the queries of a tile, the keys of a block and how it runs."""
    warps, stages = (4 if channels <= 128 else 8), (3 if channels <= 64 else 2)
    return {"ROWS": _ROWS, "BLOCK": block_keys(channels, width), "num_warps": warps, "num_stages": stages}


def causal_attention(query: Tensor, key: Tensor, value: Tensor, scale: float, starts: Tensor | None = None) -> Tensor:
    """query [B, T, H, d], key and value [B, S, G, d], channels side by side -> attention as query.

    Row b's query i stands at column starts[b] + i (None: i) and sees the columns up to it, of which there are S. What
    a query beyond them gives is not defined.
    """
    rows, count, heads, channels = query.shape
    assert query.stride(3) == key.stride(3) == value.stride(3) == 1
    out = torch.empty_like(query)
    if not query.numel():
        return out
    starts = None if starts is None else starts.contiguous()
    options = shape(channels, query.element_size())
    strides = [one.stride(axis) for one in (query, key, value, out) for axis in range(3)]
    _causal_attention_kernel[(triton.cdiv(count, options["ROWS"]), heads, rows)](
        query, key, value, out, starts, *strides, count, key.shape[1], power_of_two(scale),
        HEADS=heads // key.shape[2], STARTS=starts is not None, D=channels, **options,
    )  # fmt: skip
    return out
