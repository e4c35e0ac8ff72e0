"""One optimizer step over any mix of objectives, blind to algorithms.

Normalisation contract: an objective returns a sum over loss tokens. Its count (loss tokens, or trajectories) is
all-reduced over data-parallel ranks once, and the step's loss is sum over objectives of coefficient * total / count. So
the gradient does not depend on how rows are split into microbatches or ranks, and one objective's rows never scale
another's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from megatron.core.distributed import finalize_model_grads
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor

from rlpt.algorithms.base import LossTerms, Objective
from rlpt.batch import Batch, Scores
from rlpt.errors import ConfigError
from rlpt.models.policy import Policy
from rlpt.registry import suggest
from rlpt.training.loss_slopes import loss_slopes
from rlpt.training.optimizer import Optimizer
from rlpt.training.passes import Pass, fill
from rlpt.training.schedule import StepPlan

Batches = Mapping[str, list[Batch]]
Key = tuple[str, str]  # (objective, figure)


@dataclass
class Sums:
    """This rank's figures of one pass. Mutable: microbatches add to it."""

    totals: dict[Key, Tensor] = field(default_factory=dict)
    maxima: dict[Key, Tensor] = field(default_factory=dict)

    def add(self, objective: str, terms: LossTerms) -> None:
        """One microbatch's terms."""
        for key, value in {"loss": terms.total, **terms.metrics}.items():
            value = value.detach()
            at = (objective, key)
            self.totals[at] = self.totals[at] + value if at in self.totals else value
        for key, value in terms.maxima.items():
            value = value.detach()
            at = (objective, key)
            self.maxima[at] = torch.maximum(self.maxima[at], value) if at in self.maxima else value


@dataclass(frozen=True)
class StepResult:
    """What a step did; equal on every rank."""

    losses: dict[str, float]  # objective -> its loss: the total over its count
    metrics: dict[str, float]  # "objective/name" -> mean over its loss tokens, or the largest
    tokens: dict[str, int]  # objective -> loss tokens over all ranks
    positions: dict[str, int]  # objective -> positions of its rows over all ranks, padding and prompts included
    gradient_norm: float
    skipped: bool  # the loss or the gradient was not finite, twice: weights are unchanged
    transient: bool = False  # it was not finite, and was when the same batches were run again
    stopped: str = ""  # the figure that is above its bound, and why: weights are unchanged


@dataclass(frozen=True)
class Counts:
    """Over all data-parallel ranks, by objective."""

    divisors: dict[str, float]  # of the losses
    tokens: dict[str, int]  # loss tokens
    positions: dict[str, int]  # of the rows, padding and prompts included


class GradientPass(Protocol):
    """More gradient than the objectives' own, from passes at other weights (a shadow, a look-ahead)."""

    def observe(self, batch: Batch, scores: Scores) -> None:
        """Shown every microbatch's scores at the training weights, before `add`."""
        ...

    def add(self, step: TrainStep, batches: Batches, plan: StepPlan, counts: Counts) -> dict[str, float]:
        """Called between backward and update with the gradient in the buffers; returns figures."""
        ...

    def update(self, plan: StepPlan) -> None:
        """Called after the update, where there is one."""
        ...


