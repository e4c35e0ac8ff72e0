"""The part of the configuration that says what is learned when: objectives, their turns and ramps, weight copies."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Spec = dict[str, Any]  # {name: registered name, **options}


class Section(BaseModel):
    """Base of every section: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Ramp(Section):
    """A number that moves in a straight line with the optimizer steps, from `start` to `end`, and then stays."""

    start: float = Field(description="the number before it moves")
    end: float = Field(description="the number once it has moved")
    steps: int = Field(ge=1, description="optimizer steps from start to end")
    begin: int = Field(0, ge=0, description="the step at which it begins to move")

    def at(self, step: int) -> float:
        """The number in force at `step`."""
        done = min(max(step - self.begin, 0) / self.steps, 1.0)
        return self.start * (1 - done) + self.end * done


def value_at(value: float | Ramp, step: int) -> float:
    """A number or a ramp -> the number in force at `step`."""
    return value.at(step) if isinstance(value, Ramp) else value


class GateConfig(Section):
    """Scales an objective's share by the fraction of its groups that carried signal lately."""

    full: float = Field(0.2, gt=0, le=1, description="fraction of groups with signal from which the share is whole")
    floor: float = Field(0.25, gt=0, le=1, description="the least share, so that signal can come back")
    decay: float = Field(0.9, ge=0, lt=1, description="of the running mean of that fraction")


class TurnsConfig(Section):
    """Takes turns with other objectives: `active` steps of every `period`, from its `offset` on."""

    period: int = Field(ge=1, description="steps after which the turns begin again")
    active: int = Field(ge=1, description="steps of each period that it takes part in")
    offset: int = Field(0, ge=0, description="steps of each period that pass first")

    @model_validator(mode="after")
    def _fits(self) -> TurnsConfig:
        if self.offset + self.active > self.period:
            raise ValueError(f"offset + active = {self.offset + self.active} is beyond period={self.period}")
        return self

    def has(self, step: int) -> bool:
        """Whether `step`, counted from the objective's start, is one of its turns."""
        return self.offset <= step % self.period < self.offset + self.active


class ObjectiveConfig(Section):
    """One source of batches read by one algorithm."""

    algorithm: Spec = Field(description="{name: next_token | reinforce | rloo | grpo | dapo | ppo | ..., **options}")
    source: Spec = Field(description="{name: corpus | episodes | demonstrations | evidence | step_values, **options}")
    microbatches: int = Field(1, ge=1, description="microbatches a step over all data-parallel ranks")
    coefficient: float | Ramp = Field(
        1.0, description="weight of this objective's mean loss in the step's loss; a number or {start, end, steps}"
    )
    start_step: int = Field(0, ge=0, description="first step that this objective takes part in")
    stop_step: int | None = Field(None, ge=1, description="first step that it takes no part in any more; null: none")
    turns: TurnsConfig | None = Field(None, description="takes turns: {period, active, offset} in steps from its start")
    gate: GateConfig | None = Field(None, description="share gated on signal (episodes only)")
    reference: str = Field("", description="name of the snapshot that the algorithm's KL term refers to")
    stop_above: dict[str, float] = Field(
        default_factory=dict,
        description="figure of this objective -> value above which the run stops before the update and the worst rows "
        "are written, e.g. {behavior_kl: 1, largest_ratio: 1000}",
    )

    @field_validator("coefficient")
    @classmethod
    def _not_negative(cls, value: float | Ramp) -> float | Ramp:
        if min([value.start, value.end] if isinstance(value, Ramp) else [value]) < 0:
            raise ValueError("must be 0 or more")
        return value

    @model_validator(mode="after")
    def _starts_before_it_stops(self) -> ObjectiveConfig:
        if self.stop_step is not None and self.stop_step <= self.start_step:
            raise ValueError(f"stop_step={self.stop_step} is not after start_step={self.start_step}")
        return self

    def is_active(self, step: int) -> bool:
        """Whether it takes part in optimizer step `step`."""
        if step < self.start_step or (self.stop_step is not None and step >= self.stop_step):
            return False
        return self.turns is None or self.turns.has(step - self.start_step)

    def microbatches_at(self, step: int) -> int:
        """Microbatches of optimizer step `step` over all data-parallel ranks; 0 where it takes no part."""
        return self.microbatches if self.is_active(step) else 0

    @property
    def first_step(self) -> int:
        """The first optimizer step that it takes part in."""
        return self.start_step + (0 if self.turns is None else self.turns.offset)

    def active_steps(self, steps: int) -> int:
        """How many of the first `steps` optimizer steps it takes part in."""
        return sum(map(self.is_active, range(steps)))


class SnapshotConfig(Section):
    """A named copy of the weights: one more set of them in memory."""

    update: Literal["never", "interval", "ema", "pool"] = Field(
        "never",
        description="never: the weights as they were at `start_step`; interval: anew every `interval` steps; ema: "
        "moves to decay x itself + (1 - decay) x the weights after each step; pool: the last `keep` taken every "
        "`interval` steps, as NAME@STEP",
    )
    start_step: int = Field(0, ge=0, description="the step before which it is first taken")
    interval: int = Field(100, ge=1, description="of interval and pool, in optimizer steps")
    decay: float = Field(0.999, ge=0, le=1, description="of ema")
    keep: int = Field(4, ge=1, description="copies of a pool")

    @property
    def copies(self) -> int:
        """The most copies that there will be at one time."""
        return self.keep if self.update == "pool" else 1


class BilevelConfig(Section):
    """Cooperative SFT and RL (BRIDGE, Chen et al.): the adapters maximise what demonstrations say plus what RL gains by
    them; the weights learn both; a shadow copy of the weights learns by RL alone, under the same adapters."""

    upper: str = Field(description="objective of the demonstrations")
    lower: str = Field(description="objective of the episodes")
    balance: float | Ramp = Field(
        0.5, description="lambda: the lower objective's share; the upper has 1 - lambda (times their coefficients)"
    )
    meta: bool = Field(True, description="false: no shadow and no gain term: plain joint training of the two")

    @model_validator(mode="after")
    def _are_two(self) -> BilevelConfig:
        if self.upper == self.lower:
            raise ValueError(f"upper and lower are both '{self.upper}'")
        return self

    @field_validator("balance")
    @classmethod
    def _is_share(cls, value: float | Ramp) -> float | Ramp:
        ends = [value.start, value.end] if isinstance(value, Ramp) else [value]
        if not all(0 <= end <= 1 for end in ends):
            raise ValueError("must be between 0 and 1")
        return value
