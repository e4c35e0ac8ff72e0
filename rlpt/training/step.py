"""One optimizer step over any mix of objectives, blind to algorithms.

Normalisation contract: an objective returns a sum over loss tokens. Its count (loss tokens, or trajectories) is
all-reduced over data-parallel ranks once, and the step's loss is sum over objectives of coefficient * total / count. So
the gradient does not depend on how rows are split into microbatches or ranks, and one objective's rows never scale
another's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from megatron.core.distributed import finalize_model_grads
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor

from rlpt.algorithms.base import Objective
from rlpt.batch import Batch, Scores
from rlpt.errors import ConfigError
from rlpt.models.policy import Policy
from rlpt.registry import suggest
from rlpt.training.loss_slopes import loss_slopes
from rlpt.training.optimizer import Optimizer
from rlpt.training.passes import Pass, fill
from rlpt.training.schedule import StepPlan
from rlpt.training.step_figures import Counts, Key, StepResult, Sums

Batches = Mapping[str, list[Batch]]
PassLoss = Callable[[Pass, Tensor], Tensor]  # a pass and its hidden states [T, B, H] -> ()


@dataclass
class Begun:
    """The first part of a step, under way. Mutable: it advances."""

    batches: Batches
    counts: Counts
    sums: Sums
    halves: Iterator[None]  # of passes: forward, backward
    number: int  # of halves
    done: int = 0  # of them

    def advance(self) -> bool:
        """Runs half a pass; whether there was one left."""
        ran = next(self.halves, self) is not self
        self.done += ran
        return ran

    def finish(self) -> None:
        """Runs what is left."""
        while self.advance():
            pass


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

    def __call__(
        self, batches: Batches, plan: StepPlan, compare_gradients: bool = False, begun: Begun | None = None
    ) -> StepResult:
        """Trains on `batches` (objective -> this rank's microbatches) by `plan`'s coefficients and rates.

        `compare_gradients` also reports each objective's gradient norm and their pairwise cosines, from the same
        backward passes run one objective at a time. `begun`: this step's first part, with the same plan; some of
        `batches` are its.
        """
        assert self.optimizer is not None, "a step needs an optimizer"
        assert begun is None or not compare_gradients, "gradients that are compared are made one objective at a time"
        known = {} if begun is None else begun.batches
        rest = {name: part for name, part in batches.items() if name not in known}
        counts = self.global_counts(rest)
        if begun is not None:
            counts = counts.joined(begun.counts, list(batches))
        losses, metrics, norm, finite = self._gradient(rest, plan, counts, compare_gradients, begun)
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
        self, batches: Batches, plan: StepPlan, counts: Counts, compare_gradients: bool, begun: Begun | None = None
    ) -> tuple[dict[str, float], dict[str, float], float, bool]:
        """The gradient, in the buffers, on top of that of what has `begun`: losses, figures, its norm, and whether all
        ranks found it finite."""
        assert self.optimizer is not None
        diagnostics: dict[str, float] = {}
        if begun is not None:
            begun.finish()
            sums = self.forward_backward(batches, plan.coefficients, counts).joined(begun.sums)
            batches = {**begun.batches, **batches}
        elif compare_gradients:
            self.optimizer.zero_grad()
            sums, diagnostics = self._objective_by_objective(batches, plan, counts)
        else:
            self.optimizer.zero_grad()
            sums = self.forward_backward(batches, plan.coefficients, counts)
        for one in self.passes:
            diagnostics |= one.add(self, batches, plan, counts)
        norm = self.optimizer.gradient_norm()
        losses, metrics, finite = self._reduce(sums, counts, math.isfinite(norm))
        return losses, metrics | diagnostics, norm, finite

    def begin(self, batches: Batches, plan: StepPlan) -> Begun:
        """A step some of whose objectives' microbatches are there before the others': their passes may run now, in
        `Begun.advance`, and the call that gets all batches does what is left. Without pipeline parallelism only."""
        assert self.optimizer is not None, "a step needs an optimizer"
        assert self.mesh.pipeline.size == 1, "passes of several stages run together"
        self.optimizer.zero_grad()
        counts, sums = self.global_counts(batches), Sums()
        queue = self._queue(batches)
        halves = self._halves(queue, self._losses(plan.coefficients, counts, sums))
        return Begun(batches, counts, sums, halves, 2 * len(queue))

    def _halves(self, queue: Sequence[list[Batch]], loss_of: PassLoss) -> Iterator[None]:
        """Adds each pass's gradient to the buffers, its forward at one step of the iterator and its backward at the
        next; nothing travels between replicas. It may stand in the middle of an inference."""
        for parts in queue:
            with torch.inference_mode(False), torch.enable_grad(), self.device.megatron():
                together = Pass.of(parts, self.device.torch_device)
                loss = loss_of(together, self.policy.forward(together, self.model))
            yield
            with torch.inference_mode(False), self.device.megatron():
                loss.backward()  # type: ignore[no-untyped-call]
            del loss, together
            yield

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
        queue, sums = self._queue(batches), Sums()
        loss_of = self._losses(coefficients, counts, sums, observe)

        def forward_step(iterator: Iterator[list[Batch]], module: Any) -> tuple[Tensor, Any]:
            together = Pass.of(next(iterator), self.device.torch_device)
            output = self.policy.forward(together, module)

            def loss_function(hidden: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
                return loss_of(together, hidden), torch.ones((), dtype=torch.int, device=hidden.device), {}

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

    def _losses(
        self,
        coefficients: Mapping[str, float],
        counts: Counts,
        sums: Sums,
        observe: Callable[[Batch, Scores], None] | None = None,
    ) -> PassLoss:
        """What a pass adds to the step's loss, from its hidden states; its figures go to `sums` and its scores to
        whoever observes them."""
        observers = [observe] if observe is not None else [one.observe for one in self.passes]

        def loss_of_part(batch: Batch, live: Tensor, first: int, hidden: Tensor) -> Tensor:
            objective = self.objectives[batch.objective]
            slopes = loss_slopes(objective) if objective.is_token_local else None
            scores = self.policy.scores_at(hidden, batch, live, slopes, first)
            terms = objective(scores, batch)
            for show in observers:
                show(batch, scores)
            sums.add(batch.objective, terms)
            divisor = counts.divisors[batch.objective]
            return coefficients[batch.objective] * terms.total / (divisor if divisor > 0 else 1.0)

        def loss_of(together: Pass, hidden: Tensor) -> Tensor:
            losses = [loss_of_part(batch, live, first, hidden) for batch, live, first in together.places()]
            return sum(losses[1:], losses[0])

        return loss_of

    def _queue(self, batches: Batches) -> list[list[Batch]]:
        return fill([batch for part in batches.values() for batch in part], self.room, self._may_split)

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

    def _reduce(self, sums: Sums, counts: Counts, finite: bool) -> tuple[dict[str, float], dict[str, float], bool]:
        """The last stage's sums -> losses and metrics, and whether those and the gradient are finite, on every rank."""
        totals, largest, finite = self._over_ranks(sums, finite)
        losses = {name: totals[name, "loss"] / (divisor or 1.0) for name, divisor in counts.divisors.items()}
        metrics: dict[str, float] = {}
        for name, tokens in counts.tokens.items():
            means = {key: total / max(1, tokens) for (one, key), total in totals.items() if one == name}
            del means["loss"]
            metrics |= {f"{name}/{key}": value for key, value in means.items()}
            described = self.objectives[name].describe(means)
            metrics |= {f"{name}/{key}": value for key, value in described.items()}
        finite = finite and all(math.isfinite(value) for value in losses.values())
        if self.mesh.model.size > 1:
            finite = self.mesh.agree(finite)
        return losses, metrics | {f"{name}/{key}": value for (name, key), value in largest.items()}, finite

    def _over_ranks(self, sums: Sums, finite: bool) -> tuple[dict[Key, float], dict[Key, float], bool]:
        """Totals and maxima over data-parallel ranks of what the last pipeline stage has, and whether all of them say
        `finite`: one collective."""
        added, compared = self.mesh.pipeline.gather_objects((sorted(sums.totals), sorted(sums.maxima)))[-1]
        own = [float(finite), *(float(sums.totals.get(key, 0.0)) for key in added)]
        own += [float(sums.maxima.get(key, 0.0)) for key in compared]
        table = self.mesh.data.all_gather(torch.tensor(own, dtype=torch.float64, device=self.device.torch_device))
        whole = torch.cat([table[:, 1 : 1 + len(added)].sum(0), table[:, 1 + len(added) :].amax(0)])
        values = self.mesh.broadcast_from_last_stage(whole).tolist()
        return dict(zip(added, values)), dict(zip(compared, values[len(added) :])), bool(table[:, 0].all())

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
