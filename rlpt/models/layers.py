"""Layers of ours for Megatron's ModuleSpec: RMSNorm that knows sequence parallelism, SwiGLU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.transformer.module import MegatronModule
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rlpt.kernels import compiled_layers
from rlpt.kernels.hardware import on_gpu, suits_triton

_WIDEST_NORM = 4096  # channels that one program of the Triton kernel holds


class RMSNorm(nn.Module):
    """x / rms(x) * weight (Zhang and Sennrich 2019), computed in float32 or better; on a GPU by torch's one kernel."""

    def __init__(self, config: Any = None, hidden_size: int = 0, eps: float = 1e-5, **_: Any) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(hidden_size, dtype=config.params_dtype))
        # under sequence parallelism each tensor rank sees part of the tokens: Megatron sums such weights' gradients
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def infer(self, x: Tensor) -> Tensor:
        """As `forward`, to rounding, where nothing is kept for a gradient: torch's own is quicker on a few rows."""
        if (kernels := _kernels(x, self.weight)) is not None:
            found: Tensor = kernels.normalized(x, self.weight, self.eps)[0]
            return found
        dtype = torch.promote_types(x.dtype, torch.float32)
        return F.rms_norm(x.to(dtype), self.weight.shape, self.weight.to(dtype), self.eps).to(self.weight.dtype)

    def infer_sum(self, x: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
        """x + more, and `infer` of that."""
        if (kernels := _kernels(x, self.weight)) is not None and x.dtype == torch.float32 and on_gpu(x):
            total, out = kernels.added_and_normalized(x, more, self.weight, self.eps)
            return total, out
        total = x + more
        return total, self.infer(total)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., H] in the residual stream's dtype -> the same in the weight's."""
        if _kernels(x, self.weight) is not None:
            out: Tensor = _Normalized.apply(x, self.weight, self.eps)
            return out
        dtype = torch.promote_types(x.dtype, torch.float32)
        wide: Tensor = _WideNorm.apply(x.to(dtype), self.weight.to(dtype), self.eps)
        return wide.to(self.weight.dtype)


def _kernels(x: Tensor, weight: Tensor | None = None) -> Any:
    """The module of the kernels that take x [..., channels], and a norm's weight [channels]; None: torch's operators
    do."""
    if suits_triton(x):
        if weight is not None and len(weight) > _WIDEST_NORM:
            return None
        from rlpt.kernels import layers_triton

        return layers_triton
    takes_all = all(compiled_layers.can_compile(t) for t in (x, weight) if t is not None)
    return compiled_layers if takes_all else None


class _WideNorm(torch.autograd.Function):
    """RMSNorm in torch, all in one dtype, with seven passes for the gradient instead of autograd's dozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        normal = x * scale
        ctx.save_for_backward(normal, weight, scale)
        return normal * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        normal, weight, scale = ctx.saved_tensors
        of_weight = (grad * normal).flatten(0, -2).sum(0)
        inner = grad * weight
        along = (inner * normal).mean(-1, keepdim=True)
        return inner.addcmul_(normal, along, value=-1).mul_(scale), of_weight, None


class _Normalized(torch.autograd.Function):
    """RMSNorm by its kernels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        out, scale = _kernels(x, weight).normalized(x, weight, epsilon)
        ctx.save_for_backward(x, weight, scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        return *_kernels(x, weight).normalized_backward(x, weight, scale, grad), None


def get_add(*_: Any) -> Callable[..., Tensor]:
    """Megatron's `bias_dropout_add` without biases and dropout: what a part of a layer gives is added to the residual
    stream in the stream's own dtype, where Megatron's rounds the stream to the part's."""

    def add(output_and_bias: tuple[Tensor, Tensor | None], residual: Tensor, _probability: float) -> Tensor:
        output, bias = output_and_bias
        assert bias is None, "the model has no biases"
        return residual + output

    return add


class SwiGLU(MegatronModule):
    """Shazeer's gated activation (2002.05202), in the place that Megatron's MLP has for a module of its own."""

    def forward(self, both: Tensor) -> Tensor:
        """[..., 2F] -> [..., F]."""
        return gated(both)


def gated(both: Tensor) -> Tensor:
    """both [..., 2F], a gate beside what it lets through -> silu(gate) * up [..., F]."""
    out: Tensor = _Gated.apply(both)
    return out


def gated_infer(both: Tensor) -> Tensor:
    """As `gated`, where nothing is kept for a gradient."""
    if (kernels := _kernels(both)) is not None:
        found: Tensor = kernels.gated(both)
        return found
    gate, up = both.chunk(2, -1)
    return F.silu(gate).mul_(up)


class _Gated(torch.autograd.Function):
    """The gradient goes straight to its place. By kernels and in narrow types the gate is made again: memory is dearer
    than time there."""

    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        if _kernels(both) is not None or both.dtype.itemsize <= 2:
            ctx.save_for_backward(both)
            return gated_infer(both)
        gate, up = both.chunk(2, -1)
        opened = F.silu(gate)
        ctx.save_for_backward(both, opened)
        return opened * up

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        both, *kept = ctx.saved_tensors
        if (kernels := _kernels(both)) is not None:
            found: Tensor = kernels.gated_backward(both, grad)
            return found
        out = torch.empty_like(both)
        (gate, up), (of_gate, of_up) = both.chunk(2, -1), out.chunk(2, -1)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=of_gate)
        torch.mul(grad, kept[0] if kept else F.silu(gate), out=of_up)
        return out
