"""Which layouts of a recipe fit, and which of them are fastest by the estimate.

What is searched: tensor-parallel sizes up to a node, pipeline sizes (episodes need 1), rows a microbatch and what is
computed again; the data-parallel size is what the world size leaves. The rows of a step stay as the recipe has them.
Context parallelism is not searched: the attention here holds whole rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from rlpt.config import Config, check_vocabulary, parse_config
from rlpt.errors import ConfigError
from rlpt.planning.hardware import Hardware
from rlpt.planning.layout import LayoutPlan, plan_layout, weight_dtype
from rlpt.planning.stages import MEASURED_LAYERS, Stage, measure_stages, straight_line
from rlpt.planning.workload import workloads

PIPELINES = (1, 2, 4, 8, 16)
MICRO_BATCHES = (1, 2, 4, 8, 16, 32)
RECOMPUTE = ("none", "mlp")


def sweep(
    config: Config, world_size: int, hardware: Hardware, vocabulary: int, episode_tokens: int = 0, best: int = 5
) -> tuple[list[LayoutPlan], int]:
    """(the `best` layouts that fit, fastest first; how many were looked at). Nothing where none fits.

    Layouts are compared by figures that are continued from few measurements; those that are returned are measured.
    """
    fitting: list[tuple[float, Config]] = []
    looked_at = 0
    dtype = weight_dtype(config, hardware)
    seen: dict[tuple[Any, ...], list[Stage]] = {}
    too_large: set[tuple[Any, ...]] = set()  # more rows will not fit either
    for one in candidates(config, world_size, hardware):
        key = (one.parallel.tensor, one.parallel.pipeline, one.model.recompute)
        try:
            padded = check_vocabulary(one, vocabulary)
        except ConfigError:  # this tensor size does not divide it
            continue
        if key in too_large:
            continue
        looked_at += 1
        stages = _continued(one, padded, world_size, dtype, episode_tokens, seen)
        plan = plan_layout(one, world_size, hardware, vocabulary, episode_tokens, stages)
        if plan.fits:
            fitting.append((plan.seconds.total, one))
        else:
            too_large.add(key)
    fitting.sort(key=lambda pair: pair[0])
    chosen = [plan_layout(one, world_size, hardware, vocabulary, episode_tokens) for _, one in fitting[:best]]
    return [plan for plan in chosen if plan.fits], looked_at


def candidates(config: Config, world_size: int, hardware: Hardware) -> Iterator[Config]:
    """Layouts that divide the model and the world, with as many rows a step as the recipe has."""
    rows = {name: one.microbatches * config.batch.micro_batch_size for name, one in config.objectives.items()}
    for tensor in (size for size in (1, 2, 4, 8, 16) if size <= hardware.node_ranks):
        for pipeline in PIPELINES:
            if world_size % (tensor * pipeline):
                continue
            data = world_size // (tensor * pipeline)
            for recompute in RECOMPUTE:
                for micro in MICRO_BATCHES:
                    counts = {name: _microbatches(config, name, rows[name], micro, data) for name in config.objectives}
                    if all(counts.values()):
                        yield from _valid(config, tensor, pipeline, data, recompute, micro, counts)


def _microbatches(config: Config, name: str, rows: int, micro: int, data: int) -> int:
    """Of one objective; 0 where the rows do not divide. Episodes are packed into as many rows as they need."""
    if config.objectives[name].source.get("name") == "episodes":
        return max(config.objectives[name].microbatches // data, 1) * data
    return rows // micro if rows % (micro * data) == 0 else 0


def _valid(
    config: Config, tensor: int, pipeline: int, data: int, recompute: str, micro: int, counts: dict[str, int]
) -> Iterator[Config]:
    values = config.model_dump(mode="json")
    values["parallel"] |= {"tensor": tensor, "pipeline": pipeline, "data": data, "sequence_parallel": tensor > 1}
    values["model"]["recompute"] = recompute
    values["batch"]["micro_batch_size"] = micro
    for name, count in counts.items():
        values["objectives"][name]["microbatches"] = count
    try:
        yield parse_config(values)
    except ConfigError:
        return


def _continued(
    config: Config,
    padded: int,
    world_size: int,
    dtype: torch.dtype,
    episode_tokens: int,
    seen: dict[tuple[Any, ...], list[Stage]],
) -> list[Stage]:
    """First and last stage, which are the fullest and the busiest, continued from two numbers of layers and of rows
    that are measured once for each tensor size and kind of stage."""
    parallel = config.parallel
    data = world_size // (parallel.tensor * parallel.pipeline)
    works = workloads(config, data, episode_tokens)
    heads = sorted({head for work in works for head in work.heads})
    low, high = (_measured(config, layers, padded, dtype, heads, seen) for layers in MEASURED_LAYERS)
    layers, stages = config.model.num_layers // parallel.pipeline, []
    for index, short, long in zip((0, parallel.pipeline - 1), low, high):
        state = straight_line(short.state, long.state, *MEASURED_LAYERS, layers)
        if parallel.distributed_optimizer:
            state = replace(state, optimizer=state.optimizer // data)
        footprints = {}
        for rows in {work.rows for work in works}:
            a, b = (straight_line(one.footprints[1], one.footprints[2], 1, 2, rows) for one in (short, long))
            footprints[rows] = straight_line(a, b, *MEASURED_LAYERS, layers)
        stages.append(Stage(index, state, footprints))
    return stages


def _measured(
    config: Config, layers: int, padded: int, dtype: torch.dtype, heads: Sequence[str], seen: dict[tuple[Any, ...], Any]
) -> list[Stage]:
    """With one data-parallel rank and one or two stages of `layers` layers."""
    parallel, pipeline = config.parallel, min(2, config.parallel.pipeline)
    key = (parallel.tensor, pipeline, config.model.recompute, layers)
    if key not in seen:
        model = config.model.model_copy(update={"num_layers": layers * pipeline})
        mesh = parallel.model_copy(update={"pipeline": pipeline, "data": 1})
        small = config.model_copy(update={"model": model, "parallel": mesh})
        seen[key] = measure_stages(small, padded, parallel.tensor * pipeline, dtype, (1, 2), heads)
    return seen[key]
