"""What one microbatch costs a rank: bytes kept for backward, the most that is allocated at once, bytes that travel.

It is the training forward and backward on the modules as they are. On pretended tensors (distributed/pretended.py)
nothing is computed and nothing allocated; on real ones the same figures are those of the machine.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rlpt.batch import Batch
from rlpt.distributed.pretended import storage_key
from rlpt.models.attention import Layout
from rlpt.models.policy import Policy


@dataclass(frozen=True)
class Footprint:
    """One microbatch on one rank, in bytes."""

    saved: int  # that backward needs of forward, weights not counted
    peak: int  # the most that forward and backward hold at one time, `saved` included
    sent: int  # over the tensor axis, by ring collectives


def microbatch_footprint(policy: Policy, rows: int, length: int) -> Footprint:
    """Forward and backward of `rows` rows of `length` tokens that hold several segments, with a loss at every label.

    A first or only stage reads tokens, the others hidden states; the last one ends in the log-prob head.
    """
    gpt, mesh = policy.gpt, policy.mesh
    batch = _batch(rows, length)
    weights = {storage_key(parameter) for parameter in gpt.parameters()}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved.setdefault(storage_key(tensor), tensor)
        return tensor

    # as the data-parallel wrapper does, which adds it to its buffer
    hooks = [one.register_post_accumulate_grad_hook(_forget_gradient) for one in gpt.parameters() if one.requires_grad]
    with _Meter(mesh.tensor.size) as meter:
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            if not mesh.is_first_stage:
                gpt.set_input_tensor(_hidden(policy, rows, length))
            output = gpt(
                input_ids=batch.tokens, position_ids=batch.positions, attention_mask=_layout(policy, rows, length)
            )
            if mesh.is_last_stage:
                scores = policy.scores_at(output, batch, torch.arange(rows * length))
                output = scores.logprobs.sum() + scores.entropy.sum()
        kept = sum(tensor.untyped_storage().nbytes() for key, tensor in saved.items() if key not in weights)
        saved.clear()
        output.backward(None if output.dim() == 0 else torch.ones_like(output))
    for hook in hooks:
        hook.remove()
    return Footprint(saved=kept, peak=meter.peak, sent=round(meter.sent))


def _forget_gradient(parameter: Tensor) -> None:
    parameter.grad = None


def _batch(rows: int, length: int) -> Batch:
    tokens = torch.zeros(rows, length, dtype=torch.int64)
    return Batch(
        objective="plan",
        tokens=tokens,
        labels=torch.zeros_like(tokens),
        positions=torch.arange(length).expand(rows, length),
        loss_mask=torch.ones(rows, length, dtype=torch.bool),
        segments=_segments(rows, length),
    )


def _segments(rows: int, length: int) -> Tensor:
    """Two a row."""
    return (torch.arange(length) >= length // 2).long().expand(rows, length).contiguous()


def _layout(policy: Policy, rows: int, length: int) -> Layout:
    """How the rows attend. It is read off the segments, so these are real, and so small beside the rest."""
    config = policy.gpt.config
    with unset_fake_temporarily():
        frequencies = torch.ones(config.kv_channels // 2)
        positions = torch.arange(length).expand(rows, length)
        return Layout.of(frequencies, positions, _segments(rows, length), None, config.params_dtype)


def _hidden(policy: Policy, rows: int, length: int) -> Tensor:
    """What the stage before sends, [length (a shard of it under sequence parallelism), rows, hidden]."""
    config = policy.gpt.config
    local = length // policy.mesh.tensor.size if config.sequence_parallel else length
    return torch.zeros(local, rows, config.hidden_size, dtype=config.params_dtype, requires_grad=True)


class _Meter(TorchDispatchMode):
    """Follows the memory that operators allocate, and what collectives of a group of `group_size` ranks send."""

    def __init__(self, group_size: int) -> None:
        super().__init__()
        self.group_size = group_size
        self.held, self.peak, self.sent = 0, 0, 0.0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._count_sent(str(func), args)
        before = {storage_key(one) for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        out = func(*args, **(kwargs or {}))
        for one in tree_leaves(out):
            if isinstance(one, Tensor):
                self._hold(one, before)
        return out

    def _hold(self, tensor: Tensor, before: set[int]) -> None:
        key, storage = storage_key(tensor), tensor.untyped_storage()
        if key in self._alive or key in before:
            return
        self._alive.add(key)
        self.held += storage.nbytes()
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._release, key, storage.nbytes())

    def _release(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.held -= size

    def _count_sent(self, name: str, args: Any) -> None:
        """A ring sends (n - 1) / n of the whole tensor to gather or reduce-scatter it, and twice that to reduce it."""
        share = (self.group_size - 1) / self.group_size
        if name.startswith("c10d.allreduce_"):
            self.sent += 2 * share * sum(one.numel() * one.element_size() for one in args[0])
        elif name.startswith("c10d.allgather_."):
            self.sent += share * sum(one.numel() * one.element_size() for one in tree_leaves(args[0]))
        elif name.startswith("c10d._allgather_base_"):
            self.sent += share * args[0].numel() * args[0].element_size()
        elif name.startswith("c10d._reduce_scatter_base_"):
            self.sent += share * args[1].numel() * args[1].element_size()
        elif name.startswith("c10d."):
            raise AssertionError(f"{name}: what it sends is not known here")
