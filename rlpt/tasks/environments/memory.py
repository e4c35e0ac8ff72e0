"""Memory: a chain of look-ups in a bank of facts that no context holds: `a37` asks for relation 7 of relation 3 of a.

Turns are told apart by their length: two characters READ a key (`a3` brings back the fact `a3k`), three WRITE a value
under a key (`b5k`), one is the ANSWER (`k`). A small reasoning core that reads and writes a large memory is the third
proposal of Han et al. (2025, "General Intelligence Requires Reward-based Pretraining").
"""

from __future__ import annotations

import random
import string
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, ClassVar

from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.tasks.base import DIGITS, keyed_hash
from rlpt.tasks.environments.base import Environment, Observation, joined_length
from rlpt.tasks.environments.retrieval import Retriever, create_retriever
from rlpt.types import Problem

NUM_ENTITIES = (2, 4, 8, 16, 26, 26, 26, 26, 40, 52)  # by level
NUM_RELATIONS = (1, 2, 4, 6, 10, 10, 10, 10, 10, 10)  # by level
HOPS = (1, 1, 1, 1, 1, 2, 3, 4, 4, 4)  # by level
NUM_SMALL_BANKS = 1000
FIRST_SHARED = 4  # from this level on there is one bank; below it every problem has its own
READ_CREDIT = 0.7  # for the chain's facts that were read, where the answer is wrong or missing
NOTHING, WRITTEN = "-", "+"  # what is seen after a READ that finds nothing, and after a WRITE


@dataclass(frozen=True)
class MemoryState:
    """What has been asked and found so far."""

    bank: tuple[int, int]  # (which, level): the key of its facts
    relations: str  # of the chain
    entities: str  # along the chain: what is asked about, then the value of each hop
    num_read: int  # facts of the chain that were read, in order
    notes: tuple[tuple[str, str], ...]  # written (key, value), the newest last


