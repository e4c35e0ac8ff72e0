"""The Environment contract: a task of several turns. The policy writes a turn, the environment answers.

    <|prompt|>NAME<|result|>what is seen first<|turn|>a turn<|end|><|result|>what is seen then<|turn|>...<|end|>

An environment fills in `setup` (what is drawn), `begin` (the first observation), `turn` (what a well-formed turn does)
and `oracle` (the next turn of a perfect player). All are pure: an Observation carries the environment's whole state, so
that episodes can be branched, replayed and compared. As a Task, its answer is the turns, separated by spaces, and
`verify` replays them.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rlpt.tasks.base import Task, random_text
from rlpt.template import END, PROMPT, RESULT, TURN
from rlpt.types import Problem

TAG_SYMBOLS = "abcdefghijklmnopqrstuvwxyz0123456789"
INVALID = "?"  # what is seen after a turn that is empty, too long or written with other characters


@dataclass(frozen=True)
class Observation:
    """What an environment shows before the policy's next turn, and what that turn may be."""

    text: str  # what the policy reads
    state: Any  # the environment's own, immutable, never shown
    turns_left: int  # how many turns may still be taken
    legal: str  # characters that the next turn may hold
    limit: int  # its greatest length, in characters
    done: bool = False
    score: float = 0.0  # credit in [0, 1] for what was reached so far; exactly 1 if and only if that is the goal


@dataclass(frozen=True)
class Environment(Task):
    """Turns and observations. `alphabet` holds the characters of every turn and the space that separates turns."""

    kind: ClassVar[str] = "environment"
    unique_answer: ClassVar[bool] = False

    @abstractmethod
    def setup(self, rng: random.Random, level: int) -> Mapping[str, Any]:
        """What a problem of `level` consists of, JSON-able: the problem's `meta`."""

    @abstractmethod
    def begin(self, problem: Problem) -> Observation:
        """What is seen before the first turn; its text alone tells problems apart."""

    @abstractmethod
    def turn(self, observation: Observation, text: str) -> Observation:
        """After a well-formed turn. `turns_left` is counted by `act`; a set `done` ends the episode."""

    @abstractmethod
    def oracle(self, observation: Observation) -> str:
        """The next turn of a perfect player, which may look at the state."""

    def is_well_formed(self, observation: Observation, text: str) -> bool:
        """Whether `text` is a turn that `observation` allows."""
        return 0 < len(text) <= observation.limit and set(text) <= set(observation.legal)

    def is_right(self, observation: Observation, text: str) -> bool:
        """Whether `text` is a perfect player's next turn; to be overridden where others than the oracle's are, too."""
        return text == self.oracle(observation)

    def act(self, observation: Observation, text: str) -> Observation:
        """After any turn at all: one that is not well formed is used up and changes nothing else."""
        assert not observation.done, "the episode is over"
        well_formed = self.is_well_formed(observation, text)
        after = self.turn(observation, text) if well_formed else replace(observation, text=INVALID)
        turns_left = observation.turns_left - 1
        done = after.done or turns_left <= 0
        # Not by `replace`, which takes twice as long: long episodes are mostly this.
        return Observation(after.text, after.state, turns_left, after.legal, after.limit, done, after.score)

    def play(self, problem: Problem) -> list[tuple[str, Observation]]:
        """(turn, what is seen after it) of the oracle's episode."""
        observation, taken = self.begin(problem), []
        while not observation.done:
            text = self.oracle(observation)
            observation = self.act(observation, text)
            taken.append((text, observation))
        return taken

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """`setup`, and the oracle's turns as the answer."""
        meta = self.setup(rng, level)
        problem = Problem(self.name, 0, level, "", "", meta)
        prompt = f"{self.name} {self.begin(problem).text}"
        return prompt, " ".join(text for text, _ in self.play(problem)), meta

    def grade(self, problem: Problem, answer: str) -> float:
        """Replays the turns: the score reached; below 1 before the end, and 0 for turns after it."""
        observation = self.begin(problem)
        for text in answer.split(" "):
            if observation.done:
                return 0.0
            observation = self.act(observation, text)
        return observation.score if observation.done else min(observation.score, 0.99)

    def solution(self, problem: Problem) -> str:
        """The oracle's turns."""
        return problem.answer

    def check_steps(self, problem: Problem, trace: str) -> list[float]:
        """A turn is right where a perfect player could have taken it."""
        observation, scores = self.begin(problem), []
        for text in trace.split():
            scores.append(float(not observation.done and self.is_right(observation, text)))
            if not observation.done:
                observation = self.act(observation, text)
        return scores

    def random_answer(self, problem: Problem, rng: random.Random) -> str:
        """Turns of legal characters and end marks, all equally likely, to the end of the episode."""
        observation, taken = self.begin(problem), []
        while not observation.done:
            taken.append(random_text(observation.legal, observation.limit, rng))
            observation = self.act(observation, taken[-1])
        return " ".join(taken)

    def document(self, problem: Problem, trace: str = "") -> str:
        """The oracle's episode as the policy would live it."""
        taken = self.play(problem)
        return opening_text(self, self.begin(problem)) + "".join(turn_text(*step) for step in taken)


def joined_length(turns: int, limit: int) -> int:
    """The longest text of `turns` turns, each at most one character too long, and of the spaces between them."""
    return turns * (limit + 2) - 1


def episode_tag(rng: random.Random) -> str:
    """Two symbols that tell apart problems of which nothing else may be seen at first. They are drawn alone, so that
    nothing can be learnt from them."""
    return "".join(rng.choice(TAG_SYMBOLS) for _ in range(2))


def opening_text(environment: Environment, first: Observation) -> str:
    """The marked text before the first turn."""
    return PROMPT + environment.name + shown_text(first)


def shown_text(observation: Observation) -> str:
    """The marked text of what is seen, up to where the next turn begins."""
    return f"{RESULT}{observation.text}{TURN}"


def turn_text(text: str, after: Observation) -> str:
    """The marked text of a turn and of what is seen after it."""
    return text + END + ("" if after.done else shown_text(after))
