"""Linear maps by weights that oneDNN laid out beforehand: few rows then run at two to three times the speed.

torch lays a weight out anew, or goes without, at every call of `F.linear`; inductor calls the same operator for weights
that it knows never to change. Ours change with every update, so they are laid out for each rollout.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Linear = Callable[[Tensor], Tensor]  # [..., in] -> [..., out]
_DTYPES = (torch.float32, torch.bfloat16)


def can_pack(weight: Tensor) -> bool:
    """Whether this machine's oneDNN takes the weight: a CPU, and a dtype whose matrices it multiplies."""
    if weight.device.type != "cpu" or weight.dtype not in _DTYPES or not torch.backends.mkldnn.is_available():
        return False
    return weight.dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def linear(weight: Tensor, packed: bool) -> Linear:
    """x -> x W^T for W [out, in]; with `packed` from a copy of W in oneDNN's layout, where it has one."""
    if not (packed and can_pack(weight)):
        return lambda x: F.linear(x, weight)
    ready = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
    multiply = torch.ops.mkldnn._linear_pointwise.default
    return lambda x: multiply(x, ready, None, "none", [], "")  # type: ignore[no-any-return]
