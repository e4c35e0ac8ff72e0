"""Which implementation of the output layer runs: Triton kernels on a GPU, plain torch anywhere else."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from rlpt.kernels.head_torch import TorchHead
from rlpt.kernels.vocabulary_shard import Head, Shard

Backend = Literal["auto", "torch", "triton"]


def choose_head(backend: Backend, hidden: Tensor, weight: Tensor, shard: Shard, chunk_size: int | None) -> Head:
    """The head of one call."""
    return TorchHead(weight, shard, chunk_size)
