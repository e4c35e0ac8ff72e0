"""What the worker of the layout tests sees of a model with adapters and scalar heads, and of every algorithm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from helpers.tiny_model import OBJECTIVES, build, heads_of, played_batch, tiny_config, wake
from helpers.tiny_training import CRITIC, own, run_steps

import rlpt.algorithms  # noqa: F401 (registers)
from rlpt import registry
from rlpt.config import Config
from rlpt.models.initialization import draw_shard, global_parameter_name
from rlpt.models.policy import Policy
from rlpt.training.optimizer import wrap_data_parallel
from rlpt.training.step import TrainStep

ADAPTER = {"rank": 3, "alpha": 6, "lr_scale": 0.5}
THREE = OBJECTIVES | {"critic": {"name": CRITIC}}
VARIANTS = {
    "grpo with a KL term": {"name": "grpo", "kl_coefficient": 0.1},
    "grpo with an entropy bonus": {"name": "grpo", "entropy_bonus": 0.1},
}
DENSITIES = (0.7, 0.3)
BEFORE, AFTER = 3, 2  # steps before and after the layout changes
RESHARDED = {  # layout that leaves a checkpoint -> layouts that go on from it
    "tensor": ("sequence", "pipeline", "data"),
    "pipeline": ("tensor",),
    "tensor_replicated_optimizer": ("data_replicated_optimizer",),
}


def algorithm_specs() -> dict[str, dict[str, Any]]:
    """Label -> {name, **options}: every registered algorithm as it comes, and variants."""
    return {name: {"name": name} for name in registry.names("algorithm")} | VARIANTS


def adapted_config(parallel: dict[str, Any]) -> Config:
    """Text, play and a critic on a model with adapters."""
    return tiny_config(parallel, algorithms=THREE, microbatches=2, adapter=ADAPTER)


def adapted_figures(layouts: Mapping[str, dict[str, Any]], scratch: Path) -> dict[str, Any]:
    """Layout -> figures, under names of their own; `scratch` is a folder that all ranks share."""
    seen: dict[str, Any] = {"adapted_steps": {}, "algorithms": {}}
    for name, parallel in layouts.items():
        seen["adapted_steps"][name] = run_steps(adapted_config(parallel))
        if name != "data_replicated_optimizer":  # a gradient has no optimizer
            seen["algorithms"][name] = algorithm_gradients(parallel)
    if "tensor" in layouts:
        seen["resharded"] = resharded_steps(layouts, scratch)
    return seen


def resharded_steps(layouts: Mapping[str, dict[str, Any]], scratch: Path) -> dict[str, list[list[float]]]:
    """`FROM to TO` -> what the steps after a change of layout look like."""
    sources = {**layouts, "tensor_replicated_optimizer": layouts["tensor"] | {"distributed_optimizer": False}}
    seen = {}
    for source, targets in RESHARDED.items():
        checkpoint = scratch / source
        if torch.distributed.get_rank() == 0:
            checkpoint.mkdir()
        torch.distributed.barrier()
        run_steps(adapted_config(sources[source]), 0, BEFORE, save=checkpoint)
        for name in targets:
            config = adapted_config(layouts[name])
            seen[f"{source} to {name}"] = run_steps(config, BEFORE, BEFORE + AFTER, load=checkpoint)
    return seen


def algorithm_gradients(parallel: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Label -> {metrics, gradient} of one pass of the adapted model over the same global batches, in float64."""
    specs = algorithm_specs()
    created = {label: registry.create("algorithm", spec) for label, spec in specs.items()}
    config = tiny_config(parallel | {"distributed_optimizer": False}, "float64", init_std=0.15, adapter=ADAPTER)
    mesh, policy = build(config, heads_of(created))
    wake(policy, config)
    model = wrap_data_parallel(config, policy.gpt, policy.device)
    seen = {}
    for label, algorithm in created.items():
        step = TrainStep(policy, model, None, {label: algorithm})
        batches = [
            played_batch(label, i, density, head=algorithm.head, num_candidates=4)
            for i, density in enumerate(DENSITIES)
        ]
        mine = own({label: batches}, mesh)
        counts = step.global_counts(mine)
        model.zero_grad_buffer()
        losses, metrics, _ = step._reduce(step.forward_backward(mine, {label: 1.0}, counts), counts, True)
        seen[label] = {"metrics": metrics | losses, "gradient": gradient_figures(policy, config)}
    return seen


def gradient_figures(policy: Policy, config: Config) -> dict[str, list[float]]:
    """Parameter of the whole model -> the norm of its gradient and its product with a random tensor of its full shape,
    put together from the shards; the same on every rank."""
    mesh, first_layer = policy.mesh, policy.mesh.pipeline.rank * (2 // config.parallel.pipeline)
    figures = {}
    for name, parameter in policy.gpt.named_parameters():
        gradient = parameter.main_grad.double()
        pattern = draw_shard(name, parameter, 1.0, config, mesh)
        pair = torch.stack([gradient.square().sum(), (gradient * pattern).sum()])
        if getattr(parameter, "partition_dim", -1) >= 0:
            pair = mesh.tensor.all_reduce(pair)
        full_name = global_parameter_name(name, first_layer, config.model.tie_embeddings)
        figures[full_name] = [float(pair[0].sqrt()), float(pair[1])]
    stages = mesh.pipeline.gather_objects(figures)
    return {name: pair for stage in stages for name, pair in stage.items()}
