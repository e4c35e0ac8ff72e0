"""Worker of the tests of a layer's Triton kernels: runs every check in Triton's interpreter and writes {name: error}.

Started as `TRITON_INTERPRET=1 python interpreted_layers.py OUT`; not a test module itself.
"""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from helpers.interpreter import write_errors

from rlpt.kernels.causal_attention import causal_attention
from rlpt.kernels.decode_attention import attend_and_store
from rlpt.kernels.layers_triton import (
    added_and_normalized,
    gated,
    gated_backward,
    normalized,
    normalized_backward,
    turned,
)


def largest(*pairs: tuple[torch.Tensor, torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in pairs)


def gate(rows: int, width: int) -> float:
    both = torch.randn(2, rows, 2 * width, requires_grad=True)
    grad = torch.randn(2, rows, width)
    expected = F.silu(both[..., :width]) * both[..., width:]
    (slope,) = torch.autograd.grad(expected, both, grad)
    return largest((gated(both.detach()), expected), (gated_backward(both.detach(), grad), slope))


def norm(shape: tuple[int, ...]) -> float:
    x, weight = torch.randn(shape, requires_grad=True), torch.randn(shape[-1], requires_grad=True)
    grad = torch.randn(shape)
    expected = F.rms_norm(x, shape[-1:], weight, 1e-5)
    slopes = torch.autograd.grad(expected, (x, weight), grad)
    out, scale = normalized(x.detach(), weight.detach(), 1e-5)
    found = normalized_backward(x.detach(), weight.detach(), scale, grad)
    return largest((out, expected), *zip(found, slopes, strict=True))


def add_and_norm(shape: tuple[int, ...]) -> float:
    x, more, weight = torch.randn(shape), torch.randn(shape), torch.randn(shape[-1])
    total, out = added_and_normalized(x, more, weight, 1e-5)
    return largest((total, x + more), (out, F.rms_norm(x + more, shape[-1:], weight, 1e-5)))


def turn(sign: int) -> float:
    x = torch.randn(5, 3, 4, 48)[..., 8:32]  # heads in a wider row, as queries and keys stand
    angles = (torch.rand(5, 1, 1, 12) * 6).expand(-1, 3, -1, -1)
    first, second = x.chunk(2, -1)
    cos, sin = angles.cos(), angles.sin()
    cos, sin = cos[:, :1].expand(-1, 3, -1, -1), sin[:, :1].expand(-1, 3, -1, -1)
    expected = torch.cat([first * cos + sign * second * sin, second * cos - sign * first * sin], -1)
    return largest((turned(x, cos, sin, sign), expected))


def attention(groups: int, heads: int, channels: int, capacity: int, dtype: torch.dtype = torch.float32) -> float:
    """Rows without a past, with a short and a full one; a last one that is left out. Outputs and both caches."""
    slots, lengths = 7, torch.tensor([0, 3, capacity - 1, 17, -1])
    live = len(lengths) - 1
    qkv = torch.randn(len(lengths), groups, heads + 2, channels).to(dtype)
    keys, values = (torch.randn(slots, groups, capacity, channels).to(dtype) for _ in range(2))
    angles = torch.rand(len(lengths), channels // 2) * 6
    cos = torch.cat([angles.cos()] * 2, -1)[:, None, None]
    sin = torch.cat([-angles.sin(), angles.sin()], -1)[:, None, None]
    own_keys, own_values = keys.float(), values.float()
    out = attend_and_store(qkv, (cos.to(dtype), sin.to(dtype)), lengths, keys, values, channels**-0.5)
    wide = qkv[:live].float()
    rotated = wide[:, :, :-1] * cos[:live] + wide[:, :, :-1].roll(channels // 2, -1) * sin[:live]
    at = torch.arange(live)
    own_keys[at, :, lengths[:live]], own_values[at, :, lengths[:live]] = rotated[:, :, -1], wide[:, :, -1]
    allowed = (torch.arange(capacity) <= lengths[:live, None])[:, None, None]
    expected = F.scaled_dot_product_attention(
        rotated[:, :, :-1], own_keys[:live], own_values[:live], attn_mask=allowed, scale=channels**-0.5
    )
    return largest((out[:live].float(), expected.reshape(live, -1)), (keys, own_keys), (values, own_values))


def texts(groups: int, heads: int, channels: int, count: int, starts: tuple[int, ...] = ()) -> float:
    """Whole texts, or the end of some whose beginning is known."""
    columns = count + max(starts, default=0)
    rows = len(starts) or 2
    query = torch.randn(count, rows, groups * heads, channels).transpose(0, 1)
    key, value = torch.randn(2, rows, groups, columns, channels).transpose(2, 3)
    first = torch.tensor(starts or (0,) * rows)
    seen = torch.arange(columns) <= (first[:, None] + torch.arange(count))[..., None]
    scores = torch.einsum("bthd,bshd->bhts", query, key.repeat_interleave(heads, 2)) * channels**-0.5
    scores = scores.masked_fill(~seen[:, None], -torch.inf)
    expected = torch.einsum("bhts,bshd->bthd", scores.softmax(-1), value.repeat_interleave(heads, 2))
    out = causal_attention(query, key, value, channels**-0.5, first if starts else None)
    return largest((out, expected))


def steps(groups: int, heads: int, channels: int) -> float:
    """The share of numbers in which a decode step is not a whole text's row. Blocks, their order and all roundings are
    the same; the interpreter's products alone may add up in another order."""
    count, scale, dtype = 200, channels**-0.5, torch.float16
    query = torch.randn(1, count, groups * heads, channels).to(dtype)
    key, value = torch.randn(2, 1, count, groups, channels).to(dtype)
    out = causal_attention(query, key, value, scale)
    turn = torch.ones(1, channels, dtype=dtype), torch.zeros(1, channels, dtype=dtype)
    differ = []
    for length in (0, 1, 127, 128, 199):
        own = [key[:, length, :, None], value[:, length, :, None]]
        qkv = torch.cat([query[:, length].view(1, groups, heads, channels), *own], 2)
        caches = (x.transpose(1, 2).contiguous() for x in (key, value))
        found = attend_and_store(qkv, turn, torch.tensor([length]), *caches, scale)
        differ.append(found.view_as(out[:, length]) != out[:, length])
    return float(torch.stack(differ).float().mean())


CHECKS = {
    "gate of odd width": (lambda: gate(3, 7), 1e-5),
    "gate in several blocks": (lambda: gate(2, 1500), 1e-5),
    "norm of odd width": (lambda: norm((3, 7, 40)), 1e-5),
    "norm with more rows than programs": (lambda: norm((1030, 16)), 2e-4),  # of sums over 1,030 rows
    "norm of a sum": (lambda: add_and_norm((3, 7, 40)), 1e-5),
    "turn": (lambda: turn(-1), 1e-5),
    "turn back": (lambda: turn(1), 1e-5),
    "attention, a head a key": (lambda: attention(2, 1, 64, 40), 1e-5),
    "attention, three heads a key, several blocks": (lambda: attention(2, 3, 16, 300), 1e-5),
    "attention, eight heads a key": (lambda: attention(1, 8, 32, 70), 1e-5),
    "texts of several blocks": (lambda: texts(2, 1, 64, 300), 1e-5),
    "a short text, three heads a key": (lambda: texts(1, 3, 16, 20), 1e-5),
    "texts whose beginnings are known": (lambda: texts(2, 2, 32, 70, (130, 0, 57)), 1e-5),
    "texts of many channels": (lambda: texts(1, 1, 256, 70), 1e-5),
    "steps, a head a key": (lambda: steps(2, 1, 32), 0.01),
    "steps, three heads a key": (lambda: steps(1, 3, 16), 0.01),
    "attention in half precision": (lambda: attention(2, 1, 64, 40, torch.float16), 2e-2),
}


if __name__ == "__main__":
    write_errors(CHECKS, sys.argv[1])
