"""The shadow of a bilevel run: a copy of the weights that learns by reward alone, under the same adapters.

Its gradient comes from a second pass over the lower objective's microbatches at (theta_hat, w). The part in the weights
moves the shadow, by an AdamW of its own; the part in the adapters is taken from the adapters' gradient. Copy and
moments are snapshots, and so are checkpointed with them. Memory: three more sets of the weights, and during a step two
of gradients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlpt.algorithms.bilevel import GainTerms, segment_sums, teacher_gradient
from rlpt.batch import Batch, Scores
from rlpt.config import Config
from rlpt.config_objectives import value_at
from rlpt.distributed.mesh import Mesh
from rlpt.models.lora import is_adapter
from rlpt.models.snapshots import Snapshots
from rlpt.training.optimizer import Optimizer
from rlpt.training.schedule import StepPlan
from rlpt.training.step import Batches, TrainStep
from rlpt.training.step_figures import Counts

SHADOW = "shadow"
MOMENTS = {"exp_avg": "shadow.exp_avg", "exp_avg_sq": "shadow.exp_avg_sq"}
NAMES = (SHADOW, *MOMENTS.values())


class Shadow:
    """A `GradientPass`. `updates` counts its own optimizer's steps."""

    def __init__(self, config: Config, snapshots: Snapshots, optimizer: Optimizer, mesh: Mesh) -> None:
        assert config.bilevel is not None
        self.config, self.bilevel = config, config.bilevel
        self.snapshots, self.optimizer, self.mesh = snapshots, optimizer, mesh
        self.updates = 0
        self._gradients: dict[str, Tensor] = {}
        self._norm = 0.0
        self._seen: list[tuple[np.ndarray, np.ndarray]] = []  # (log ratios, rewards) of each microbatch's trajectories
        self._seen_at_shadow: list[tuple[np.ndarray, np.ndarray]] = []

    def prepare(self) -> None:
        """Before the first step of a run: the shadow starts where the weights do."""
        for name in NAMES:
            self.snapshots.take(name)
        for name in MOMENTS.values():
            for tensor in self.snapshots.tensors(name).values():
                tensor.zero_()

    def observe(self, batch: Batch, scores: Scores) -> None:
        """Keeps what the gain needs of the lower objective at the training weights."""
        if batch.objective == self.bilevel.lower:
            self._seen.append(_trajectories(batch, scores))

    def add(self, step: TrainStep, batches: Batches, plan: StepPlan, counts: Counts) -> dict[str, float]:
        """The pass at the shadow; the adapters' gradient loses lambda times what they earn the shadow."""
        lower, self._seen_at_shadow = self.bilevel.lower, []
        if lower not in batches:
            self._gradients, self._seen = {}, []
            return {}
        kept = [buffer.clone() for buffer in self.optimizer.buffers()]
        self.optimizer.zero_grad()
        coefficient = value_at(self.config.objectives[lower].coefficient, plan.step)
        with self.snapshots.using(SHADOW, only=lambda name: not is_adapter(name)):
            step.forward_backward(
                {lower: batches[lower]},
                {lower: coefficient},
                counts,
                observe=lambda batch, scores: self._seen_at_shadow.append(_trajectories(batch, scores)),
            )
        found = {name: parameter.main_grad.clone() for name, parameter in self._parameters()}
        for name, parameter in self._parameters():
            if is_adapter(name):
                parameter.main_grad.zero_()
        self._norm = self.optimizer.gradient_norm()
        self._gradients = {name: gradient for name, gradient in found.items() if not is_adapter(name)}
        for buffer, value in zip(self.optimizer.buffers(), kept):
            buffer.copy_(value)
        balance = value_at(self.bilevel.balance, plan.step)
        for name, parameter in self._parameters():
            if is_adapter(name):
                parameter.main_grad.copy_(teacher_gradient(parameter.main_grad, found[name], balance))
        return self._figures()

    def update(self, plan: StepPlan) -> None:
        """Moves the shadow by its own gradient, clipped as the weights' is."""
        if not (self._gradients and math.isfinite(self._norm)):
            return
        self.updates += 1
        options = self.config.optimizer
        scale = min(1.0, options.clip_grad / (self._norm + 1e-6)) if options.clip_grad > 0 else 1.0
        copies = self.snapshots.tensors(SHADOW)
        groups: dict[float, list[str]] = {}
        for name in self._gradients:
            decay = 0.0 if copies[name].dim() == 1 else plan.weight_decay  # as Megatron does it
            groups.setdefault(decay, []).append(name)
        optimizer = torch.optim.AdamW(
            [{"params": [copies[name] for name in names], "weight_decay": decay} for decay, names in groups.items()],
            lr=plan.lr,
            betas=(options.beta1, options.beta2),
            eps=options.epsilon,
            fused=True,  # as the weights' is
        )
        moments = {key: self.snapshots.tensors(name) for key, name in MOMENTS.items()}
        for name, gradient in self._gradients.items():
            copies[name].grad = gradient.to(copies[name].dtype).mul_(scale) if scale < 1.0 else gradient
            state = {key: tensors[name] for key, tensors in moments.items()}
            done = torch.tensor(float(self.updates - 1), device=copies[name].device)
            optimizer.state[copies[name]] = {"step": done, **state}
        optimizer.step()
        for name in self._gradients:
            copies[name].grad = None
        self._gradients = {}

    def state_dict(self) -> dict[str, Any]:
        """JSON-able; the tensors are snapshots."""
        return {"updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self.updates = state["updates"]

    def _parameters(self) -> list[tuple[str, Any]]:
        return [(name, one) for name, one in self.snapshots.module.named_parameters() if one.requires_grad]

    def _figures(self) -> dict[str, float]:
        """The gain with its standard error over all ranks' trajectories, and the shadow's gradient norm."""
        ratios, rewards = _joined(self._seen)
        at_shadow, _ = _joined(self._seen_at_shadow)
        self._seen, self._seen_at_shadow = [], []
        sums = self.mesh.data.all_reduce(
            torch.tensor([rewards.sum(), len(rewards)], dtype=torch.float64, device=self._device)
        )
        baseline = float(sums[0] / max(float(sums[1]), 1.0))
        own = GainTerms.of(ratios, at_shadow, rewards, baseline)
        table = torch.tensor([own.number, own.total, own.squares], dtype=torch.float64, device=self._device)
        terms = GainTerms(*self.mesh.data.all_reduce(table).tolist())
        return {
            "bilevel/gain": terms.gain,
            "bilevel/gain_error": terms.error,
            "bilevel/shadow_gradient_norm": self._norm,
        }

    @property
    def _device(self) -> torch.device:
        return self.mesh.torch_device


def _trajectories(batch: Batch, scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """(log of policy / sampler over the actions of each trajectory, its reward)."""
    assert batch.behavior_logprobs is not None
    assert batch.episode_rewards is not None
    ratio = (scores.logprobs.detach() - batch.behavior_logprobs).double()
    sums, first = segment_sums(ratio, batch.loss_mask, batch.segments)
    return sums.cpu().numpy(), batch.episode_rewards.flatten()[first].double().cpu().numpy()


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    if not parts:
        return np.zeros(0), np.zeros(0)
    return np.concatenate([one for one, _ in parts]), np.concatenate([one for _, one in parts])
