"""One optimizer step over any mix of objectives, blind to algorithms.

Normalisation contract: an objective returns a sum over loss tokens. Its global loss-token count is all-reduced over
data-parallel ranks once, and the step's loss is sum over objectives of coefficient * total / count. So the gradient
does not depend on how rows are split into microbatches or ranks, and one objective's rows never scale another's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from megatron.core.distributed import finalize_model_grads
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor

from rlpt.algorithms.base import Objective
from rlpt.batch import Batch
from rlpt.models.policy import Policy
from rlpt.training.optimizer import Optimizer
from rlpt.training.schedule import StepPlan

Batches = Mapping[str, list[Batch]]


@dataclass(frozen=True)
class StepResult:
    """What a step did; equal on every rank."""

    losses: dict[str, float]  # objective -> mean loss over its loss tokens
    metrics: dict[str, float]  # "objective/name" -> mean over its loss tokens
    tokens: dict[str, int]  # objective -> loss tokens over all ranks
    gradient_norm: float
    skipped: bool  # the loss or the gradient was not finite: weights are unchanged


class TrainStep:
    """forward and backward of every objective's microbatches, then one update."""

    def __init__(
        self, policy: Policy, model: Any, optimizer: Optimizer | None, objectives: Mapping[str, Objective]
    ) -> None:
        self.policy, self.model, self.optimizer, self.objectives = policy, model, optimizer, objectives
        self.mesh, self.device = policy.mesh, policy.device
        policy.gpt.config.finalize_model_grads_func = _finalize

    def __call__(self, batches: Batches, plan: StepPlan, compare_gradients: bool = False) -> StepResult:
        """Trains on `batches` (objective -> this rank's microbatches) by `plan`'s coefficients and rates.

        `compare_gradients` also reports each objective's gradient norm and their pairwise cosines, from the same
        backward passes run one objective at a time.
        """
        assert self.optimizer is not None, "a step needs an optimizer"
        counts = self._global_counts(batches)
        self.optimizer.zero_grad()
        if compare_gradients:
            sums, diagnostics = self._objective_by_objective(batches, plan, counts)
        else:
            sums, diagnostics = self.forward_backward(batches, plan.coefficients, counts), {}
        means = self._means(sums, counts)
        losses = {name: means.pop(f"{name}/loss") for name in batches}
        norm = self.optimizer.gradient_norm()
        finite = math.isfinite(norm) and all(math.isfinite(value) for value in losses.values())
        if finite:
            self.optimizer.step(plan.lr, plan.weight_decay)
        return StepResult(losses, means | diagnostics, counts, norm, skipped=not finite)

    def forward_backward(
        self, batches: Batches, coefficients: Mapping[str, float], counts: Mapping[str, int]
    ) -> dict[str, float]:
        """Adds the gradient of the mixed loss to the buffers and reduces it; returns this replica's metric sums."""
        queue = [batch for part in batches.values() for batch in part]
        sums: dict[str, Tensor] = {}

        def forward_step(iterator: Iterator[Batch], module: Any) -> tuple[Tensor, Any]:
            batch = next(iterator).to(self.device.torch_device)
            output = self.policy.forward(batch, module)

            def loss_function(hidden: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
                terms = self.objectives[batch.objective](self.policy.scores(hidden, batch), batch)
                for name, value in {"loss": terms.total.detach(), **terms.metrics}.items():
                    key = f"{batch.objective}/{name}"
                    sums[key] = sums.get(key, torch.zeros((), device=value.device)) + value.detach()
                loss = coefficients[batch.objective] * terms.total / max(1, counts[batch.objective])
                return loss, torch.ones((), dtype=torch.int, device=hidden.device), {}

            return output, loss_function

        with self.device.megatron():
            get_forward_backward_func()(
                forward_step_func=forward_step,
                data_iterator=iter(queue),
                model=[self.model],
                num_microbatches=len(queue),
                seq_length=queue[0].tokens.shape[1],
                micro_batch_size=queue[0].tokens.shape[0],
                forward_only=False,
            )
        return {key: float(value) for key, value in sums.items()}

    def _objective_by_objective(
        self, batches: Batches, plan: StepPlan, counts: Mapping[str, int]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """The same gradient, one objective at a time, so that their norms and cosines are known."""
        assert self.optimizer is not None
        sums: dict[str, float] = {}
        shares: dict[str, list[Tensor]] = {}
        total: list[Tensor] | None = None
        for name, part in batches.items():
            self.optimizer.zero_grad()
            sums |= self.forward_backward({name: part}, plan.coefficients, counts)
            shares[name] = self.optimizer.gradients()
            buffers = [buffer.clone() for buffer in self.optimizer.buffers()]
            total = buffers if total is None else [a + b for a, b in zip(total, buffers)]
        for buffer, value in zip(self.optimizer.buffers(), total or []):
            buffer.copy_(value)
        return sums, self._compare(shares)

    def _compare(self, shares: Mapping[str, list[Tensor]]) -> dict[str, float]:
        assert self.optimizer is not None
        names = list(shares)
        pairs = [(a, b) for i, a in enumerate(names) for b in names[i:]]
        products = torch.stack([_dot(shares[a], shares[b], self.device.torch_device) for a, b in pairs])
        dots = dict(zip(pairs, self.optimizer.sum_over_shares(products).tolist()))
        result = {f"{name}/gradient_norm": math.sqrt(max(0.0, dots[name, name])) for name in names}
        for a, b in pairs:
            if a != b:
                scale = math.sqrt(dots[a, a] * dots[b, b])
                result[f"gradient_cosine/{a}-{b}"] = dots[a, b] / scale if scale > 0 else 0.0
        return result

    def _global_counts(self, batches: Batches) -> dict[str, int]:
        """Loss tokens of each objective over all data-parallel ranks: one all-reduce."""
        local = torch.tensor(
            [sum(int(batch.loss_mask.sum()) for batch in part) for part in batches.values()],
            dtype=torch.int64,
            device=self.device.torch_device,
        )
        return dict(zip(batches, self.mesh.data.all_reduce(local).tolist()))

    def _means(self, sums: Mapping[str, float], counts: Mapping[str, int]) -> dict[str, float]:
        """Metric sums of the last stage -> means over loss tokens, on every rank."""
        names = self.mesh.pipeline.gather_objects(sorted(sums))[-1]
        values = torch.tensor([sums.get(n, 0.0) for n in names], dtype=torch.float64, device=self.device.torch_device)
        self.mesh.data.all_reduce(values)
        values = self.mesh.broadcast_from_last_stage(values)
        return {name: value / max(1, counts[name.split("/")[0]]) for name, value in zip(names, values.tolist())}


def _finalize(model: list[Any], num_tokens: Tensor | None = None, **options: Any) -> None:
    """Megatron's reductions without its division by a token count: the loss is normalised already."""
    finalize_model_grads(model, None, **options)


def _dot(a: list[Tensor], b: list[Tensor], device: torch.device) -> Tensor:
    total = torch.zeros((), dtype=torch.float64, device=device)
    for x, y in zip(a, b):
        total += (x.double() * y.double()).sum()
    return total
