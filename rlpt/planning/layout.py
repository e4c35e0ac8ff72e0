"""One recipe at one layout on one kind of hardware: the plan, as a record that is written as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from rlpt.config import Config, check_vocabulary, check_world
from rlpt.errors import ConfigError
from rlpt.planning.advice import advice, room
from rlpt.planning.estimate import Flops, Memory, Seconds, flops, memory, seconds, volumes
from rlpt.planning.hardware import Hardware
from rlpt.planning.stages import Stage, measure_stages
from rlpt.planning.workload import Work, workloads
from rlpt.training.memory import FLOAT32, adapter_parameters, base_parameters


@dataclass(frozen=True)
class LayoutPlan:
    """Memory is measured on Megatron's own modules; times are estimates."""

    name: str
    world_size: int
    data: int
    hardware: Hardware
    vocabulary: int  # padded
    dtype: str
    parameters: int  # of the whole model
    layout: dict[str, Any]  # the keys of the recipe that a sweep varies
    works: list[Work]
    stages: list[Stage]
    memory: list[Memory]
    flops: Flops
    sent: dict[str, float]  # bytes of the busiest rank, by axis
    seconds: Seconds
    advice: list[str]

    @property
    def fullest(self) -> Memory:
        """The stage that needs most."""
        return max(self.memory, key=lambda one: one.total)

    @property
    def fits(self) -> bool:
        return self.fullest.total <= room(self.hardware)

    @property
    def tokens(self) -> int:
        """Positions that a step trains on, over all ranks."""
        return self.data * sum(work.positions for work in self.works)

    @property
    def episodes(self) -> int:
        """That a step plays, over all ranks."""
        return self.data * sum(work.episodes for work in self.works)

    @property
    def utilisation(self) -> float:
        """Model FLOPs of the step / what all ranks' matmul peak allows in its time."""
        return self.flops.model / (self.seconds.total * self.world_size * self.hardware.matmul)

    def as_json(self) -> dict[str, Any]:
        """Everything, with the derived figures."""
        return asdict(self) | {
            "fits": self.fits,
            "fullest_bytes": self.fullest.total,
            "tokens_per_step": self.tokens,
            "episodes_per_step": self.episodes,
            "seconds_per_step": self.seconds.total,
            "tokens_per_second": self.tokens / self.seconds.total,
            "utilisation": self.utilisation,
            "estimates": "memory: measured on modules without memory; seconds: from stated peaks and shares",
        }


def plan_layout(
    config: Config,
    world_size: int,
    hardware: Hardware,
    vocabulary: int = 0,
    episode_tokens: int = 0,
    stages: Sequence[Stage] | None = None,
) -> LayoutPlan:
    """The plan. `vocabulary`: tokens; 0: the prepared tokenizer's. `stages`: measured ones, where there are any.

    Raises ConfigError where the layout does not fit the world size or nothing says how large the vocabulary is.
    """
    data = check_world(config, world_size)
    padded = check_vocabulary(config, vocabulary or _prepared(config))
    works = workloads(config, data, episode_tokens)
    dtype = weight_dtype(config, hardware)
    rows = sorted({work.rows for work in works})
    heads = sorted({head for work in works for head in work.heads})
    measured = list(stages) if stages is not None else measure_stages(config, padded, world_size, dtype, rows, heads)
    wide = dtype.itemsize
    memories = memory(config, measured, works, padded, wide, hardware.name != "cpu")
    fullest = max(memories, key=lambda one: one.total)
    return LayoutPlan(
        name=config.name,
        world_size=world_size,
        data=data,
        hardware=hardware,
        vocabulary=padded,
        dtype=str(dtype).removeprefix("torch."),
        parameters=base_parameters(config, padded) + adapter_parameters(config),
        layout=layout_keys(config, data),
        works=works,
        stages=measured,
        memory=memories,
        flops=flops(config, works, padded, data),
        sent=volumes(config, measured, works, data, wide),
        seconds=seconds(config, hardware, measured, works, padded, data),
        advice=advice(config, fullest, hardware, works),
    )


def layout_keys(config: Config, data: int) -> dict[str, Any]:
    """The keys of a recipe that make up its layout."""
    parallel = config.parallel
    return {
        "parallel.tensor": parallel.tensor,
        "parallel.pipeline": parallel.pipeline,
        "parallel.data": data,
        "parallel.sequence_parallel": parallel.sequence_parallel,
        "batch.micro_batch_size": config.batch.micro_batch_size,
        "model.recompute": config.model.recompute,
    }


def weight_dtype(config: Config, hardware: Hardware) -> torch.dtype:
    """The recipe's, or what it comes to on this hardware."""
    if config.device.dtype != "auto":
        chosen: torch.dtype = getattr(torch, config.device.dtype)
        return chosen
    return torch.float32 if hardware.dtype_bytes == FLOAT32 else torch.bfloat16


def _prepared(config: Config) -> int:
    if not config.tokenizer.exists():
        raise ConfigError(
            f"tokenizer: {config.tokenizer} is not prepared yet, and the vocabulary decides the size of the model; "
            "prepare it, or say how large it will be: --vocabulary 128256"
        )
    from rlpt.data.tokenizer import load_tokenizer

    return int(load_tokenizer(config.tokenizer).vocab_size)
