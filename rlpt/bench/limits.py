"""What a machine can do at most, measured: matrix products and copies of its memory."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from rlpt.kernels.hardware import on_gpu


def matmul_rate(device: torch.device, dtype: torch.dtype, tries: int = 30) -> float:
    """FLOP/s of the best of some square products of random numbers."""
    one = torch.randn(1, device=device)
    size = 8192 if on_gpu(one) else 1024
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    return 2 * size**3 / min(_seconds(lambda: torch.mm(matrix, matrix)) for _ in range(tries))


def copy_rate(device: torch.device, tries: int = 10) -> float:
    """Bytes/s, those read and those written, of the best of some copies that no cache holds."""
    one = torch.randn(1, device=device)
    source = torch.randn(1 << (29 if on_gpu(one) else 25), device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(_seconds(lambda: target.copy_(source)) for _ in range(tries))


def _seconds(work: Callable[[], torch.Tensor]) -> float:
    start = time.perf_counter()
    result = work()
    result.view(-1)[0].item()  # waits for it
    return time.perf_counter() - start
