"""Low-rank adapters (LoRA, Hu et al. 2106.09685) beside the weights of a decoder layer, sharded over tensor ranks.

y = W x + alpha / rank * B (A x), A [rank, in], B [out, rank]. A is drawn, B starts at zero, so that a new adapter
changes nothing. Beside a column-parallel W [out/tp, in], A is whole on every rank and B has W's rows; beside a
row-parallel W [out, in/tp], A has W's columns and B is whole. Either way B A of a rank fits its shard of W, and only
the narrow A x ever travels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel import (
    ColumnParallelLinear,
    RowParallelLinear,
    set_tensor_model_parallel_attributes,
)
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    reduce_from_tensor_model_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
)
from megatron.core.transformer.mlp import apply_swiglu_sharded_factory
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint
from torch import Tensor, nn

from rlpt.config import AdapterConfig


class AdaptedColumnParallelLinear(ColumnParallelLinear):
    """Megatron's, with an adapter; `stride` 2 says that the output is [gate; up], each shared out on its own."""

    def __init__(self, input_size: int, output_size: int, *, adapter: AdapterConfig, **options: Any) -> None:
        super().__init__(input_size, output_size, **options)
        stride: int = options.get("stride", 1)  # ColumnParallelLinear's own default
        self.adapter_scale = adapter.alpha / adapter.rank
        self.adapter_a = _parameter(self, adapter, (adapter.rank, input_size))
        self.adapter_b = _parameter(self, adapter, (self.output_size_per_partition, adapter.rank), 0, stride)
        # its input is part of the sequence: Megatron sums such parameters' gradients over tensor ranks
        self.adapter_a.sequence_parallel = self.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, input_: Tensor, *arguments: Any, **options: Any) -> tuple[Tensor, Tensor | None]:
        """input_ [T (a shard of it under sequence parallelism), B, in] -> [T, B, out/tp]."""
        output, bias = super().forward(input_, *arguments, **options)
        inner = F.linear(input_, self.adapter_a)
        if self.sequence_parallel:
            inner = gather_from_sequence_parallel_region(inner, tensor_parallel_output_grad=True, group=self.tp_group)
        else:
            inner = copy_to_tensor_model_parallel_region(inner, group=self.tp_group)
        return output + self.adapter_scale * F.linear(inner, self.adapter_b), bias

    def sharded_state_dict(self, prefix: str = "", sharded_offsets: Any = (), metadata: Any = None) -> dict[str, Any]:
        """Loadable at any tensor size; MLP sees to the weight of [gate; up] itself, not to what stands beside it."""
        shards = _shards(self, {"weight": 0, "adapter_b": 0}, prefix, sharded_offsets, metadata)
        if self.adapter_b.partition_stride == 2:  # type: ignore[attr-defined]
            key = f"{prefix}adapter_b"
            shards[key] = apply_swiglu_sharded_factory(shards[key], sharded_offsets)
        return shards


class AdaptedRowParallelLinear(RowParallelLinear):
    """Megatron's, with an adapter."""

    def __init__(self, input_size: int, output_size: int, *, adapter: AdapterConfig, **options: Any) -> None:
        super().__init__(input_size, output_size, **options)
        self.adapter_scale = adapter.alpha / adapter.rank
        self.adapter_a = _parameter(self, adapter, (adapter.rank, self.input_size_per_partition), 1)
        self.adapter_b = _parameter(self, adapter, (output_size, adapter.rank))
        self.adapter_b.sequence_parallel = self.sequence_parallel  # type: ignore[attr-defined]  # as above

    def forward(self, input_: Tensor) -> tuple[Tensor, Tensor | None]:
        """input_ [T, B, in/tp] -> [T (a shard of it under sequence parallelism), B, out]."""
        output, bias = super().forward(input_)
        inner = F.linear(input_, self.adapter_a)
        if self.sequence_parallel:
            inner = reduce_scatter_to_sequence_parallel_region(inner, group=self.tp_group)
        else:
            inner = reduce_from_tensor_model_parallel_region(inner, group=self.tp_group)
        return output + self.adapter_scale * F.linear(inner, self.adapter_b), bias

    def sharded_state_dict(self, prefix: str = "", sharded_offsets: Any = (), metadata: Any = None) -> dict[str, Any]:
        """Loadable at any tensor size."""
        return _shards(self, {"weight": 1, "adapter_a": 1}, prefix, sharded_offsets, metadata)


def is_adapter(name: str) -> bool:
    """Whether a parameter's dotted name is an adapter's."""
    return name.endswith((".adapter_a", ".adapter_b"))


@torch.no_grad()
def merged_weight(linear: nn.Module) -> Tensor:
    """This rank's shard of W + alpha / rank * B A, without communication; W itself where there is no adapter.

    The sum is float32 or better and then rounded to W's dtype: in bfloat16 the result differs from the two paths of
    the training forward by W's own rounding.
    """
    weight = linear.weight
    assert isinstance(weight, Tensor)
    if not isinstance(linear, AdaptedColumnParallelLinear | AdaptedRowParallelLinear):
        return weight
    dtype = torch.promote_types(weight.dtype, torch.float32)
    product = linear.adapter_b.to(dtype) @ linear.adapter_a.to(dtype)
    return (weight.to(dtype) + linear.adapter_scale * product).to(weight.dtype)


def _parameter(
    linear: Any, adapter: AdapterConfig, shape: tuple[int, int], split: int = -1, stride: int = 1
) -> nn.Parameter:
    """Marked as Megatron's weights are: what is not split is counted once in the gradient's norm."""
    empty = torch.empty(shape, dtype=linear.config.params_dtype)
    parameter = nn.Parameter(empty, requires_grad=adapter.lr_scale > 0)
    set_tensor_model_parallel_attributes(parameter, is_parallel=split >= 0, dim=split, stride=stride)
    return parameter


def _shards(linear: Any, axes: dict[str, int], prefix: str, sharded_offsets: Any, metadata: Any) -> dict[str, Any]:
    shards: dict[str, Any] = make_sharded_tensors_for_checkpoint(
        linear.state_dict(prefix="", keep_vars=True),
        prefix,
        axes,
        sharded_offsets,
        tp_group=linear.tp_group,
        dp_cp_group=metadata["dp_cp_group"],
    )
    return shards
