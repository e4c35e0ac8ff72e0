"""Layers of ours for Megatron's ModuleSpec: RMSNorm that knows sequence parallelism, SwiGLU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.transformer.module import MegatronModule
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rlpt.kernels.hardware import on_gpu, suits_triton


class RMSNorm(nn.Module):
    """x / rms(x) * weight (Zhang and Sennrich 2019), computed in float32 or better; on a GPU by torch's one kernel."""

    def __init__(self, config: Any = None, hidden_size: int = 0, eps: float = 1e-5, **_: Any) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(hidden_size, dtype=config.params_dtype))
        # under sequence parallelism each tensor rank sees part of the tokens: Megatron sums such weights' gradients
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        if on_gpu(x):  # narrow types are widened inside the kernel
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        dtype = torch.promote_types(x.dtype, torch.float32)
        return F.rms_norm(x.to(dtype), self.weight.shape, self.weight.to(dtype), self.eps).to(x.dtype)


class SwiGLU(MegatronModule):
    """Shazeer's gated activation (2002.05202), in the place that Megatron's MLP has for a module of its own."""

    def forward(self, both: Tensor) -> Tensor:
        """[..., 2F] -> [..., F]."""
        return gated(both)


def gated(both: Tensor) -> Tensor:
    """both [..., 2F], a gate beside what it lets through -> silu(gate) * up [..., F]."""
    out: Tensor = _Gated.apply(both)
    return out


class _Gated(torch.autograd.Function):
    """Keeps its input alone and makes the gate again for the gradient, which goes straight to its place."""

    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        ctx.save_for_backward(both)
        if suits_triton(both):
            from rlpt.kernels.layers_triton import gated

            return gated(both)
        gate, up = both.chunk(2, -1)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (both,) = ctx.saved_tensors
        if suits_triton(both):
            from rlpt.kernels.layers_triton import gated_backward

            return gated_backward(both, grad)
        out = torch.empty_like(both)
        (gate, up), (of_gate, of_up) = both.chunk(2, -1), out.chunk(2, -1)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=of_gate)
        torch.mul(grad, F.silu(gate), out=of_up)
        return out
