"""What tensors lie on, and what can be done with them there."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor


def on_gpu(tensor: Tensor) -> bool:
    """Whether it lies on a GPU."""
    return tensor.is_cuda


def suits_triton(weight: Tensor) -> bool:
    """Whether the Triton kernels take tensors like this one: on a GPU, not f64, and Triton is installed."""
    return weight.is_cuda and weight.dtype != torch.float64 and find_spec("triton") is not None


def wide_product(
    left: Tensor, right: Tensor, onto: Tensor | None = None, factor: float = 1.0, into: Tensor | None = None
) -> Tensor:
    """factor (onto + left @ right) in f32 (f64 for f64), in place of `onto` where that is given, else written to `into`
    or new: narrow inputs with wide sums where the device's library has that, else widened."""
    wide = torch.float64 if left.dtype == torch.float64 else torch.float32
    beta, out = (0.0, into) if onto is None else (factor, onto)
    if out is None:
        out = left.new_empty(left.shape[0], right.shape[1], dtype=wide)
    if left.dtype.itemsize < 4 and left.is_cuda and "dtype_out" in torch.ops.aten.addmm.overloads():
        if onto is None and factor == 1:  # by kernels that don't read what they write
            return torch.mm(left, right, out_dtype=wide, out=out)
        return torch.addmm(out, left, right, out_dtype=wide, beta=beta, alpha=factor, out=out)
    return out.addmm_(left.to(wide), right.to(wide), beta=beta, alpha=factor)


def product(left: Tensor, right: Tensor, factor: float = 1.0) -> Tensor:
    """factor (left @ right) in their own dtype, rounded once."""
    out = left.new_empty(left.shape[0], right.shape[1])
    return out.addmm_(left, right, beta=0.0, alpha=factor)