@register("task", "memory")
@dataclass(frozen=True)
class Memory(Environment):
    """Level l: a bank of `NUM_ENTITIES[l]` x `NUM_RELATIONS[l]` facts, chains of `HOPS[l]` of them.

    A right answer scores 1; else `READ_CREDIT` x the share of the chain's facts that were read. The small banks below
    level `FIRST_SHARED` are drawn for every problem anew, since they could be learned by heart instead of read. From
    there on all problems ask one bank, and `bank` chooses its facts: no fact of another bank is one of bank 0, so a
    policy that looks things up can be tested on facts that it never saw. Without `tools` the whole bank stands before
    the question, and one turn answers: what a policy can do whose window is too short for it. What is written is there
    for the rest of the episode, and hides what stood under its key.
    """

    name: ClassVar[str] = "memory"
    alphabet: ClassVar[str] = string.ascii_letters + DIGITS + " "
    thought_alphabet: ClassVar[str] = string.ascii_letters + DIGITS + " "

    bank: int = 0
    tools: bool = True
    spare_turns: int = 3  # beyond one READ a hop and the answer
    retriever: dict[str, Any] = field(default_factory=lambda: {"name": "exact"})

    def __post_init__(self) -> None:
        if self.spare_turns < 0:
            raise ConfigError(f"spare_turns={self.spare_turns}: must not be negative")

    def max_turns(self, level: int) -> int:
        """A READ a hop, the answer, and the spare ones; without tools the answer alone."""
        return HOPS[level] + 1 + self.spare_turns if self.tools else 1

    def answer_limit(self, level: int) -> int:
        """All turns at their longest."""
        return joined_length(self.max_turns(level), self.turn_limit)

    @property
    def turn_limit(self) -> int:
        """A WRITE's length; without tools the answer's."""
        return 3 if self.tools else 1

    def setup(self, rng: random.Random, level: int) -> Mapping[str, Any]:
        """What is asked about, and the relations of the chain."""
        relations = "".join(rng.choice(DIGITS[: NUM_RELATIONS[level]]) for _ in range(HOPS[level]))
        bank = self.bank if level >= FIRST_SHARED else rng.randrange(1, NUM_SMALL_BANKS + 1)
        return {"entity": rng.choice(entities_of(level)), "relations": relations, "bank": [bank, level]}

    def begin(self, problem: Problem) -> Observation:
        """The question; without tools the bank before it."""
        bank, relations = tuple(problem.meta["bank"]), problem.meta["relations"]
        level, facts, chain = bank[1], facts_of(*bank), problem.meta["entity"]
        for relation in relations:
            chain += facts[chain[-1] + relation]
        question = chain[0] + relations
        legal = entities_of(level) + DIGITS[: NUM_RELATIONS[level]] if self.tools else entities_of(level)
        return Observation(
            text=question if self.tools else " ".join([*map("".join, facts.items()), question]),
            state=MemoryState(bank, relations, chain, 0, ()),
            turns_left=self.max_turns(level),
            legal=legal,
            limit=self.turn_limit,
        )

    def turn(self, observation: Observation, text: str) -> Observation:
        """READ, WRITE or ANSWER by the length of `text`; a turn of the right length that is none of them finds
        nothing."""
        state: MemoryState = observation.state
        if len(text) == 1:
            score = 1.0 if text == state.entities[-1] else observation.score
            return replace(observation, text="", done=True, score=score)
        if len(text) == 3:
            return replace(observation, text=WRITTEN, state=replace(state, notes=(*state.notes, (text[:2], text[2]))))
        key = self.find(state, text)
        if key is None:
            return replace(observation, text=NOTHING)
        value = dict(state.notes).get(key) or facts_of(*state.bank)[key]
        seen = key + value
        if state.num_read < len(state.relations):
            wanted = state.entities[state.num_read] + state.relations[state.num_read]
            if seen == wanted + state.entities[state.num_read + 1]:
                state = replace(state, num_read=state.num_read + 1)
        return replace(observation, text=seen, state=state, score=READ_CREDIT * state.num_read / len(state.relations))

    def find(self, state: MemoryState, query: str) -> str | None:
        """The key that the retriever brings back: of a note whose key is the query, else of the bank."""
        if query in dict(state.notes):
            return query
        retriever, index = index_of(state.bank, tuple(sorted(self.retriever.items())))
        return retriever.find(index, query)

    def oracle(self, observation: Observation) -> str:
        """The next READ of the chain; the answer at its end."""
        state: MemoryState = observation.state
        if state.num_read == len(state.relations) or not self.tools:
            return state.entities[-1]
        return state.entities[state.num_read] + state.relations[state.num_read]

    def effort(self, problem: Problem) -> int:
        """Of a solver without an index, which reads through the bank for every hop."""
        return len(problem.prompt) + HOPS[problem.level] * len(facts_of(*problem.meta["bank"]))


def entities_of(level: int) -> str:
    """The entities of a level's bank, a letter each."""
    return string.ascii_letters[: NUM_ENTITIES[level]]


@lru_cache(maxsize=4096)
def facts_of(bank: int, level: int) -> Mapping[str, str]:
    """Key (entity, relation) -> value, for every pair. Banks other than 0 differ from bank 0 in every fact."""
    entities = entities_of(level)
    facts = {}
    for key in (entity + relation for entity in entities for relation in DIGITS[: NUM_RELATIONS[level]]):
        value = keyed_hash("memory", 0, level, key) % len(entities)
        if bank:
            value += 1 + keyed_hash("memory", bank, level, key) % (len(entities) - 1)
        facts[key] = entities[value % len(entities)]
    return facts


@lru_cache(maxsize=4096)
def index_of(bank: tuple[int, int], spec: tuple[tuple[str, Any], ...]) -> tuple[Retriever, Any]:
    """A retriever and its index over a bank's keys."""
    retriever = create_retriever(dict(spec), "task.retriever")
    return retriever, retriever.index(list(facts_of(*bank)))
