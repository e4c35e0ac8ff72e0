"""A rank of each pipeline stage, measured on pretended tensors: Megatron's modules, gradient buffers and optimizer.

A stage of many layers is measured with two and with three of them and continued in a straight line, which is exact
for what each layer adds; shorter ones are measured as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import torch

from rlpt.config import Config
from rlpt.distributed.pretended import bytes_of, pretended_rank, stage_rank
from rlpt.models.footprint import Footprint, microbatch_footprint
from rlpt.models.gpt import assemble_gpt
from rlpt.models.policy import Policy
from rlpt.training.optimizer import Optimizer, wrap_data_parallel

MEASURED_LAYERS = (2, 3)
Figures = TypeVar("Figures", "State", Footprint)


@dataclass(frozen=True)
class State:
    """What a rank holds between steps, in bytes, and how many parameters that is."""

    parameters: int
    weights: int
    gradients: int
    optimizer: int  # moments and, of narrower weights, the float32 ones


@dataclass(frozen=True)
class Stage:
    """A rank of one pipeline stage."""

    index: int
    state: State
    footprints: dict[int, Footprint]  # rows of a microbatch -> what it costs


def measure_stages(
    config: Config,
    vocabulary: int,
    world_size: int,
    dtype: torch.dtype,
    rows: Sequence[int],
    heads: Sequence[str] = (),
    indices: Sequence[int] | None = None,
) -> list[Stage]:
    """Of every pipeline stage, or of those in `indices`. `vocabulary` is padded. Stages in the middle are alike: one of
    them is measured."""
    last = config.parallel.pipeline - 1
    found: dict[str, Stage] = {}
    stages = []
    for index in range(last + 1) if indices is None else indices:
        kind = f"{index == 0} {index == last}"
        if kind not in found:
            found[kind] = _stage(config, vocabulary, world_size, dtype, rows, heads, index)
        stages.append(Stage(index, found[kind].state, found[kind].footprints))
    return stages


def _stage(
    config: Config,
    vocabulary: int,
    world_size: int,
    dtype: torch.dtype,
    rows: Sequence[int],
    heads: Sequence[str],
    index: int,
) -> Stage:
    def measure(layers: int) -> tuple[State, list[Footprint]]:
        pipeline = config.parallel.pipeline
        model = config.model.model_copy(update={"num_layers": layers * pipeline})
        shorter = config.model_copy(update={"model": model})
        with pretended_rank(shorter, stage_rank(shorter, index, world_size), world_size, dtype) as (device, mesh):
            policy = Policy(assemble_gpt(shorter, vocabulary, mesh, device, heads), mesh, device, vocabulary)
            footprints = [microbatch_footprint(policy, one, config.batch.sequence_length) for one in rows]
            wrapped = wrap_data_parallel(shorter, policy.gpt, device)
            return state_of(policy, Optimizer(shorter, wrapped, device)), footprints

    layers = config.model.num_layers // config.parallel.pipeline
    if layers <= MEASURED_LAYERS[1]:
        state, footprints = measure(layers)
        return Stage(index, state, dict(zip(rows, footprints, strict=True)))
    low, high = MEASURED_LAYERS
    (state, short), (longer, long) = measure(low), measure(high)
    pairs = zip(rows, short, long, strict=True)
    return Stage(
        index,
        straight_line(state, longer, low, high, layers),
        {one: straight_line(a, b, low, high, layers) for one, a, b in pairs},
    )


def state_of(policy: Policy, optimizer: Optimizer) -> State:
    """Of a rank's policy and its optimizer, whose moments are allocated here."""
    parameters = list(policy.gpt.parameters())
    return State(
        parameters=sum(one.numel() for one in parameters),
        weights=bytes_of(parameters),
        gradients=bytes_of(optimizer.buffers()),
        optimizer=optimizer.allocated_bytes(),
    )


def straight_line(a: Figures, b: Figures, low: int, high: int, at: int) -> Figures:
    """Figures that are `a` at `low` and `b` at `high`, at `at`."""
    values = {one.name: (getattr(a, one.name), getattr(b, one.name)) for one in fields(a)}
    return type(a)(**{name: x + (at - low) * (y - x) // (high - low) for name, (x, y) in values.items()})
