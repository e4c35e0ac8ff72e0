"""Attention of packed rows with its rotary turn in one call of compiled code (attention.cpp), for float32 on a CPU.

Shapes: T positions, B rows, G groups of h heads that share a key, d channels. torch's own attention on a CPU knows no
trees: a row in tiles is two calls a tile and layer, each of them mostly set-up where segments are short.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlpt.kernels.compiler import has_data, library, suits

_SOURCE = Path(__file__).with_name("attention.cpp")
_Pointer, _Long = ctypes.c_void_p, ctypes.c_int64


class _Attention(ctypes.Structure):
    _fields_ = (
        *((name, _Long) for name in ("length", "rows", "groups", "per_group", "head", "num_trees")),
        *((name, _Pointer) for name in ("trees", "runs", "cos", "sin", "mixed", "out", "log_sums", "grad", "of_mixed")),
        ("threads", _Long),
    )


class Run(NamedTuple):
    """A segment's place: positions start to stop of a row."""

    row: int
    start: int
    stop: int
    stem: int = -1  # index of the run that it goes on from; -1: none


@dataclass(frozen=True)
class Trees:
    """A microbatch's runs, each stem followed by what goes on from it. Positions in no run attend to nothing."""

    runs: Tensor  # [runs, 4] i64, as `Run`
    starts: Tensor  # [trees + 1] i64: where each tree's runs begin
    covers_all: bool  # no position is in no run

    @staticmethod
    def of(runs: Sequence[Run], positions: int) -> Trees:
        """`positions`: those of all rows. A run's stem stands before it, and nothing of another tree between them."""
        starts: list[int] = []
        for index, run in enumerate(runs):
            if run.stem < 0:
                starts.append(index)
            tree = starts[-1] if starts else index
            assert run.stem < 0 or tree <= run.stem < index, f"{run} goes on from a run of another tree"
        covered = sum(run.stop - run.start for run in runs)
        return Trees(
            torch.tensor(runs, dtype=torch.int64).view(-1, 4),
            torch.tensor([*starts, len(runs)], dtype=torch.int64),
            covered == positions,
        )


def can_compile(mixed: Tensor) -> bool:
    """Whether attention over such tensors is compiled."""
    return suits(mixed, _SOURCE)


def compiled_attention(mixed: Tensor, cos: Tensor, sin: Tensor, trees: Trees) -> Tensor:
    """mixed [T, B, G, h + 2, d] f32, of each group its queries, its key and its value, not turned yet; cos and sin
    [T, B, 1, d / 2] -> [T, B, G * h * d]: softmax(q k / sqrt(d)) v over what each token attends to."""
    assert can_compile(mixed), "a layout with trees is for float32 on a CPU"
    out: Tensor = _CompiledAttention.apply(mixed.contiguous(), cos, sin, trees)
    return out.flatten(2)


class _CompiledAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mixed: Tensor, cos: Tensor, sin: Tensor, trees: Trees) -> Tensor:
        length, rows, groups, parts, head = mixed.shape
        new = torch.empty if trees.covers_all else torch.zeros
        out, log_sums = new(length, rows, groups, parts - 2, head), torch.empty(length, rows, groups, parts - 2)
        _call("rlpt_attention", (mixed, cos, sin), trees, out, log_sums, None, None)
        ctx.save_for_backward(mixed, cos, sin, out, log_sums)
        ctx.trees = trees
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        mixed, cos, sin, out, log_sums = ctx.saved_tensors
        of_mixed = (torch.empty_like if ctx.trees.covers_all else torch.zeros_like)(mixed)
        _call("rlpt_attention_backward", (mixed, cos, sin), ctx.trees, out, log_sums, grad.contiguous(), of_mixed)
        return of_mixed, None, None, None


def _call(
    name: str,
    inputs: tuple[Tensor, Tensor, Tensor],
    trees: Trees,
    out: Tensor,
    log_sums: Tensor,
    grad: Tensor | None,
    of_mixed: Tensor | None,
) -> None:
    if not has_data(inputs[0]):
        return
    mixed, cos, sin = inputs
    length, rows, groups, parts, head = mixed.shape
    tensors = (trees.starts, trees.runs, cos, sin, mixed, out, log_sums, grad, of_mixed)
    pointers = (None if tensor is None else tensor.data_ptr() for tensor in tensors)
    sizes = (length, rows, groups, parts - 2, head, len(trees.starts) - 1)
    getattr(library(_SOURCE), name)(ctypes.byref(_Attention(*sizes, *pointers, torch.get_num_threads())))
