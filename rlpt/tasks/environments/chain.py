"""A chain of steps with one reward at its end: `a2 b1 c3: b` -> `1`, then `a` -> `2`, ..., and a slip ends it.

The combination lock of reinforcement learning (Kakade 2003, "On the Sample Complexity of Reinforcement Learning") with
the combination shown: what is asked for is to act, up to 64 times, on a rule that was seen only at the start.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from rlpt.registry import register
from rlpt.tasks.environments.base import Environment, Observation, joined_length
from rlpt.types import Problem

STEPS = (1, 2, 3, 4, 6, 8, 16, 32, 48, 64)  # by level
CUES = (3, 4, 4, 5, 5, 6, 6, 7, 8, 8)  # different cues, and as many actions, by level
CUE_SYMBOLS, ACTION_SYMBOLS = "abcdefgh", "12345678"


class ChainState(NamedTuple):
    """The rule, all cues, and which of them is shown."""

    rule: str  # the actions of cues a, b, c, ...
    cues: str
    at: int


@register("task", "chain")
@dataclass(frozen=True)
class Chain(Environment):
    """Level l: `STEPS[l]` steps over `CUES[l]` cues. The rule, a permutation, is shown once, with the first cue.

    A step a turn and none to spare. A wrong action ends the episode; the score is 1 after the last step and 0 before,
    sparse by design. At level 0 the one action is guessed among three with the end mark: 1 in 16.
    """

    name: ClassVar[str] = "chain"
    alphabet: ClassVar[str] = ACTION_SYMBOLS + " "
    thought_alphabet: ClassVar[str] = alphabet

    def answer_limit(self, level: int) -> int:
        """Of all turns."""
        return joined_length(STEPS[level], 1)

    def setup(self, rng: random.Random, level: int) -> Mapping[str, Any]:
        """A random permutation, and uniform cues."""
        count = CUES[level]
        rule = "".join(rng.sample(ACTION_SYMBOLS[:count], count))
        return {"rule": rule, "cues": "".join(rng.choices(CUE_SYMBOLS[:count], k=STEPS[level]))}

    def begin(self, problem: Problem) -> Observation:
        """The rule and the first cue."""
        rule, cues = problem.meta["rule"], problem.meta["cues"]
        shown = " ".join(map("".join, zip(CUE_SYMBOLS, rule)))
        return Observation(
            text=f"{shown}: {cues[0]}",
            state=ChainState(rule, cues, 0),
            turns_left=len(cues),
            legal=ACTION_SYMBOLS[: len(rule)],
            limit=1,
        )

    def turn(self, observation: Observation, text: str) -> Observation:
        """The next cue, or the end."""
        state: ChainState = observation.state
        if text != self.oracle(observation):
            return replace(observation, text="", done=True)
        at = state.at + 1
        if at == len(state.cues):
            return replace(observation, text="", done=True, score=1.0)
        return replace(observation, text=state.cues[at], state=ChainState(state.rule, state.cues, at))

    def oracle(self, observation: Observation) -> str:
        """The rule's action for the cue."""
        state: ChainState = observation.state
        return state.rule[CUE_SYMBOLS.index(state.cues[state.at])]
