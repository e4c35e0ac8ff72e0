"""What attention in Triton does with a block of keys: the same to the last bit in training, prompts and decode steps.

A sampler and a trainer that differ in the last bit of a float32 sum differ in the rounding of a few bfloat16 values,
and each layer's roundings spread that: after a dozen layers their errors are as good as independent. Products of
matrices add up in one order whatever the number of rows is, by cuBLAS and by `tl.dot` on compute capability 9.0 alike,
and norms and gates are the same kernels, so attention alone has to take care:

* blocks begin at multiples of `block_keys` from a text's first token on, and are met in that order, so that the running
  maximum, against which exponentials are rounded, is the same;
* the exponentials are added up by a product as well, rounded as they meet the values: no order of a reduction;
* a block of which a query sees nothing changes nothing: scale 1, sums of 0.
"""

from __future__ import annotations

import triton
import triton.language as tl

_BLOCK_BYTES = {2: 16384, 4: 8192}  # of keys that a program holds at a time, by bytes of a number
_MOST, _LEAST = 64, 16  # keys at a time
_LOG2_E = 1.4426950408889634


@triton.jit
def meet_block(query, keys, values, seen, peak, total, mixed, unit, MASKED: tl.constexpr):
    """query [m, D], keys and values [n, D], seen [m, n] (with MASKED) -> peak [m], total [m, 16] and mixed [m, D] with
    this block, all f32: the largest score, and sums of the exponentials below it and of them times the values. `unit`
    is what makes a score a power of two."""
    scores = tl.dot(query, tl.trans(keys), input_precision="ieee")
    if MASKED:
        scores = tl.where(seen, scores, float("-inf"))
    top = tl.maximum(peak, tl.max(scores, 1))
    lowered = tl.broadcast_to((-(top * unit))[:, None], scores.shape)
    weight = tl.exp2(tl.fma(scores, tl.full(scores.shape, unit, tl.float32), lowered)).to(values.dtype)
    keep = tl.exp2((peak - top) * unit)[:, None]
    ones = tl.full((keys.shape[0], 16), 1.0, values.dtype)
    total = tl.dot(weight, ones, total * keep, input_precision="ieee")
    mixed = tl.dot(weight, values, mixed * keep, input_precision="ieee")
    return top, total, mixed


@triton.jit
def begin(ROWS: tl.constexpr, D: tl.constexpr):
    """peak, total and mixed before the first block."""
    peak = tl.full((ROWS,), float("-inf"), tl.float32)
    return peak, tl.zeros((ROWS, 16), tl.float32), tl.zeros((ROWS, D), tl.float32)


@triton.jit
def finish(total, mixed):
    """The sum of the exponentials [m] (each of its columns is), and attention [m, D]."""
    whole = tl.max(total, 1)
    return whole, mixed / whole[:, None]


def can_attend(head_size: int) -> bool:
    """Whether the kernels have this number of channels."""
    return 16 <= head_size <= 256 and head_size & (head_size - 1) == 0


def block_keys(head_size: int, width: int) -> int:
    """Keys of a block, by channels and bytes of each."""
    return min(_MOST, max(_LEAST, _BLOCK_BYTES[width] // (head_size * width)))


def power_of_two(scale: float) -> float:
    """A score's factor in the exponent of 2."""
    return scale * _LOG2_E
