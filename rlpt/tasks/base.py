"""The Task contract, keyed randomness, disjoint seeds and the graded credit that the families share.

A family fills in `generate` (a problem from a keyed generator), `grade` (credit for a well-formed answer),
`solution` (a worked trace) and `answer_limit`; `sample` and `verify` around them are the same for all. A policy at
random weights must be able to start: with every legal character and the end mark equally likely, level 0 is solved
5 to 30 % of the time, and a wrong answer earns credit for what is right in it. Games (`games/base.py`) and
environments (`environments/base.py`) are tasks too: a game's problem is a position, an environment's answer the turns
that were taken.
"""

from __future__ import annotations

import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from rlpt import registry
from rlpt.errors import ConfigError
from rlpt.template import solution_text
from rlpt.types import Problem

DIGITS = "0123456789"
HELD_OUT_ONE_IN = 8  # of a task's prompts, those that only evaluation asks
SPLIT_ATTEMPTS = 64  # draws to find a prompt on the seed's side; a level with few prompts may have none there
WRONG_CREDIT = 0.9  # the most that a wrong answer may earn
RELIABILITY = 0.99  # of the reference solver, a unit of effort
_EVALUATION_BIT = 1 << 62


def keyed_hash(*parts: object) -> int:
    """64 bits of BLAKE2b over the parts' texts: equal in every process, unrelated for neighbouring parts."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def keyed_random(task: str, seed: int, level: int, use: str = "problem") -> random.Random:
    """A generator that depends on (task, seed, level, use) alone."""
    return random.Random(keyed_hash(task, seed, level, use))


def train_seed(stream_seed: int, index: int) -> int:
    """Seed (63 bits, the top one 0) of item `index` of a training stream."""
    return keyed_hash("train", stream_seed, index) & (_EVALUATION_BIT - 1)


def evaluation_seed(index: int) -> int:
    """Seed (63 bits, the top one 1, so never a training seed) of held-out item `index`."""
    return keyed_hash("evaluation", index) & (_EVALUATION_BIT - 1) | _EVALUATION_BIT


def is_evaluation_seed(seed: int) -> bool:
    """Whether `evaluation_seed` made it."""
    return bool(seed & _EVALUATION_BIT)


def is_held_out(prompt: str) -> bool:
    """Whether a problem with this prompt belongs to evaluation: one prompt in `HELD_OUT_ONE_IN`, by its hash."""
    return keyed_hash("split", prompt) % HELD_OUT_ONE_IN == 0


def position_credit(answer: str, expected: str) -> float:
    """Share of positions that hold the expected character, over the longer of the two; 1 only for equality."""
    right = sum(given == wanted for given, wanted in zip(answer, expected))
    return right / max(len(answer), len(expected), 1)


def capped(credit: float) -> float:
    """1 for exactly 1; else at most `WRONG_CREDIT`, so that no rounding makes a wrong answer a right one."""
    return 1.0 if credit == 1.0 else WRONG_CREDIT * credit


@lru_cache(maxsize=1024)
def characters_of(alphabet: str) -> frozenset[str]:
    """Its characters, as a set that is built once."""
    return frozenset(alphabet)


def random_text(characters: str, limit: int, rng: random.Random) -> str:
    """What a policy writes whose legal characters and end mark are equally likely: one character above `limit` where
    the end mark does not come in time."""
    text = ""
    while len(text) <= limit:
        at = rng.randrange(len(characters) + 1)
        if at == len(characters):
            return text
        text += characters[at]
    return text


@dataclass(frozen=True)
class Task(ABC):
    """A family of problems with an oracle. Subclasses are frozen dataclasses whose fields are their YAML options."""

    name: ClassVar[str]
    kind: ClassVar[str] = "task"  # task | game | environment
    source: ClassVar[str] = "native"  # native | open_spiel | reasoning_gym: whose problems they are
    unique_answer: ClassVar[bool] = True  # whether each problem has one right answer
    max_level: ClassVar[int] = 9
    most_steps: ClassVar[int] = 512  # of a trace that are looked at: more than any worked solution has
    alphabet: ClassVar[str] = DIGITS  # every character that an answer may hold
    thought_alphabet: ClassVar[str] = DIGITS + " "  # every character that a worked trace may hold
    behaviour_marks: ClassVar[Mapping[str, str]] = {}  # behaviour -> the mark of its steps in a trace

    def sample(self, seed: int, level: int) -> Problem:
        """The problem of (seed, level), the same in every process. Raises ConfigError for a level that is not there."""
        if not 0 <= level <= self.max_level:
            raise ConfigError(f"task {self.name}: level {level} is outside 0..{self.max_level}")
        for attempt in range(SPLIT_ATTEMPTS):
            prompt, answer, meta = self.generate(keyed_random(self.name, seed, level, f"problem {attempt}"), level)
            if is_held_out(prompt) == is_evaluation_seed(seed):
                break
        return Problem(self.name, seed, level, prompt, answer, meta)

    def verify(self, problem: Problem, answer: str) -> float:
        """Credit in [0, 1] for any text at all: 1 for a right answer, at most `WRONG_CREDIT` for a wrong one, 0 for one
        that is empty, longer than the level's limit or written with other characters. Nothing is evaluated."""
        if not answer or len(answer) > self.answer_limit(problem.level):
            return 0.0
        if not characters_of(self.alphabet).issuperset(answer):
            return 0.0
        return capped(self.grade(problem, answer))

    def verify_steps(self, problem: Problem, trace: str) -> list[float]:
        """1 or 0 for each space-separated step of any text at all; steps beyond `most_steps` are wrong unread."""
        steps = trace.split()
        read, unread = steps[: self.most_steps], steps[self.most_steps :]
        return self.check_steps(problem, " ".join(read)) + [0.0] * len(unread)

    def check_steps(self, problem: Problem, trace: str) -> list[float]:
        """What `verify_steps` says of a trace of at most `most_steps` steps. As it stands for tasks with one right
        trace: a step is right where the oracle has the same one."""
        steps, expected = trace.split(), self.solution(problem).split()
        return [float(i < len(expected) and step == expected[i]) for i, step in enumerate(steps)]

    def document(self, problem: Problem, trace: str = "") -> str:
        """The marked text of a corpus that shows the oracle's answer, after `trace` unless that is empty."""
        return solution_text(problem, trace)

    def random_answer(self, problem: Problem, rng: random.Random) -> str:
        """The answer of a policy whose legal characters and end mark are equally likely at every token."""
        return random_text(self.legal_characters(problem.level), self.answer_limit(problem.level), rng)

    def effort(self, problem: Problem) -> int:
        """Units of work of the reference solver, which slips at each of them with probability 1 - `RELIABILITY`: the
        characters of prompt, worked trace and answer."""
        return len(problem.prompt) + len(self.solution(problem)) + len(problem.answer)

    def legal_characters(self, level: int) -> str:
        """Characters that answers of `level` may hold, known without the answer (the legal-token mask)."""
        return self.alphabet

    @abstractmethod
    def answer_limit(self, level: int) -> int:
        """Longest answer of `level`, in characters; non-decreasing in the level."""

    @abstractmethod
    def solution(self, problem: Problem) -> str:
        """The worked trace that leads to the oracle's answer: steps over `thought_alphabet`, separated by spaces."""

    @abstractmethod
    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """(prompt, answer, meta) of a problem of `level`; meta is JSON-able."""

    @abstractmethod
    def grade(self, problem: Problem, answer: str) -> float:
        """Credit in [0, 1] of a well-formed answer; exactly 1 if and only if it is right."""


def create_task(spec: Mapping[str, Any], where: str = "task") -> Task:
    """The task of `{name: ..., **options}`. Raises ConfigError that names the key under `where`."""
    return registry.create("task", spec, where)
