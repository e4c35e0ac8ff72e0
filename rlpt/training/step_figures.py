"""What a step adds up: figures of its passes, counts over ranks, and what it did in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlpt.algorithms.base import LossTerms

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

    def joined(self, other: Sums) -> Sums:
        """With the figures of other objectives."""
        return Sums(self.totals | other.totals, self.maxima | other.maxima)


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

    def joined(self, other: Counts, order: Sequence[str]) -> Counts:
        """With those of other objectives, in the order given."""
        divisors, tokens = self.divisors | other.divisors, self.tokens | other.tokens
        positions = self.positions | other.positions
        return Counts(
            {name: divisors[name] for name in order},
            {name: tokens[name] for name in order},
            {name: positions[name] for name in order},
        )
