"""Skills one after the other, one a turn: `copy then reverse 3142` -> `3142`, `2413`.

Trained on skills apart (`chain: [copy]`, `chain: [reverse]`) and evaluated on `chain: [copy, reverse]`, it asks whether
what was learnt separately is put together.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from rlpt.errors import ConfigError
from rlpt.registry import register, suggest
from rlpt.tasks.base import DIGITS, position_credit
from rlpt.tasks.environments.base import Environment, Observation, joined_length
from rlpt.tasks.lists.digit_string import LENGTHS, SYMBOLS
from rlpt.types import Problem

DEPTHS = (1, 1, 2, 2, 2, 3, 3, 3, 4, 4)  # skills, by level
LONGEST_CHAIN = 8
SKILLS: Mapping[str, Callable[[str], str]] = {
    "copy": lambda text: text,
    "reverse": lambda text: text[::-1],
    "rotate": lambda text: text[1:] + text[:1],
    "sort": lambda text: "".join(sorted(text)),
}


class CompositionState(NamedTuple):
    """The skills in order, what each turn should be, and the credit of those that were taken."""

    skills: tuple[str, ...]
    expected: tuple[str, ...]
    credits: tuple[float, ...]


@register("task", "composition")
@dataclass(frozen=True)
class Composition(Environment):
    """Level l: `DEPTHS[l]` skills on a string of digits, as long and of as many symbols as those of the list tasks.

    Each turn applies one skill to what the turn before should have been; then the next skill's name is shown, and
    nothing of what was right. A turn a skill and none to spare. Credit: the share of positions right, averaged over the
    skills. At level 0 one of three symbols and the end mark are guessed: 1 in 16.
    """

    name: ClassVar[str] = "composition"
    alphabet: ClassVar[str] = DIGITS + " "
    thought_alphabet: ClassVar[str] = alphabet

    skills: tuple[str, ...] = ("copy", "reverse", "sort", "rotate")  # that are drawn from, with repetition
    chain: tuple[str, ...] = ()  # these in this order at every level, instead of drawn ones; empty: drawn

    def __post_init__(self) -> None:
        for key, names in (("skills", self.skills), ("chain", self.chain)):
            for name in names:
                if name not in SKILLS:
                    raise ConfigError(f"{key}: unknown skill '{name}'{suggest(name, sorted(SKILLS))}")
        if not self.skills:
            raise ConfigError("skills: name at least one")
        if len(self.chain) > LONGEST_CHAIN:
            raise ConfigError(f"chain: {len(self.chain)} skills, over {LONGEST_CHAIN}")

    def answer_limit(self, level: int) -> int:
        """Of all turns."""
        return joined_length(len(self.chain) or DEPTHS[level], LENGTHS[level])

    def setup(self, rng: random.Random, level: int) -> Mapping[str, Any]:
        """Uniform digits and skills."""
        text = "".join(rng.choices(DIGITS[: SYMBOLS[level]], k=LENGTHS[level]))
        return {"text": text, "skills": list(self.chain) or rng.choices(self.skills, k=DEPTHS[level])}

    def begin(self, problem: Problem) -> Observation:
        """All skills and the string."""
        text, skills = problem.meta["text"], tuple(problem.meta["skills"])
        expected = [text]
        for skill in skills:
            expected.append(SKILLS[skill](expected[-1]))
        return Observation(
            text=f"{' then '.join(skills)} {text}",
            state=CompositionState(skills, tuple(expected[1:]), ()),
            turns_left=len(skills),
            legal=DIGITS[: SYMBOLS[problem.level]],
            limit=len(text),
        )

    def turn(self, observation: Observation, text: str) -> Observation:
        """The next skill's name, or the end."""
        skills, expected, credits = observation.state
        credits = (*credits, position_credit(text, expected[len(credits)]))
        is_over = len(credits) == len(expected)
        return replace(
            observation,
            text="" if is_over else skills[len(credits)],
            state=CompositionState(skills, expected, credits),
            done=is_over,
            score=sum(credits) / len(expected),
        )

    def oracle(self, observation: Observation) -> str:
        """The skill of this turn, done right."""
        state: CompositionState = observation.state
        return state.expected[len(state.credits)]
