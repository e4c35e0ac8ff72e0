"""A decode step's attention in one Triton kernel: turn the new token, store its key and value, read the slot's cache.

Shapes: n rows, G groups that share a key, h heads of a group, d channels (a power of two). A program owns one row's
group, so the cache is read once whatever h is, and only as far as the row's own length: rows of any lengths cost what
they hold. The softmax runs online over blocks of keys (Milakov and Gimelshein, 1805.02867), in f32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK_BYTES = 8192  # of keys that a program holds at a time
_MOST = 128  # keys at a time
_LEAST = 16  # rows of a matrix product: queries beyond the group's own are zeros


@triton.jit
def _decode_attention_kernel(
    qkv, cos, sin, lengths, keys, values, out, slot_stride, group_stride, scale, GROUPS: tl.constexpr,
    HEADS: tl.constexpr, PADDED_HEADS: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid: (rows, groups). A row of negative length is left out: nothing is stored, its output is not defined."""
    row = tl.program_id(0)
    group = tl.program_id(1)
    length = tl.load(lengths + row)
    head = tl.arange(0, PADDED_HEADS)
    channel = tl.arange(0, D)
    turned = (channel + D // 2) % D
    real = (head[:, None] < HEADS) & (channel[None, :] < D)
    cosine = tl.load(cos + row * D + channel).to(tl.float32)
    sine = tl.load(sin + row * D + channel).to(tl.float32)
    own = qkv + (row.to(tl.int64) * GROUPS + group) * (HEADS + 2) * D
    query = tl.load(own + head[:, None] * D + channel[None, :], mask=real, other=0.0).to(tl.float32)
    other = tl.load(own + head[:, None] * D + turned[None, :], mask=real, other=0.0).to(tl.float32)
    kind = out.dtype.element_ty
    query = (query * cosine[None, :] + other * sine[None, :]).to(kind).to(tl.float32)
    key = tl.load(own + HEADS * D + channel).to(tl.float32)
    key = (key * cosine + tl.load(own + HEADS * D + turned).to(tl.float32) * sine).to(kind)
    value = tl.load(own + (HEADS + 1) * D + channel)
    place = row.to(tl.int64) * slot_stride + group * group_stride
    new = place + length * D + channel
    live = tl.load(lengths + row + channel * 0) >= 0  # a vector: the interpreter takes no mask that mixes in a scalar
    tl.store(keys + new, key, mask=live)
    tl.store(values + new, value, mask=live)
    peak = tl.sum(query * key.to(tl.float32)[None, :], 1) * scale
    total = tl.full((PADDED_HEADS,), 1.0, dtype=tl.float32)
    mixed = tl.zeros((PADDED_HEADS, D), dtype=tl.float32) + value.to(tl.float32)[None, :]
    query = query.to(kind)
    for begin in range(0, length, BLOCK):
        column = begin + tl.arange(0, BLOCK)
        at = place + column[:, None] * D + channel[None, :]
        inside = tl.broadcast_to(column[:, None] < length, (BLOCK, D))
        past = tl.load(keys + at, mask=inside, other=0.0)
        held = tl.load(values + at, mask=inside, other=0.0)
        scores = tl.dot(query, tl.trans(past), input_precision="ieee") * scale
        scores = tl.where(tl.broadcast_to(column[None, :] < length, (PADDED_HEADS, BLOCK)), scores, float("-inf"))
        top = tl.maximum(peak, tl.max(scores, 1))
        weight = tl.exp(scores - top[:, None])
        keep = tl.exp(peak - top)
        total = total * keep + tl.sum(weight, 1)
        mixed = mixed * keep[:, None] + tl.dot(weight.to(kind), held, input_precision="ieee")
        peak = top
    result = out + (row.to(tl.int64) * GROUPS + group) * HEADS * D
    tl.store(result + head[:, None] * D + channel[None, :], (mixed / total[:, None]).to(kind), mask=real)


def can_attend(head_size: int) -> bool:
    """Whether the kernel has this number of channels."""
    return head_size >= 16 and head_size & (head_size - 1) == 0


def block_keys(head_size: int, width: int) -> int:
    """Keys that a program reads at a time, by channels and bytes of each."""
    return min(_MOST, max(_LEAST, _BLOCK_BYTES // (head_size * width)))


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
    block = block_keys(channels, qkv.element_size())
    cos, sin = (one.reshape(rows, channels).contiguous() for one in turn)
    out = torch.empty(rows, groups * heads * channels, dtype=qkv.dtype, device=qkv.device)
    _decode_attention_kernel[(rows, groups)](
        qkv.contiguous(), cos, sin, lengths, keys, values, out, keys.stride(0), keys.stride(1), scale, GROUPS=groups,
        HEADS=heads, PADDED_HEADS=padded, D=channels, BLOCK=block, num_warps=4, num_stages=3,
    )  # fmt: skip
    return out
