"""The mesh of parallel axes: which rank sits where, and the groups that tensors travel on.

Megatron's order: tensor ranks are neighbours, then data, then pipeline. A single rank is a mesh of size 1 on every
axis and runs the same code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from rlpt.config import Config, check_world
from rlpt.distributed.device import Device


@dataclass(frozen=True)
class Axis:
    """One axis of the mesh as this rank sees it."""

    rank: int
    size: int
    group: dist.ProcessGroup

    def all_reduce(self, tensor: torch.Tensor, op: Any = dist.ReduceOp.SUM) -> torch.Tensor:
        """In-place reduction over the axis."""
        if self.size > 1:
            dist.all_reduce(tensor, op=op, group=self.group)
        return tensor

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """[size, ...] of all ranks' tensors [...], which have one shape, in rank order."""
        if self.size == 1:
            return tensor[None]
        found = tensor.new_empty(self.size, *tensor.shape)
        dist.all_gather(list(found.unbind(0)), tensor.contiguous(), group=self.group)
        return found

    def gather_objects(self, value: Any) -> list[Any]:
        """The axis's values of a picklable object, in rank order (our own objects only)."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values


@dataclass(frozen=True)
class Mesh:
    """Ranks and groups of all axes."""

    tensor: Axis
    pipeline: Axis
    data: Axis
    model: Axis  # tensor x pipeline: the ranks that hold one replica
    world: Axis
    torch_device: torch.device  # where tensors that travel must be

    @property
    def is_first_stage(self) -> bool:
        return self.pipeline.rank == 0

    @property
    def is_last_stage(self) -> bool:
        return self.pipeline.rank == self.pipeline.size - 1

    @property
    def is_primary(self) -> bool:
        """The rank that owns the loss and the logs: last stage, first tensor and data rank."""
        return self.is_last_stage and self.tensor.rank == 0 and self.data.rank == 0

    @property
    def primary_rank(self) -> int:
        """Global rank of the primary."""
        return self.world.size - self.tensor.size * self.data.size if self.pipeline.size > 1 else 0

    def broadcast_from_last_stage(self, tensor: torch.Tensor) -> torch.Tensor:
        """In place: every pipeline stage gets the last stage's tensor."""
        if self.pipeline.size > 1:
            source = dist.get_global_rank(self.pipeline.group, self.pipeline.size - 1)
            dist.broadcast(tensor, source, group=self.pipeline.group)
        return tensor

    def agree(self, ok: bool) -> bool:
        """True when `ok` on every rank; all ranks must call it."""
        return not self.largest(not ok)[0]

    def largest(self, *values: int) -> list[int]:
        """Each of `values` as it is on the rank where it is largest; all ranks must call it."""
        table = torch.tensor(values, dtype=torch.int64, device=self.torch_device)
        found: list[int] = self.world.all_reduce(table, dist.ReduceOp.MAX).tolist()
        return found

    def barrier(self) -> None:
        """Waits for all ranks."""
        self.agree(True)


def world_axis(device: Device) -> Axis:
    """All ranks as one axis, for which no mesh is needed."""
    return Axis(device.rank, device.world_size, dist.distributed_c10d._get_default_group())


def init_mesh(config: Config, device: Device) -> Mesh:
    """Builds Megatron's process groups. Raises ConfigError when the world size does not fit the configuration."""
    from megatron.core import parallel_state

    data_size = check_world(config, device.world_size)
    parallel_state.destroy_model_parallel()
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=config.parallel.tensor,
        pipeline_model_parallel_size=config.parallel.pipeline,
        create_gloo_process_groups=device.kind == "gpu",
        distributed_timeout_minutes=config.device.timeout_seconds / 60,  # a timedelta takes fractions
    )
    return Mesh(
        tensor=Axis(
            parallel_state.get_tensor_model_parallel_rank(),
            config.parallel.tensor,
            parallel_state.get_tensor_model_parallel_group(),
        ),
        pipeline=Axis(
            parallel_state.get_pipeline_model_parallel_rank(),
            config.parallel.pipeline,
            parallel_state.get_pipeline_model_parallel_group(),
        ),
        data=Axis(parallel_state.get_data_parallel_rank(), data_size, parallel_state.get_data_parallel_group()),
        model=Axis(
            dist.get_rank(parallel_state.get_model_parallel_group()),
            config.parallel.tensor * config.parallel.pipeline,
            parallel_state.get_model_parallel_group(),
        ),
        world=world_axis(device),
        torch_device=device.torch_device,
    )
