"""One rank of a mesh whose other ranks and whose memory do not exist: what a layout amounts to is measured on a laptop.

Inside `pretended_rank` the process group is torch's fake one, whose collectives do nothing, and tensors are fake ones,
that have a shape and a dtype and no memory. Megatron's own classes run on them as they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode

from rlpt.config import Config
from rlpt.distributed.device import Device, import_megatron_quietly, leave, setup_device, without_random_states
from rlpt.distributed.mesh import Mesh, init_mesh


@contextlib.contextmanager
def pretended_rank(config: Config, rank: int, world_size: int, dtype: torch.dtype) -> Iterator[tuple[Device, Mesh]]:
    """Inside, this process is `rank` of `world_size` ranks and allocates nothing. It must be in no process group.

    Weights are of `dtype`. Raises ConfigError when the world size does not fit the configuration.
    """
    from torch.testing._internal.distributed.fake_pg import FakeStore

    assert not dist.is_initialized(), "this process is a rank of a real group"
    name = str(dtype).removeprefix("torch.")
    on_cpu = config.device.model_copy(update={"kind": "cpu", "dtype": name, "threads": torch.get_num_threads()})
    import_megatron_quietly()
    with patch.object(dist, "all_gather_object", _all_say_the_same), without_random_states():
        dist.init_process_group("fake", rank=rank, world_size=world_size, store=FakeStore())
        try:
            device = setup_device(on_cpu)
            mesh = init_mesh(config, device)
            with FakeTensorMode(allow_non_fake_inputs=True), device.megatron():
                yield device, mesh
        finally:
            from megatron.core import parallel_state

            parallel_state.destroy_model_parallel()
            leave()


def stage_rank(config: Config, stage: int, world_size: int) -> int:
    """The first rank of a pipeline stage, in Megatron's order: tensor ranks are neighbours, pipeline outermost."""
    return stage * (world_size // config.parallel.pipeline)


def bytes_of(tensors: Iterator[torch.Tensor] | list[torch.Tensor]) -> int:
    """Bytes of the memory under some tensors; what several of them share counts once."""
    storages = {storage_key(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def storage_key(tensor: torch.Tensor) -> int:
    """The same for tensors that lie in the same memory."""
    return int(tensor.untyped_storage()._cdata)


def _all_say_the_same(values: list[Any], value: Any, group: Any = None) -> None:
    values[:] = [value] * len(values)
