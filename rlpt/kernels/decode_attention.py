"""A decode step's attention in one Triton kernel: turn the new token, store its key and value, read the slot's cache.

Shapes: n rows, G groups that share a key, h heads of a group, d channels (a power of two). A program owns one row's
group, so the cache is read once whatever h is, and only as far as the row's own length: rows of any lengths cost what
they hold. The softmax runs online over blocks of keys (Milakov and Gimelshein, 1805.02867), in f32, and comes out as
training's and a prompt's does to the last bit (`rlpt.kernels.attention_block`).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from rlpt.kernels.attention_block import begin, block_keys, finish, meet_block, power_of_two
from rlpt.kernels.layers_triton import turn

_LEAST = 16  # rows of a matrix product: queries beyond the group's own are zeros


@triton.jit
def _decode_attention_kernel(
    qkv, cos, sin, lengths, keys, values, out, slot_stride, group_stride, unit, GROUPS: tl.constexpr,
    HEADS: tl.constexpr, PADDED_HEADS: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid: (rows, groups). A row of negative length is left out: nothing is stored, its output is not defined."""
    row = tl.program_id(0)
    group = tl.program_id(1)
    length = tl.maximum(tl.load(lengths + row), 0)
    head = tl.arange(0, PADDED_HEADS)
    channel = tl.arange(0, D)
    place = row.to(tl.int64) * slot_stride + group * group_stride
    edge = length // BLOCK * BLOCK  # where the block begins that the new token ends
    turned = (channel + D // 2) % D
    real = (head[:, None] < HEADS) & (channel[None, :] < D)
    cosine = tl.load(cos + row * D + channel).to(tl.float32)
    sine = tl.load(sin + row * D + channel).to(tl.float32)
    own = qkv + (row.to(tl.int64) * GROUPS + group) * (HEADS + 2) * D
    query = tl.load(own + head[:, None] * D + channel[None, :], mask=real, other=0.0).to(tl.float32)
    other = tl.load(own + head[:, None] * D + turned[None, :], mask=real, other=0.0).to(tl.float32)
    kind = out.dtype.element_ty
    query = turn(query, other, cosine[None, :], sine[None, :]).to(kind)
    key = tl.load(own + HEADS * D + channel).to(tl.float32)
    key = turn(key, tl.load(own + HEADS * D + turned).to(tl.float32), cosine, sine).to(kind)
    value = tl.load(own + (HEADS + 1) * D + channel)
    new = place + length * D + channel
    live = tl.load(lengths + row + channel * 0) >= 0  # a vector: the interpreter takes no mask that mixes in a scalar
    tl.store(keys + new, key, mask=live)
    tl.store(values + new, value, mask=live)
    peak, total, mixed = begin(PADDED_HEADS, D)
    for start in range(0, edge, BLOCK):
        at = place + (start + tl.arange(0, BLOCK))[:, None] * D + channel[None, :]
        past, held = tl.load(keys + at), tl.load(values + at)
        peak, total, mixed = meet_block(query, past, held, True, peak, total, mixed, unit, MASKED=False)
    column = edge + tl.arange(0, BLOCK)
    at = place + column[:, None] * D + channel[None, :]
    before = tl.broadcast_to(column[:, None] < length, (BLOCK, D))
    last_keys = tl.load(keys + at, mask=before, other=0.0)
    last_values = tl.load(values + at, mask=before, other=0.0)
    is_new = tl.broadcast_to(column[:, None] == length, (BLOCK, D))
    last_keys = tl.where(is_new, tl.broadcast_to(key[None, :], (BLOCK, D)), last_keys)
    last_values = tl.where(is_new, tl.broadcast_to(value[None, :], (BLOCK, D)), last_values)
    seen = tl.broadcast_to(column[None, :] <= length, (PADDED_HEADS, BLOCK))
    peak, total, mixed = meet_block(query, last_keys, last_values, seen, peak, total, mixed, unit, MASKED=True)
    _, mixed = finish(total, mixed)
    result = out + (row.to(tl.int64) * GROUPS + group) * HEADS * D
    tl.store(result + head[:, None] * D + channel[None, :], mixed.to(kind), mask=real)


def shape(channels: int, width: int) -> dict[str, int]:
    """Of a program: the keys of a block, by channels and bytes of each, and how it runs."""
    is_large = channels * width > 256
    return {"BLOCK": block_keys(channels, width), "num_warps": 8 if is_large else 4, "num_stages": 2 if is_large else 3}


def attend_and_store(
    qkv: Tensor, turn: tuple[Tensor, Tensor], lengths: Tensor, keys: Tensor, values: Tensor, scale: float
) -> Tensor:
    """qkv [n, G, h + 2, d] of n new tokens (a group's queries, its key, its value), not turned -> [n, G * h * d].

    `turn`: cos and sin [n, ..., d] of each row's position, the sign of the rotation by halves in the sine. `lengths`
    [n] i64: tokens that stand in the slot before; the new key and value go to that column. `keys`, `values` [slots,
    G, capacity, d]: rows are the first n slots, and columns and channels lie side by side. A negative length leaves
    its row out.
    """
    rows, groups, width, channels = qkv.shape
    heads = width - 2
    padded = max(_LEAST, triton.next_power_of_2(heads))
    cos, sin = (one.reshape(rows, channels).contiguous() for one in turn)
    out = torch.empty(rows, groups * heads * channels, dtype=qkv.dtype, device=qkv.device)
    _decode_attention_kernel[(rows, groups)](
        qkv.contiguous(), cos, sin, lengths, keys, values, out, keys.stride(0), keys.stride(1), power_of_two(scale),
        GROUPS=groups, HEADS=heads, PADDED_HEADS=padded, D=channels, **shape(channels, qkv.element_size()),
    )  # fmt: skip
    return out
