"""Whether data-parallel replicas still hold the same weights: a checksum of each parameter, compared over the axis.

Bits that flip in a device's memory raise no error. Replicas compute the same update from the same reduced gradient, so
their weights are equal bit for bit until one of them is damaged. What each optimizer replica holds beside them is
compared as well, where it is not shared out. A distributed optimizer hands every rank its weights anew after each step:
what was damaged before that is healed, or has spread, and shows no more; what was damaged since shows.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ReduceOp

from rlpt.batch import Batch, Scores
from rlpt.distributed.mesh import Axis, Mesh
from rlpt.errors import TryAgainError
from rlpt.training.schedule import StepPlan

CHUNK = 1 << 18  # words at a time: small enough for a processor's cache
MAX_NAMED = 5  # parameters of one error
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def checksum(tensor: Tensor) -> Tensor:
    """() int64: sum over words of (bits as a signed integer) x (2 place + 1), modulo 2^64; words are of 8 bytes, and
    the last few of one element.

    The weights are odd, so no change of a single element goes unseen; many at once cancel out in one case of 2^64, if
    they are no malice. Reads the tensor once. Where a tensor begins in memory must be the same on all replicas.
    """
    flat = tensor.detach().reshape(-1)
    aligned = flat.storage_offset() * flat.element_size() % 8 == 0
    whole = flat.nbytes // 8 * 8 // flat.element_size() if aligned else 0
    total = torch.zeros((), dtype=torch.int64, device=flat.device)
    places = torch.arange(1, 2 * min(CHUNK, flat.numel()) + 1, 2, dtype=torch.int64, device=flat.device)
    for words in (flat[:whole].view(torch.int64), flat[whole:].view(_INTEGERS[flat.element_size()])):
        for start in range(0, words.numel(), CHUNK):
            part = words[start : start + CHUNK].to(torch.int64)
            total += (part * (places[: part.numel()] + 2 * start)).sum()
    return total


def check_replicas(tensors: Mapping[str, Tensor], mesh: Mesh, step: int) -> None:
    """Compares `tensors` (by name, the same ones on every replica) over the data axis; all ranks must call it.

    One all-reduce of two numbers a tensor. Raises TryAgainError on all ranks together, which names replicas, their
    hosts, tensors and step. Of three or more replicas those that differ from most are named.
    """
    axis = mesh.data
    if axis.size == 1:
        return
    sums = torch.stack([checksum(one).to(mesh.torch_device) for one in tensors.values()])
    largest = axis.all_reduce(torch.stack([sums, ~sums]), ReduceOp.MAX)  # ~: its largest is the smallest sum
    differs = largest[0] != ~largest[1]
    text = _describe(sums, differs, list(tensors), axis) if bool(differs.any()) else ""
    found = sorted({one for one in mesh.world.gather_objects(text) if one}) if _anywhere(bool(text), mesh) else []
    if found:
        raise TryAgainError(
            f"step {step}: data-parallel replicas differ: {'; '.join(found)}. Memory or arithmetic of a device is at "
            "fault. Start again: it goes on from the newest checkpoint; where this comes back, leave that host out"
        )


@dataclass(frozen=True)
class ReplicaCheck:
    """A gradient pass that adds nothing: every `every` steps it compares, before the update, what the update starts
    from."""

    tensors: Callable[[], Mapping[str, Tensor]]
    mesh: Mesh
    every: int  # 0: never

    def observe(self, batch: Batch, scores: Scores) -> None:
        """Nothing."""

    def add(self, step: Any, batches: Any, plan: StepPlan, counts: Any) -> dict[str, float]:
        """Raises TryAgainError as `check_replicas` does."""
        if self.every and (plan.step + 1) % self.every == 0:
            check_replicas(self.tensors(), self.mesh, plan.step + 1)
        return {}

    def update(self, plan: StepPlan) -> None:
        """Nothing."""

    def before_save(self, step: int) -> None:
        """A damaged replica isn't saved, where there are checks at all."""
        if self.every:
            check_replicas(self.tensors(), self.mesh, step)


def _anywhere(here: bool, mesh: Mesh) -> bool:
    return not mesh.agree(not here)


def _describe(sums: Tensor, differs: Tensor, names: Sequence[str], axis: Axis) -> str:
    """`replica 1 of 4 (ranks' host h2) in decoder...weight and 3 more`; of two replicas, both."""
    rows: list[tuple[list[int], str]] = axis.gather_objects((sums.tolist(), socket.gethostname()))
    wrong: dict[int, list[str]] = {}
    for index in torch.nonzero(differs).flatten().tolist():
        for replica in _minority([values[index] for values, _ in rows]):
            wrong.setdefault(replica, []).append(names[index])
    return " and ".join(
        f"replica {replica} of {axis.size} (host {rows[replica][1]}) in {_cut(found)}"
        for replica, found in sorted(wrong.items())
    )


def _minority(values: Sequence[int]) -> Iterable[int]:
    """Places of the values that differ from the most frequent one; all places where there is no majority."""
    value, number = Counter(values).most_common(1)[0]
    if 2 * number <= len(values):
        return range(len(values))
    return [place for place, one in enumerate(values) if one != value]


def _cut(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
