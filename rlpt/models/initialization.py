"""Initial weights that are a function of (seed, parameter name, full shape): the same for every parallel layout.

Normal with standard deviation `init_std`, divided by sqrt(2 * layers) for the two projections that write to the
residual stream (GPT-2, Radford et al. 2019); norms are ones; scalar heads and the outer half of each adapter are zeros.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor, nn

from rlpt.config import Config
from rlpt.distributed.mesh import Mesh

RESIDUAL = ("linear_proj.weight", "linear_fc2.weight")
GATED = ("linear_fc1.weight", "linear_fc1.adapter_b")


@torch.no_grad()
def initialize_weights(model: nn.Module, config: Config, mesh: Mesh) -> None:
    """Fills every parameter in place with its shard of the full tensor, drawn on the CPU in float32."""
    for name, parameter in model.named_parameters():
        if name.startswith("heads.") or name.endswith(".adapter_b"):
            parameter.zero_()
        elif parameter.dim() == 1:
            parameter.fill_(1.0)
        else:
            residual = math.sqrt(2.0 * config.model.num_layers) if name.endswith(RESIDUAL) else 1.0
            parameter.copy_(draw_shard(name, parameter, config.model.init_std / residual, config, mesh))


def draw_shard(name: str, parameter: Tensor, std: float, config: Config, mesh: Mesh) -> Tensor:
    """This rank's part, f32 on the CPU, of a normal tensor that has the full shape of the parameter called `name` here.

    Megatron's `partition_dim` on the parameter says how it is shared out.
    """
    first_layer = mesh.pipeline.rank * (config.model.num_layers // config.parallel.pipeline)
    global_name = global_parameter_name(name, first_layer, config.model.tie_embeddings)
    split = getattr(parameter, "partition_dim", -1) if mesh.tensor.size > 1 else -1
    shape = list(parameter.shape)
    if split >= 0:
        shape[split] *= mesh.tensor.size
    full = torch.empty(shape, dtype=torch.float32)
    full.normal_(0.0, std, generator=torch.Generator().manual_seed(_key(config.seed, global_name)))
    return _shard(full, split, name, mesh) if split >= 0 else full


def global_parameter_name(name: str, first_layer: int, tied: bool) -> str:
    """A stage-local name with the layer's number in the whole model; a tied head on the last stage is the embedding."""
    if name == "output_layer.weight" and tied:
        return "embedding.word_embeddings.weight"
    parts = name.split(".")
    if "layers" in parts:
        at = parts.index("layers") + 1
        parts[at] = str(int(parts[at]) + first_layer)
    return ".".join(parts)


def _shard(full: Tensor, dim: int, name: str, mesh: Mesh) -> Tensor:
    """This tensor rank's part; the gated block holds [gate; up], each split on its own."""
    rank, size = mesh.tensor.rank, mesh.tensor.size
    if name.endswith(GATED):
        gate, up = full.chunk(2, dim=0)
        return torch.cat([gate.chunk(size, dim=0)[rank], up.chunk(size, dim=0)[rank]])
    return full.chunk(size, dim=dim)[rank]


def _key(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest(), "big") >> 1
