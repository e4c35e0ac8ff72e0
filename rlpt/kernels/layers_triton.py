"""Parts of a layer between its products as Triton kernels: RMSNorm, the gated activation, the rotary turn.

Each is one pass over memory. The torch forms (`rlpt.models.layers`, `rlpt.models.attention`), which make four to six,
are the reference. Arithmetic is f32, results are rounded once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024  # elements of a program
_PROGRAMS = 1024  # that share the rows of a norm's gradient: several a multiprocessor


@triton.jit
def _gate_kernel(both, out, width, BLOCK: tl.constexpr):
    """both [n, 2 width]: gate beside up -> silu(gate) * up. Grid: (rows, blocks)."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    gate = tl.load(both + row * 2 * width + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(both + row * 2 * width + width + at, mask=inside, other=0.0).to(tl.float32)
    result = gate / (1 + tl.exp(-gate)) * up
    tl.store(out + row * width + at, result.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _gate_backward_kernel(both, grad, out, width, BLOCK: tl.constexpr):
    """out [n, 2 width]. Grid: (rows, blocks)."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    gate = tl.load(both + row * 2 * width + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(both + row * 2 * width + width + at, mask=inside, other=0.0).to(tl.float32)
    slope = tl.load(grad + row * width + at, mask=inside, other=0.0).to(tl.float32)
    sigmoid = 1 / (1 + tl.exp(-gate))
    kind = out.dtype.element_ty
    of_gate = slope * up * sigmoid * (1 + gate * (1 - sigmoid))
    tl.store(out + row * 2 * width + at, of_gate.to(kind), mask=inside)
    tl.store(out + row * 2 * width + width + at, (slope * gate * sigmoid).to(kind), mask=inside)


@triton.jit
def turn(x, other, cosine, sine):
    """x cos + other sin, with one rounding order wherever it stands: sampler and trainer turn alike to the last bit."""
    return tl.fma(x, tl.broadcast_to(cosine, x.shape), other * tl.broadcast_to(sine, x.shape))


@triton.jit
def _turn_kernel(
    x, cos, sin, out, sign, step, row, head, angle_step, angle_row, HEADS: tl.constexpr, PADDED: tl.constexpr,
    HALF: tl.constexpr, PADDED_HALF: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """x [T, B, heads, 2 half] by strides (step, row, head, 1) -> out, contiguous; angles [T, B, 1, half] by strides
    (angle_step, angle_row, ., 1). Grid: (T * B)."""
    place = tl.program_id(0).to(tl.int64)
    heads = tl.arange(0, PADDED)[:, None]
    at = tl.arange(0, PADDED_HALF)[None, :]
    inside = (heads < HEADS) & (at < HALF)
    angle = tl.arange(0, PADDED_HALF)
    angle_place = (place // ROWS) * angle_step + (place % ROWS) * angle_row
    cosine = tl.load(cos + angle_place + angle, mask=angle < HALF, other=0.0).to(tl.float32)[None, :]
    sine = tl.load(sin + angle_place + angle, mask=angle < HALF, other=0.0).to(tl.float32)[None, :] * sign
    start = x + (place // ROWS) * step + (place % ROWS) * row + heads * head + at
    first = tl.load(start, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(start + HALF, mask=inside, other=0.0).to(tl.float32)
    end = out + place * HEADS * 2 * HALF + heads * 2 * HALF + at
    kind = out.dtype.element_ty
    tl.store(end, turn(first, second, cosine, sine).to(kind), mask=inside)
    tl.store(end + HALF, turn(second, first, cosine, -sine).to(kind), mask=inside)


@triton.jit
def _norm_kernel(x, weight, out, scale, width, epsilon, BLOCK: tl.constexpr):
    """x [n, width] -> out in the weight's type, and scale [n] f32: 1 / rms. Grid: (rows)."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    value = tl.load(x + row * width + at, mask=inside, other=0.0).to(tl.float32)
    inverse = 1 / tl.sqrt(tl.sum(value * value, 0) / width + epsilon)
    tl.store(scale + row, inverse)
    gain = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * width + at, (value * inverse * gain).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _add_norm_kernel(x, more, weight, total, out, width, epsilon, BLOCK: tl.constexpr):
    """total [n, width] = x + more as x, and out, its norm, in the weight's type. Grid: (rows)."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    value = tl.load(x + row * width + at, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(more + row * width + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(total + row * width + at, value.to(total.dtype.element_ty), mask=inside)
    inverse = 1 / tl.sqrt(tl.sum(value * value, 0) / width + epsilon)
    gain = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * width + at, (value * inverse * gain).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _norm_backward_kernel(x, weight, scale, grad, out, parts, rows, width, each, BLOCK: tl.constexpr):
    """out [n, width] as x; parts [programs, width] f32: the weight's gradient from `each` rows. Grid: (programs)."""
    program = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    gain = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    first = program * each
    for row in range(first, tl.minimum(first + each, rows)):
        inverse = tl.load(scale + row)
        normal = tl.load(x + row * width + at, mask=inside, other=0.0).to(tl.float32) * inverse
        slope = tl.load(grad + row * width + at, mask=inside, other=0.0).to(tl.float32)
        total += slope * normal
        slope = slope * gain
        along = tl.sum(slope * normal, 0) / width
        result = (slope - normal * along) * inverse
        tl.store(out + row * width + at, result.to(out.dtype.element_ty), mask=inside)
    tl.store(parts + program * width + at, total, mask=inside)


def _shape(width: int) -> dict[str, int]:
    """A row in one program, 8 elements of it a thread."""
    block = triton.next_power_of_2(width)
    return {"BLOCK": block, "num_warps": min(32, max(4, block // 256))}


def normalized(x: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """x [..., H] / rms * weight [H] in the weight's type, and 1 / rms [...] f32."""
    x = x.contiguous()
    width = x.shape[-1]
    out = torch.empty(x.shape, dtype=weight.dtype, device=x.device)
    scale = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    if x.numel():
        _norm_kernel[(scale.numel(),)](x, weight, out, scale, width, epsilon, **_shape(width))
    return out, scale


def added_and_normalized(x: Tensor, more: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """x + more [..., H] as x, which is f32, and that by its rms and times weight [H], in the weight's type."""
    x, more = x.contiguous(), more.contiguous()
    total, out = torch.empty_like(x), torch.empty(x.shape, dtype=weight.dtype, device=x.device)
    if x.numel():
        width = x.shape[-1]
        _add_norm_kernel[(x.numel() // width,)](x, more, weight, total, out, width, epsilon, **_shape(width))
    return total, out


def normalized_backward(x: Tensor, weight: Tensor, scale: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and weight from that of the result."""
    x, grad = x.contiguous(), grad.contiguous()
    width, rows = x.shape[-1], scale.numel()
    programs = max(1, min(_PROGRAMS, rows))
    out, parts = torch.empty_like(x), torch.zeros(programs, width, dtype=torch.float32, device=x.device)
    if rows:
        _norm_backward_kernel[(programs,)](
            x, weight, scale, grad, out, parts, rows, width, triton.cdiv(rows, programs),
            **_shape(width),
        )  # fmt: skip
    return out, parts.sum(0).to(weight.dtype)


def gated(both: Tensor) -> Tensor:
    """both [..., 2F] -> silu of its first half times its second [..., F]."""
    both = both.contiguous()
    rows, width = both.numel() // both.shape[-1], both.shape[-1] // 2
    out = both.new_empty(*both.shape[:-1], width)
    _gate_kernel[(rows, triton.cdiv(width, _BLOCK))](both, out, width, BLOCK=_BLOCK)
    return out


def gated_backward(both: Tensor, grad: Tensor) -> Tensor:
    """The gradient of `both` from that of its result."""
    both, grad = both.contiguous(), grad.contiguous()
    rows, width = grad.numel() // grad.shape[-1], grad.shape[-1]
    out = torch.empty_like(both)
    _gate_backward_kernel[(rows, triton.cdiv(width, _BLOCK))](both, grad, out, width, BLOCK=_BLOCK)
    return out


def turned(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    """x [T, B, heads, d] -> first cos + sign second sin and second cos - sign first sin, by its halves; cos and sin
    [T, B, 1, d / 2], with the same strides."""
    length, rows, heads, channels = x.shape
    assert cos.stride() == sin.stride()
    assert cos.stride(3) == 1
    if x.stride(3) != 1:
        x = x.contiguous()
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    half = channels // 2
    _turn_kernel[(length * rows,)](
        x, cos, sin, out, sign, x.stride(0), x.stride(1), x.stride(2), cos.stride(0), cos.stride(1), HEADS=heads,
        PADDED=triton.next_power_of_2(heads), HALF=half, PADDED_HALF=triton.next_power_of_2(half), ROWS=rows,
    )  # fmt: skip
    return out
