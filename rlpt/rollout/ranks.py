"""Which problems of a step are this rank's: they go round the data-parallel ranks in turn."""

from __future__ import annotations

from rlpt.batch import SourceContext
from rlpt.errors import ConfigError


def check_share(key: str, number: int, context: SourceContext) -> None:
    """Raises ConfigError naming the source's `key` unless `number` a step can be shared out evenly."""
    if number % context.data_size:
        raise ConfigError(
            f"objectives.{context.objective}.source.{key}={number} is not divisible by the data-parallel size "
            f"{context.data_size}"
        )


def own(first: int, number: int, context: SourceContext) -> list[int]:
    """This rank's of the problems `first`, `first` + 1, ..., in all `number` of them, wherever the numbers begin."""
    return list(range(first, first + number))[context.data_rank :: context.data_size]
