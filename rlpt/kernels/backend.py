"""Which implementation of the output layer runs: Triton kernels on a GPU, plain torch anywhere else."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from rlpt.kernels.hardware import suits_triton
from rlpt.kernels.head_torch import TorchHead
from rlpt.kernels.vocabulary_shard import Head, Shard

Backend = Literal["auto", "torch", "triton"]


def choose_head(backend: Backend, weight: Tensor, shard: Shard, chunk_size: int | None) -> Head:
    """The head of one call. `auto`: Triton for narrow and f32 weights on a GPU where it is installed (torch's builds
    for GPUs bring it), else plain torch; `triton` on a CPU needs Triton's interpreter."""
    if backend == "auto":
        backend = "triton" if suits_triton(weight) else "torch"
    if backend == "torch":
        return TorchHead(weight, shard, chunk_size)
    from rlpt.kernels.triton_head import TritonHead

    return TritonHead(weight, shard, chunk_size)
