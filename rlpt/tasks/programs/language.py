"""What a micro-language is: programs, inputs and outputs are short texts, and every program ends.

Nothing outside the interpreter can be reached by a program, so whatever a policy writes can be run.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from rlpt import registry
from rlpt.tasks.base import characters_of

BETWEEN, GIVES, UNKNOWN = ":", "=", "?"  # `program:input=output`; no language has them as characters


@dataclass(frozen=True)
class Limits:
    """What programs, inputs and outputs of one level may be."""

    program: int  # characters, as are the next two
    given: int
    output: int
    commands: str  # that a program may hold
    values: str  # that an input or an output may hold


class MicroLanguage(ABC):
    """A total language. Subclasses are registered as a `language` and have no options."""

    levels: ClassVar[tuple[Limits, ...]]  # the limits never shrink from one to the next
    identity: ClassVar[tuple[str, str]]  # a program that gives its input back, and such an input

    @abstractmethod
    def run(self, program: str, given: str) -> str | None:
        """The output for any two texts at all; None where the text is no program, does not end within the language's
        own bounds, or has no output that can be written down."""

    @abstractmethod
    def trace(self, program: str, given: str) -> list[str]:
        """The steps of a run that has an output, without spaces."""

    @abstractmethod
    def draft(self, rng: random.Random, level: int) -> str:
        """A random program of the level's full length, which may yet fail."""

    def given(self, rng: random.Random, level: int) -> str:
        """A random input of the level's full length."""
        limits = self.levels[level]
        return "".join(rng.choice(limits.values) for _ in range(limits.given))

    def fits(self, program: str, given: str, level: int) -> bool:
        """Whether both are within the level's limits and not empty."""
        limits = self.levels[level]
        return (
            0 < len(program) <= limits.program
            and 0 < len(given) <= limits.given
            and characters_of(limits.commands).issuperset(program)
            and characters_of(limits.values).issuperset(given)
        )

    def output(self, program: str, given: str, level: int) -> str | None:
        """The output, where program, input and output all are within the level's limits and the output is not empty;
        else None."""
        if not self.fits(program, given, level):
            return None
        output, limits = self.run(program, given), self.levels[level]
        if not output or len(output) > limits.output or not characters_of(limits.values).issuperset(output):
            return None
        return output


@lru_cache(maxsize=64)
def language(name: str) -> MicroLanguage:
    """The language registered as `name`. Raises ConfigError with the near name."""
    found: MicroLanguage = registry.create("language", {"name": name}, "language")
    return found
