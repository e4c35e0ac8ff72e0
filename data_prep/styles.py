"""Which style of worked trace each synthesised document has, and which level: keyed draws from weights.

For `data_prep.config`:
    styles: StyleWeights = Field(default_factory=lambda: {"steps": 1.0}, description=STYLES_HELP)
    level_weights: LevelWeights = Field(default_factory=list, description=LEVEL_WEIGHTS_HELP)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

from pydantic import Field

from data_prep.documents import Document
from rlpt.errors import ConfigError
from rlpt.tasks.base import Task, keyed_hash
from rlpt.tasks.styles import STYLES, Style, check_style, worked_document

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
StyleWeights = Annotated[dict[Style, Weight], Field(min_length=1)]
LevelWeights = list[Weight]
STYLES_HELP = f"style of the worked trace -> weight ({', '.join(STYLES)}), among the documents of `trace_share`"
LEVEL_WEIGHTS_HELP = "weight of each of `levels`, drawn by the document's seed; empty: one level after the other"
_DRAWS = 2**64  # `keyed_hash` is below
T = TypeVar("T")


@dataclass(frozen=True)
class StyleMix:
    """Documents in a mix of styles. The style is a function of the seed alone, whatever the order of the weights."""

    weights: Mapping[Style, float]
    trace_share: float = 1.0  # of the documents; the others go from the prompt to the answer

    def check(self, task: Task, where: str) -> None:
        """Raises ConfigError, naming the key `where`, unless the task has all styles of the mix."""
        for style in self.weights:
            try:
                check_style(task, style)
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from None

    def style(self, seed: int) -> Style:
        """The style of the document of this seed."""
        if keyed_hash("trace", seed) >= self.trace_share * _DRAWS:
            return "answer_only"
        known = [style for style in STYLES if style in self.weights]
        return weighted(known, [self.weights[style] for style in known], keyed_hash("style", seed))

    def document(self, task: Task, seed: int, level: int) -> Document:
        """The worked solution of problem (seed, level). Raises ConfigError where it has none of the seed's style, and
        ValueError for an evaluation seed."""
        text = worked_document(task, task.sample(seed, level), self.style(seed))
        return Document(text, f"task {task.name}, level {level}, seed {seed}")


def check_level_weights(levels: Sequence[int], weights: Sequence[float], where: str) -> None:
    """Raises ConfigError unless there is a weight for each level, or none at all."""
    if weights and len(weights) != len(levels):
        raise ConfigError(f"{where}: {len(weights)} weights for {len(levels)} levels; give one for each, or none")


def level_of(levels: Sequence[int], weights: Sequence[float], seed: int, index: int) -> int:
    """The level of document `index`, whose seed is `seed`: by weight, or in turn where there are no weights."""
    return weighted(levels, weights, keyed_hash("level", seed)) if weights else levels[index % len(levels)]


def weighted(items: Sequence[T], weights: Sequence[float], draw: int) -> T:
    """The item at `draw`, a number below 2^64, when each fills its share of them."""
    left = draw / _DRAWS * sum(weights)
    for item, weight in zip(items, weights, strict=True):
        left -= weight
        if left < 0:
            return item
    return items[-1]
