"""How often a run will have read each shard of its blend, worked out before it starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlpt.data.blend import BlendOptions
from rlpt.errors import DataError

MOST_EPOCHS = 4  # up to which repeated text is worth about what new text is: Muennighoff et al. 2023, 2305.16264


@dataclass(frozen=True)
class ShardPlan:
    """What a run reads of one shard, if it gets to its last step."""

    label: str
    tokens: int
    first_share: float  # of rows, at the first step that reads the blend
    last_share: float
    rows: float
    epochs: float

    @property
    def warning(self) -> str:
        """A sentence about too many epochs, or ""."""
        if self.epochs <= MOST_EPOCHS:
            return ""
        return (
            f"warning: {self.label} is read {self.epochs:.1f} times; beyond {MOST_EPOCHS} epochs repeated text is "
            "worth less and less (2305.16264): add text, lower its weight, or train for fewer steps"
        )

    def cells(self) -> tuple[str, ...]:
        """Label, tokens, share at the start and at the end, rows, epochs, for a table."""
        shares = (f"{self.first_share:.1%}", f"{self.last_share:.1%}")
        return (self.label, f"{self.tokens:,}", *shares, f"{self.rows:,.0f}", f"{self.epochs:.2f}")


def plan_blend(
    options: BlendOptions,
    tokens: Sequence[int],
    sequence_length: int,
    rows_at: Callable[[int], int],
    steps: int,
) -> list[ShardPlan]:
    """What each shard, of `tokens` each, gives to a run of `steps` steps that takes `rows_at(step)` rows. Raises
    DataError for a shard without a row."""
    schedule = options.schedule(tokens, steps)
    active = [step for step in range(steps) if rows_at(step)] or [0]
    shares = zip(schedule.at(active[0]), schedule.at(active[-1]), strict=True)
    columns = zip(options.blend, tokens, shares, schedule.rows(rows_at, steps), strict=True)
    return [
        ShardPlan(entry.label, count, *ends, rows, rows / rows_an_epoch(entry.path, count, sequence_length))
        for entry, count, ends, rows in columns
    ]


def remarks(options: BlendOptions, plans: Sequence[ShardPlan], steps: int) -> list[str]:
    """What to be warned of: shards that are read too often, phases that the run ends before."""
    late = [
        f"warning: phases.{index} begins at step {phase.begin}, and the run ends after {steps} steps"
        for index, phase in enumerate(options.phases)
        if phase.step(steps) >= steps
    ]
    return [plan.warning for plan in plans if plan.warning] + late


def rows_an_epoch(prefix: Path, num_tokens: int, sequence_length: int) -> int:
    """Rows of T + 1 tokens, neighbours sharing one, that a shard holds. Raises DataError where there is none."""
    if num_tokens < sequence_length + 1:
        raise DataError(
            f"{prefix}: {num_tokens} tokens are less than one row of batch.sequence_length + 1 = "
            f"{sequence_length + 1}; add text, or lower batch.sequence_length"
        )
    return (num_tokens - 1) // sequence_length
