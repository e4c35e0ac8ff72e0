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


def wide_product(left: Tensor, right: Tensor, onto: Tensor | None = None) -> Tensor:
    """left @ right in f32 (f64 for f64), added to `onto` in place where that is given: narrow inputs with wide sums
    where the device's library has that, else widened."""
    if left.dtype.itemsize < 4 and left.is_cuda and "dtype_out" in torch.ops.aten.addmm.overloads():
        if onto is None:
            return torch.mm(left, right, out_dtype=torch.float32)
        return torch.addmm(onto, left, right, out_dtype=torch.float32, out=onto)
    wide = torch.promote_types(left.dtype, torch.float32)
    left, right = left.to(wide), right.to(wide)
    return torch.mm(left, right) if onto is None else onto.addmm_(left, right)
