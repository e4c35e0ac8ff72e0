"""Scalar heads on the hidden states: what a state is worth (`value`), or any other number that an objective trains."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ScalarHead(nn.Module):
    """A linear map of the hidden state to one number, from zero on; computed in float32 or better.

    Whole on every tensor rank, and so is its gradient: it reads hidden states that all of them hold.
    """

    def __init__(self, hidden_size: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, hidden_size, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(1, dtype=dtype))

    def forward(self, rows: Tensor) -> Tensor:
        """rows [N, hidden] -> [N], float32 (float64 for float64 rows)."""
        dtype = torch.promote_types(rows.dtype, torch.float32)
        return F.linear(rows.to(dtype), self.weight.to(dtype), self.bias.to(dtype)).squeeze(-1)
