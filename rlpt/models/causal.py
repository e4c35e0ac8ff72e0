"""Causal attention that is the decode step's to the last bit, with the library's gradient.

Which library's is torch's own choice: cuDNN's on compute capability 9.0, FlashAttention-2's elsewhere. Both make
probabilities again from scores and log-sums.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend

from rlpt.kernels.hardware import suits_triton

Gradient = Callable[..., tuple[Tensor, ...]]  # (of the output, q, k, v, output, log-sums, scale) -> of q, k, v


def causal(query: Tensor, key: Tensor, value: Tensor, scale: float, gradient: Gradient) -> Tensor:
    """query [B, H, T, d], key and value [B, G, T, d] -> [B, H, T, d]."""
    out: Tensor = _Causal.apply(query, key, value, scale, gradient)
    return out


class _Causal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, gradient: Gradient) -> Tensor:
        from rlpt.kernels.causal_attention import causal_attention

        q, k, v = (x.transpose(1, 2) for x in (query, key, value))
        out, log_sums = causal_attention(q, k, v, scale)
        out = out.transpose(1, 2)
        ctx.save_for_backward(query, key, value, out, log_sums)
        ctx.scale, ctx.gradient = scale, gradient
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *ctx.gradient(grad, *ctx.saved_tensors, ctx.scale), None, None


def library_gradient(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Gradient | None:
    """The library's gradient of causal attention for tensors [B, heads, T, d] like these, where our kernel makes their
    output; None: it does not."""
    if not can_be_same(query, query.shape[-1]):
        return None
    grouped = query.shape[1] != key.shape[1]
    chosen = torch._fused_sdp_choice(query, key, value, None, 0.0, True, scale=scale, enable_gqa=grouped)
    return {SDPBackend.CUDNN_ATTENTION.value: _by_cudnn, SDPBackend.FLASH_ATTENTION.value: _by_flash}.get(chosen)


def can_be_same(tensor: Tensor, channels: int) -> bool:
    """Whether whole texts and decode steps attend by kernels that are the same to the last bit: of two bytes a number,
    on a GPU. In full f32 the library's is quicker, and rounding no concern."""
    if tensor.dtype.itemsize != 2 or not suits_triton(tensor):
        return False
    from rlpt.kernels.attention_block import can_attend

    return can_attend(channels)


def _by_cudnn(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, log_sums: Tensor, scale: float
) -> tuple[Tensor, ...]:
    unused = torch.empty((), dtype=torch.int64, device=grad.device)  # the state of a generator: nothing is dropped out
    length, none = query.shape[2], None
    found: tuple[Tensor, ...] = torch.ops.aten._scaled_dot_product_cudnn_attention_backward(
        grad, query, key, value, out, log_sums[..., None], unused, unused, none, none, none, length, length, 0.0, True,
        scale=scale,
    )  # fmt: skip
    return found


def _by_flash(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, log_sums: Tensor, scale: float
) -> tuple[Tensor, ...]:
    unused = torch.empty((), dtype=torch.int64, device=grad.device)
    length, none = query.shape[2], None
    found: tuple[Tensor, ...] = torch.ops.aten._scaled_dot_product_flash_attention_backward(
        grad, query, key, value, out, log_sums, none, none, length, length, 0.0, True, unused, unused, scale=scale
    )
    return found
