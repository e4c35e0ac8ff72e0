"""Which implementation of the output layer runs: Triton on a GPU, compiled passes on a CPU, else plain torch."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from rlpt.kernels.compiled_head import CompiledHead, can_compile
from rlpt.kernels.hardware import suits_triton
from rlpt.kernels.head_torch import TorchHead
from rlpt.kernels.vocabulary_shard import Head, Shard

Backend = Literal["auto", "torch", "compiled", "triton"]


def choose_head(backend: Backend, weight: Tensor, shard: Shard, chunk_size: int | None) -> Head:
    """The head of one call. `auto`: Triton for narrow and f32 weights on a GPU where it is installed (torch's builds
    for GPUs bring it), compiled passes for f32 weights on a CPU with a C++ compiler, else plain torch; `triton` on a
    CPU needs Triton's interpreter."""
    if backend == "auto":
        backend = "triton" if suits_triton(weight) else "compiled" if can_compile(weight) else "torch"
    if backend == "torch":
        return TorchHead(weight, shard, chunk_size)
    if backend == "compiled":
        return CompiledHead(weight, shard, chunk_size)
    from rlpt.kernels.triton_head import TritonHead

    return TritonHead(weight, shard, chunk_size)