class TrainStep:
    """forward and backward of every objective's microbatches, then one update.

    `stop_above`: objective -> figure -> the value above which nothing is updated. `passes` add to the gradient. `room`:
    positions of one forward and backward up to which microbatches run together, text filling what is left of them.
    """

    def __init__(
        self,
        policy: Policy,
        model: Any,
        optimizer: Optimizer | None,
        objectives: Mapping[str, Objective],
        stop_above: Mapping[str, Mapping[str, float]] | None = None,
        passes: Sequence[GradientPass] = (),
        room: int = 0,
    ) -> None:
        self.policy, self.model, self.optimizer, self.objectives = policy, model, optimizer, objectives
        self.stop_above, self.passes, self.room = stop_above or {}, passes, room
        self.mesh, self.device = policy.mesh, policy.device
        policy.gpt.config.finalize_model_grads_func = _finalize

    def __call__(self, batches: Batches, plan: StepPlan, compare_gradients: bool = False) -> StepResult:
        """Trains on `batches` (objective -> this rank's microbatches) by `plan`'s coefficients and rates.

        `compare_gradients` also reports each objective's gradient norm and their pairwise cosines, from the same
        backward passes run one objective at a time.
        """
        assert self.optimizer is not None, "a step needs an optimizer"
        counts = self.global_counts(batches)
        losses, metrics, norm, finite = self._gradient(batches, plan, counts, compare_gradients)
        transient = False
        if not finite:  # a fault of the hardware does not come back; what comes back is in weights or batches
            losses, metrics, norm, finite = self._gradient(batches, plan, counts, compare_gradients)
            transient = finite
        stopped = self._stopped(metrics | {f"{name}/loss": value for name, value in losses.items()}, counts)
        if finite and not stopped:
            self.optimizer.step(plan.lr, plan.weight_decay, norm)
            for one in self.passes:
                one.update(plan)
        return StepResult(losses, metrics, counts.tokens, counts.positions, norm, not finite, transient, stopped)

    def _gradient(
        self, batches: Batches, plan: StepPlan, counts: Counts, compare_gradients: bool
    ) -> tuple[dict[str, float], dict[str, float], float, bool]:
        """The gradient, in the buffers: losses, figures, its norm, and whether all ranks found it finite."""
        assert self.optimizer is not None
        self.optimizer.zero_grad()
        if compare_gradients:
            sums, diagnostics = self._objective_by_objective(batches, plan, counts)
        else:
            sums, diagnostics = self.forward_backward(batches, plan.coefficients, counts), {}
        losses, metrics = self._reduce(sums, counts)
        for one in self.passes:
            metrics |= one.add(self, batches, plan, counts)
        norm = self.optimizer.gradient_norm()
        finite = math.isfinite(norm) and all(math.isfinite(value) for value in losses.values())
        return losses, metrics | diagnostics, norm, self.mesh.agree(finite)

    def forward_backward(
        self,
        batches: Batches,
        coefficients: Mapping[str, float],
        counts: Counts,
        observe: Callable[[Batch, Scores], None] | None = None,
    ) -> Sums:
        """Adds the gradient of the mixed loss to the buffers and reduces it; returns this replica's figures.

        `observe` is shown the scores of every microbatch, in place of the step's gradient passes.
        """
        queue = fill([batch for part in batches.values() for batch in part], self.room, self._may_split)
        sums = Sums()
        observers = [observe] if observe is not None else [one.observe for one in self.passes]

        def loss_of(batch: Batch, first: int, hidden: Tensor) -> Tensor:
            objective = self.objectives[batch.objective]
            slopes = loss_slopes(objective) if objective.is_token_local else None
            scores = self.policy.scores(hidden, batch, slopes, first)
            terms = objective(scores, batch)
            for show in observers:
                show(batch, scores)
            sums.add(batch.objective, terms)
            divisor = counts.divisors[batch.objective]
            return coefficients[batch.objective] * terms.total / (divisor if divisor > 0 else 1.0)

        def forward_step(iterator: Iterator[list[Batch]], module: Any) -> tuple[Tensor, Any]:
            together = Pass.of(next(iterator), self.device.torch_device)
            output = self.policy.forward(together, module)

            def loss_function(hidden: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
                losses = [loss_of(batch, first, hidden) for batch, first in together.places()]
                return sum(losses[1:], losses[0]), torch.ones((), dtype=torch.int, device=hidden.device), {}

            return output, loss_function

        with self.device.megatron():
            get_forward_backward_func()(
                forward_step_func=forward_step,
                data_iterator=iter(queue),
                model=[self.model],
                num_microbatches=len(queue),
                seq_length=queue[0][0].tokens.shape[1],
                micro_batch_size=queue[0][0].tokens.shape[0],
                forward_only=False,
            )
        return sums

    def _may_split(self, batch: Batch) -> bool:
        """Rows that are learned from each for itself."""
        return len(batch.tokens) > 1 and self.objectives[batch.objective].is_token_local

    def _objective_by_objective(
        self, batches: Batches, plan: StepPlan, counts: Counts
    ) -> tuple[Sums, dict[str, float]]:
        """The same gradient, one objective at a time, so that their norms and cosines are known."""
        assert self.optimizer is not None
        sums = Sums()
        shares: dict[str, list[Tensor]] = {}
        total: list[Tensor] | None = None
        for name, part in batches.items():
            self.optimizer.zero_grad()
            found = self.forward_backward({name: part}, plan.coefficients, counts)
            sums.totals |= found.totals
            sums.maxima |= found.maxima
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

    def global_counts(self, batches: Batches) -> Counts:
        """Each objective's divisor, loss tokens and positions over all data-parallel ranks: one all-reduce."""
        local = torch.tensor(
            [
                [sum(self.objectives[name].count(batch) for batch in part) for name, part in batches.items()],
                [sum(float(batch.loss_mask.sum()) for batch in part) for part in batches.values()],
                [sum(float(batch.tokens.numel()) for batch in part) for part in batches.values()],
            ],
            dtype=torch.float64,
            device=self.device.torch_device,
        )
        divisors, tokens, positions = self.mesh.data.all_reduce(local).tolist()
        return Counts(
            dict(zip(batches, divisors)), dict(zip(batches, map(int, tokens))), dict(zip(batches, map(int, positions)))
        )

    def _reduce(self, sums: Sums, counts: Counts) -> tuple[dict[str, float], dict[str, float]]:
        """The last stage's sums -> losses and metrics, on every rank."""
        totals, largest = self._over_ranks(sums)
        losses = {name: totals[name, "loss"] / (divisor or 1.0) for name, divisor in counts.divisors.items()}
        metrics: dict[str, float] = {}
        for name, tokens in counts.tokens.items():
            means = {key: total / max(1, tokens) for (one, key), total in totals.items() if one == name}
            del means["loss"]
            metrics |= {f"{name}/{key}": value for key, value in means.items()}
            described = self.objectives[name].describe(means)
            metrics |= {f"{name}/{key}": value for key, value in described.items()}
        return losses, metrics | {f"{name}/{key}": value for (name, key), value in largest.items()}

    def _over_ranks(self, sums: Sums) -> tuple[dict[Key, float], dict[Key, float]]:
        """Totals and maxima over data-parallel ranks of what the last pipeline stage has, in one collective."""
        added, compared = self.mesh.pipeline.gather_objects((sorted(sums.totals), sorted(sums.maxima)))[-1]
        own = [float(sums.totals.get(key, 0.0)) for key in added]
        own += [float(sums.maxima.get(key, 0.0)) for key in compared]
        table = self.mesh.data.all_gather(torch.tensor(own, dtype=torch.float64, device=self.device.torch_device))
        whole = torch.cat([table[:, : len(added)].sum(0), table[:, len(added) :].amax(0)])
        values = self.mesh.broadcast_from_last_stage(whole).tolist()
        return dict(zip(added, values)), dict(zip(compared, values[len(added) :]))

    def _stopped(self, figures: Mapping[str, float], counts: Counts) -> str:
        """What is above its bound, "": nothing. Raises ConfigError for a bound of a figure that there is not."""
        for name, bounds in self.stop_above.items():
            for key, bound in bounds.items() if counts.tokens.get(name) else ():
                figure, where = f"{name}/{key}", f"objectives.{name}.stop_above"
                if figure not in figures:
                    known = sorted(one.removeprefix(f"{name}/") for one in figures if one.startswith(f"{name}/"))
                    raise ConfigError(f"{where}.{key}: no such figure of this objective{suggest(key, known)}")
                if not figures[figure] <= bound:
                    return f"{figure}={figures[figure]:g} is above its bound {bound:g} ({where})"
        return ""


def _finalize(model: list[Any], num_tokens: Tensor | None = None, **options: Any) -> None:
    """Megatron's reductions without its division by a token count: the loss is normalised already."""
    finalize_model_grads(model, None, **options)


def _dot(a: list[Tensor], b: list[Tensor], device: torch.device) -> Tensor:
    total = torch.zeros((), dtype=torch.float64, device=device)
    for x, y in zip(a, b):
        total += (x.double() * y.double()).sum()
    return total
