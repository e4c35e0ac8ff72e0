"""What tensors lie on, and what can be done with them there."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor


def on_gpu(tensor: Tensor) -> bool:
    """Whether it lies on a GPU."""
    return tensor.is_cuda


def suits_triton(weight: Tensor) -> bool:
    """Whether the Triton kernels take tensors like this one: on a GPU, not f64, and Triton is installed."""
    return weight.is_cuda and weight.dtype != torch.float64 and find_spec("triton") is not None


def can_be_same(tensor: Tensor, channels: int) -> bool:
    """Whether training, prompts and decode steps attend by kernels that are the same to the last bit: of two bytes a
    number, on a GPU. In full f32 the library's is quicker, and rounding no concern."""
    if tensor.dtype.itemsize != 2 or not suits_triton(tensor):
        return False
    from rlpt.kernels.attention_block import can_attend

    return can_attend(channels)


@cache
def _sums_wide() -> bool:
    """Whether torch's products of narrow inputs can have wide results."""
    return "dtype_out" in torch.ops.aten.addmm.overloads()


def wide_product(
    left: Tensor, right: Tensor, onto: Tensor | None = None, factor: float = 1.0, into: Tensor | None = None
) -> Tensor:
    """factor (onto + left @ right) in f32 (f64 for f64), in place of `onto` where that is given, else written to `into`
    or new: narrow inputs with wide sums where the device's library has that, else widened."""
    wide = torch.float64 if left.dtype == torch.float64 else torch.float32
    is_mixed = left.dtype.itemsize < 4 and left.is_cuda and _sums_wide()
    if not is_mixed:
        left, right = left.to(wide), right.to(wide)
    mixed: dict[str, Any] = {"out_dtype": wide} if is_mixed else {}
    if onto is None and factor == 1:  # by kernels that don't read what they write
        return torch.mm(left, right, **mixed, out=into) if into is not None else torch.mm(left, right, **mixed)
    beta, out = (0.0, into) if onto is None else (factor, onto)
    if out is None:
        out = left.new_empty(left.shape[0], right.shape[1], dtype=wide)
    return torch.addmm(out, left, right, **mixed, beta=beta, alpha=factor, out=out)


def product(left: Tensor, right: Tensor, factor: float = 1.0) -> Tensor:
    """factor (left @ right) in their own dtype, rounded once."""
    if factor == 1:
        return torch.mm(left, right)
    out = left.new_empty(left.shape[0], right.shape[1])
    return out.addmm_(left, right, beta=0.0, alpha=factor)
