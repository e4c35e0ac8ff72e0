"""What each step consists of: microbatches and coefficient of every objective, learning rate, share of episodes.

A plan is a pure function of the step and of the running signals, so every rank makes the same one and a resumed
run needs nothing but its step and its signals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rlpt.config import Config
from rlpt.config_objectives import GateConfig, value_at


@dataclass(frozen=True)
class StepPlan:
    """One optimizer step. Every mapping has an entry for every objective of the configuration."""

    step: int
    microbatches: dict[str, int]  # over all data-parallel ranks; 0 where the objective takes no part
    coefficients: dict[str, float]  # of the mean loss over the objective's count
    shares: dict[str, float]  # in (0, 1]: scales how many groups of problems an episode source plays
    lr: float
    weight_decay: float


@dataclass(frozen=True)
class Schedule:
    """Step -> StepPlan, from a whole configuration."""

    config: Config

    def plan(self, step: int, signal: Mapping[str, float]) -> StepPlan:
        """The plan of `step` in [0, schedule.steps).

        `signal` holds, for the objectives that have played, the running fraction in [0, 1] of groups whose rewards
        differed; an objective without one yet plays its whole share.
        """
        assert 0 <= step < self.config.schedule.steps, f"step {step} of {self.config.schedule.steps}"
        objectives = self.config.objectives
        return StepPlan(
            step=step,
            microbatches={k: v.microbatches_at(step) for k, v in objectives.items()},
            coefficients={k: value_at(v.coefficient, step) * self._balance(k, step) for k, v in objectives.items()},
            shares={k: gated_share(v.gate, signal.get(k)) for k, v in objectives.items()},
            lr=self.learning_rate(step),
            weight_decay=self.config.optimizer.weight_decay,
        )

    def _balance(self, objective: str, step: int) -> float:
        """lambda for the lower objective of a bilevel run, 1 - lambda for the upper, 1 for the others."""
        bilevel = self.config.bilevel
        if bilevel is None or objective not in (bilevel.upper, bilevel.lower):
            return 1.0
        balance = value_at(bilevel.balance, step)
        return balance if objective == bilevel.lower else 1.0 - balance

    def learning_rate(self, step: int) -> float:
        """Linear warm-up to the peak at its last step, then the decay, which ends at the last step of the run.

        cosine: half a cosine from the peak to min_lr_ratio times it (Loshchilov and Hutter, 1608.03983).
        wsd: the peak, then a line to that floor over the last wsd_decay_fraction of the steps (after MiniCPM,
        2404.06395). constant: the peak. A warm-up that is longer than the run never reaches the peak.
        """
        schedule, optimizer = self.config.schedule, self.config.optimizer
        if step < schedule.warmup_steps:
            return optimizer.lr * (step + 1) / schedule.warmup_steps
        peak_step = max(schedule.warmup_steps - 1, 0)
        decay_steps = schedule.steps - 1 - peak_step
        if schedule.decay == "constant" or decay_steps <= 0:
            return optimizer.lr
        if schedule.decay == "cosine":
            height = (1 + math.cos(math.pi * (step - peak_step) / decay_steps)) / 2
        else:
            decay_steps = min(decay_steps, max(1, round(schedule.wsd_decay_fraction * schedule.steps)))
            height = min(1.0, (schedule.steps - 1 - step) / decay_steps)
        return optimizer.lr * (optimizer.min_lr_ratio + (1 - optimizer.min_lr_ratio) * height)


def gated_share(gate: GateConfig | None, signal: float | None) -> float:
    """clamp(signal / gate.full, gate.floor, 1); 1 without a gate or while no signal is known."""
    if gate is None or signal is None:
        return 1.0
    assert 0 <= signal <= 1, f"signal {signal} is not a fraction"
    return min(1.0, max(gate.floor, signal / gate.full))


def update_signal(old: float | None, observed: float, decay: float) -> float:
    """The running mean decay * old + (1 - decay) * observed; it starts at the first observation."""
    return observed if old is None else decay * old + (1 - decay) * observed
