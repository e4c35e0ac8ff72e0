"""What the worker of the layout tests sees of one update in all its forms."""

from __future__ import annotations

from typing import Any

from adapted import gradient_figures
from helpers.tiny_model import VOCABULARY, build, tiny_config

import rlpt.algorithms  # noqa: F401 (registers)
from rlpt import registry
from rlpt.bench.update_forms import FORMS, Workload, draw_trajectories, make_form
from rlpt.rollout.packing import RowShape
from rlpt.training.optimizer import wrap_data_parallel
from rlpt.training.step import TrainStep

WORKLOAD = Workload(groups=6, samples=5, prompt=(5, 40), mean=9.0, longest=40, vocabulary=VOCABULARY, seed=3)
ALGORITHMS = {
    "over tokens": {"name": "dapo"},
    "over sequences": {"name": "grpo", "normalizer": "sequence"},
    "a ratio a sequence": {"name": "gspo", "clip_high": 0.02},
    "masked sequences": {"name": "grpo", "mask_sequences": 1.25},
}
MICROBATCHES = 2  # a rank: rows of some 290 positions, tiles; and of some 100, where half is silent and prompts shared


def update_figures(parallel: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Algorithm -> form -> {loss, gradient, positions, lengths} in float64."""
    config = tiny_config(parallel | {"distributed_optimizer": False}, "float64", init_std=0.15)
    mesh, policy = build(config)
    model = wrap_data_parallel(config, policy.gpt, policy.device)
    trajectories = draw_trajectories(WORKLOAD, silent_share=0.5)
    mine = [one for one in trajectories if one.peers % mesh.data.size == mesh.data.rank]
    shape = RowShape(120, VOCABULARY, 0, multiple=2)
    seen: dict[str, dict[str, dict[str, Any]]] = {}
    for label, spec in ALGORITHMS.items():
        step = TrainStep(policy, model, None, {"play": registry.create("algorithm", spec)})
        seen[label] = {}
        for form in FORMS:
            batches = {"play": make_form(form, mine, "play", MICROBATCHES, shape)}
            counts = step.global_counts(batches)
            model.zero_grad_buffer()
            losses, _, _ = step._reduce(step.forward_backward(batches, {"play": 1.0}, counts), counts, True)
            seen[label][form] = {
                "loss": losses["play"],
                "gradient": gradient_figures(policy, config),
                "positions": counts.positions["play"],
                "lengths": [batch.tokens.shape[1] for batch in batches["play"]],
            }
    return seen
