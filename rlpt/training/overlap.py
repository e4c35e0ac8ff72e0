"""Takes a step's batches; what waits for no play is trained on while the longest episodes of the play finish.

A decode step of a few rows reads all weights for little arithmetic, and leaves most of a GPU idle; text goes there, and
the step is on-policy all the same: the weights change once everything is in. How much of the idle time it gets depends
on how kernels share a card (docs/results.md). Its passes run in the same order whether they run beside the play or
after it, so the gradient doesn't depend on how long episodes take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rlpt.batch import Batch
from rlpt.config import Config
from rlpt.distributed.device import Lanes
from rlpt.rollout.generator import PolicyGenerator
from rlpt.training.schedule import StepPlan
from rlpt.training.sources import PLAYING, WAITING_FOR_NONE, Stream
from rlpt.training.step import Begun, TrainStep


@dataclass(frozen=True)
class Taken:
    """A step's batches by objective, and how far it is with those of them that it has begun with."""

    batches: dict[str, list[Batch]]
    begun: Begun | None = None
    beside: float = 0.0  # share of the begun passes that ran beside the play


class Overlap:
    """Takes batches, and begins to train on some of them."""

    def __init__(
        self, config: Config, generator: PolicyGenerator, streams: Mapping[str, Stream], train_step: TrainStep
    ) -> None:
        self.config, self.generator, self.streams, self.train_step = config, generator, streams, train_step
        self.mesh, device = train_step.mesh, train_step.device
        self.share = config.batch.overlap
        self.lanes = Lanes(device.torch_device)

    def take(self, plan: StepPlan, may_begin: bool) -> Taken:
        """All objectives' batches of the step. All ranks call it."""
        active = [name for name, number in plan.microbatches.items() if number]
        first = [name for name in active if self._source(name) in WAITING_FOR_NONE]
        plays = any(self._source(name) in PLAYING for name in active)
        if not (may_begin and self.share > 0 and first and plays):
            return Taken({name: self._batches(name, plan) for name in active})
        begun = self.train_step.begin({name: self._batches(name, plan) for name in first}, plan)
        with self.lanes.urgent(), self.generator.beside(lambda: self._advance(begun), self.share):
            played = {name: self._batches(name, plan) for name in active if name not in first}
        taken = {**begun.batches, **played}
        return Taken({name: taken[name] for name in active}, begun, begun.done / begun.number)

    def _advance(self, begun: Begun) -> None:
        """Half a pass, where the device has done the last one: more would only wait on it. Tensor-parallel ranks can't
        see each other's devices and must do the same, so they don't look."""
        if self.mesh.tensor.size > 1 or self.lanes.is_free():
            with self.lanes.patient():
                begun.advance()

    def _batches(self, name: str, plan: StepPlan) -> list[Batch]:
        number = plan.microbatches[name] // self.mesh.data.size
        return self.streams[name].source.take(number, step=plan.step, share=plan.shares[name])

    def _source(self, name: str) -> str:
        source: str = self.config.objectives[name].source["name"]
        return source
