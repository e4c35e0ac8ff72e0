"""Layers of ours for Megatron's ModuleSpec: RMSNorm that knows sequence parallelism, attention on torch's SDPA."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x / rms(x) * weight (Zhang and Sennrich 2019), computed in float32 or better."""

    def __init__(self, config: Any = None, hidden_size: int = 0, eps: float = 1e-5, **_: Any) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(hidden_size, dtype=config.params_dtype))
        # under sequence parallelism each tensor rank sees part of the tokens: Megatron sums such weights' gradients
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        return F.rms_norm(x.to(dtype), self.weight.shape, self.weight.to(dtype), self.eps).to(x.dtype)


class SdpaAttention(nn.Module):
    """Core attention by `scaled_dot_product_attention`; grouped queries; causal when there is no mask.

    `attention_mask` [B, 1, T, T] bool is True where attention is *not* allowed (Megatron's convention).
    """

    def __init__(self, config: Any, *_: Any, **__: Any) -> None:
        super().__init__()
        self.scale = 1.0 / config.kv_channels**0.5

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> Tensor:
        """query [T, B, heads, d], key and value [T, B, groups, d] -> [T, B, heads * d]."""
        length, rows, heads, channels = query.shape
        q, k, v = (x.permute(1, 2, 0, 3) for x in (query, key, value))
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if attention_mask is None else ~attention_mask,
            is_causal=attention_mask is None,
            scale=self.scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return out.permute(2, 0, 1, 3).reshape(length, rows, heads * channels)


def packed_attention_mask(segments: Tensor) -> Tensor:
    """segments [B, T] -> [B, 1, T, T], True where attention is not allowed: the future and other segments."""
    length = segments.shape[1]
    future = torch.ones(length, length, dtype=torch.bool, device=segments.device).triu(1)
    return (segments[:, None, :, None] != segments[:, None, None, :]) | future
