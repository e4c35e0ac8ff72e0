"""Optimizer steps of the tiny model on random batches that are the same at every layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from helpers.tiny_model import STEPS, build, heads_of, played_batch, random_batch, wake

import rlpt.algorithms  # noqa: F401 (registers)
from rlpt import registry
from rlpt.algorithms.base import Algorithm, Baselines, LossTerms, Outcomes, masked_sum
from rlpt.batch import Batch, Scores
from rlpt.config import Config
from rlpt.distributed.mesh import Mesh
from rlpt.training.checkpoint_weights import load_weights, save_weights
from rlpt.training.optimizer import Optimizer, wrap_data_parallel
from rlpt.training.schedule import Schedule
from rlpt.training.step import TrainStep

DENSITIES = {"text": (0.9, 0.2, 0.5, 0.05), "play": (0.3, 0.8, 0.0, 0.6), "critic": (0.4, 0.1, 0.7, 0.5)}
AWAKE = 0.05  # larger ones make steps in float32 drift apart
CRITIC = "squared_error"  # not registered: it is no one's but these tests'


@dataclass(frozen=True)
class SquaredError(Algorithm):
    """The least that trains a head: sum of (value - return)^2."""

    head: ClassVar[str] = "value"

    def __call__(self, scores: Scores, batch: Batch) -> LossTerms:
        assert scores.values is not None
        return LossTerms(masked_sum((scores.values - batch.returns).square(), batch.loss_mask), {})

    def advantages(self, outcomes: Outcomes, baselines: Baselines) -> np.ndarray:
        return np.zeros(len(outcomes.rewards))


def algorithms_of(config: Config) -> dict[str, Algorithm]:
    """Objective -> algorithm."""
    specs = {name: one.algorithm for name, one in config.objectives.items()}
    return {
        name: SquaredError() if spec == {"name": CRITIC} else registry.create("algorithm", spec)
        for name, spec in specs.items()
    }


def global_batches(step: int, config: Config) -> dict[str, list[Batch]]:
    """The microbatches of each objective, of very different mask densities."""
    kinds = {"text": random_batch, "play": played_batch, "critic": critic_batch}
    return {
        name: [kinds[name](name, 100 * step + i, DENSITIES[name][i]) for i in range(objective.microbatches)]
        for name, objective in config.objectives.items()
    }


def critic_batch(objective: str, key: int, density: float) -> Batch:
    return played_batch(objective, key, density, head=SquaredError.head)


def own(batches: Mapping[str, list[Batch]], mesh: Mesh) -> dict[str, list[Batch]]:
    """This data-parallel rank's microbatches."""
    return {name: part[mesh.data.rank :: mesh.data.size] for name, part in batches.items()}


def run_steps(
    config: Config,
    first: int = 0,
    stop: int = STEPS,
    *,
    load: Path | None = None,
    save: Path | None = None,
    begins: bool = False,
) -> list[list[float]]:
    """Optimizer steps on the same global batches: losses by objective, then the gradient norm; of every fifth also each
    objective's gradient norm and their cosines. Goes on from a checkpoint, and leaves one, where a folder is given.
    With `begins`, the others begin with text, and are some half passes far when they get all batches."""
    mesh, policy = build(config, heads_of(algorithms_of(config)))
    model = wrap_data_parallel(config, policy.gpt, policy.device)
    optimizer = Optimizer(config, model, policy.device)
    if load is not None:
        state = load_weights(load, sharded(policy, optimizer, is_loading=True))
        policy.gpt.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    else:
        wake(policy, config, std=AWAKE)
    step, schedule, rows = TrainStep(policy, model, optimizer, algorithms_of(config)), Schedule(config), []
    for number in range(first, stop):
        batches, plan, begun = own(global_batches(number, config), mesh), schedule.plan(number, {}), None
        if begins and number % 5 != 4:
            begun = step.begin({"text": batches["text"]}, plan)
            with torch.inference_mode():
                assert all(begun.advance() for _ in range(number % 5))
        result = step(batches, plan, number % 5 == 4, begun)
        row = [*(result.losses[name] for name in config.objectives), result.gradient_norm]
        if number % 5 == 4:
            compared = [key for key in sorted(result.metrics) if "gradient" in key]
            row += [result.metrics[key] for key in compared]
        rows.append(row)
    if save is not None:
        save_weights(save, sharded(policy, optimizer, is_loading=False))
    return rows


def sharded(policy: Any, optimizer: Optimizer, is_loading: bool) -> dict[str, Any]:
    """What a checkpoint of model and optimizer holds."""
    with policy.device.megatron():
        model = policy.gpt.sharded_state_dict()
        return {"model": model, "optimizer": optimizer.sharded_state_dict(model, is_loading)}
