"""Which problems of a step are this rank's: they go round the data-parallel ranks in turn."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

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


def in_turn(parts: Sequence[Sequence[Sequence[Any]]]) -> list[Any]:
    """What each rank has of each of its problems, put back into problem order: any number of ranks gives the same."""
    turns = zip_longest(*parts, fillvalue=())
    return [one for turn in turns for group in turn for one in group]
