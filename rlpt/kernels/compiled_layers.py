"""RMSNorm and SwiGLU by compiled code (layers.cpp), for float32 on a CPU: one pass over memory each way."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from rlpt.kernels.compiler import has_data, library, suits

_SOURCE = Path(__file__).with_name("layers.cpp")
_Pointer, _Long, _Double = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double


def can_compile(x: Tensor) -> bool:
    """Whether these take tensors like this one."""
    return suits(x, _SOURCE)


@lru_cache
def _library() -> ctypes.CDLL:
    found = library(_SOURCE)
    found.rlpt_normalized.argtypes = [_Pointer, _Pointer, _Double, _Long, _Long, _Pointer, _Pointer, _Long]
    found.rlpt_normalized_backward.argtypes = [*[_Pointer] * 4, _Long, _Long, _Pointer, _Pointer, _Long]
    found.rlpt_gated.argtypes = [_Pointer, _Long, _Long, _Pointer, _Long]
    found.rlpt_gated_backward.argtypes = [_Pointer, _Pointer, _Long, _Long, _Pointer, _Long]
    return found


def _run(name: str, *given: Tensor | float) -> None:
    """Nothing where tensors hold no data, as in a plan."""
    if all(has_data(one) for one in given if isinstance(one, Tensor)):
        places = (one.data_ptr() if isinstance(one, Tensor) else one for one in given)
        getattr(_library(), name)(*places)


def normalized(x: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """x [..., H] / rms * weight [H], and 1 / rms [...]."""
    x = x.contiguous()
    out, scale = torch.empty_like(x), x.new_empty(x.shape[:-1])
    _run("rlpt_normalized", x, weight, epsilon, scale.numel(), x.shape[-1], out, scale, torch.get_num_threads())
    return out, scale


def normalized_backward(x: Tensor, weight: Tensor, scale: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and weight from that of the result."""
    x, grad = x.contiguous(), grad.contiguous()
    of_x, of_weight = torch.empty_like(x), x.new_zeros(torch.get_num_threads(), x.shape[-1])
    sizes = (scale.numel(), x.shape[-1])
    _run("rlpt_normalized_backward", x, weight, scale, grad, *sizes, of_x, of_weight, len(of_weight))
    return of_x, of_weight.sum(0)


def gated(both: Tensor) -> Tensor:
    """both [..., 2F], a gate beside what it lets through -> silu(gate) * up [..., F]."""
    both = both.contiguous()
    out = both.new_empty(*both.shape[:-1], both.shape[-1] // 2)
    _run("rlpt_gated", both, out.numel() // out.shape[-1], out.shape[-1], out, torch.get_num_threads())
    return out


def gated_backward(both: Tensor, grad: Tensor) -> Tensor:
    """The gradient of `both` from that of its result."""
    both, grad = both.contiguous(), grad.contiguous()
    out, width = torch.empty_like(both), grad.shape[-1]
    _run("rlpt_gated_backward", both, grad, grad.numel() // width, width, out, torch.get_num_threads())
    return out
