"""The SelfPlay contract: problems in, episodes with outcomes and peer sets out. And how all forms of it sample.

A form is a frozen record of options. What it may ask of the policy comes as an `Actor`; what it remembers between plays
(ratings of past selves, a buffer of proposals) is a `Memory`, which its source keeps and saves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Protocol

from rlpt.errors import ConfigError
from rlpt.tasks.base import Task
from rlpt.types import Chooser, Episode, Generator, Problem, SamplingParams, Scorer, SessionGenerator, Tokenizer

ROLE = "solver"  # the one role of forms in which nobody plays against anybody


@dataclass(frozen=True)
class Actor:
    """What a form of self-play may ask of the policy."""

    generator: Generator  # the present weights
    tokenizer: Tokenizer
    chooser: Chooser | None = None  # their log-probs of given moves, and what the value head says
    past: Mapping[str, Generator] = field(default_factory=dict)  # named copies of the weights that there are now
    heads: Mapping[str, Scorer] = field(default_factory=dict)  # scalar heads: values [L] of the state before each token
    clock: Callable[[], float] | None = None  # seconds, the same on all ranks that play the same problems, which must
    # read it in step; None: time does not count


def session(generator: Generator) -> AbstractContextManager[Generator]:
    """Of a generator that can keep a call's texts for the next call; of any other, itself."""
    return generator.session() if isinstance(generator, SessionGenerator) else nullcontext(generator)


class Memory(Protocol):
    """What a form remembers between plays, the same on every rank."""

    def record(self, notes: Sequence[Any], policy_step: int) -> None:
        """Takes in the notes of all ranks' episodes of one play, in problem order."""
        ...

    def metrics(self) -> dict[str, float]:
        """Figures of its present state."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """JSON-able and exact."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        ...


@dataclass(frozen=True)
class Waiting:
    """A problem that was begun and goes on in the next play."""

    key: int
    task: str
    seed: int
    level: int


@dataclass(frozen=True)
class SelfPlay(ABC):
    """A form of self-play. Subclasses are frozen dataclasses whose fields are their YAML options."""

    kinds: ClassVar[tuple[str, ...]]  # of tasks that it plays

    needs_luck: ClassVar[bool] = True  # whether it learns nothing before it has solved a problem by chance

    group_size: int = 16  # episodes a problem: peers, compared with each other
    temperature: float = 1.0  # 0: greedy
    top_k: int = 0  # 0: off
    top_p: float = 1.0  # 1: off
    legal_mask: bool = True  # tokens are limited to those that the task's syntax allows

    def __post_init__(self) -> None:
        if self.group_size < 1:
            raise ConfigError(f"group_size={self.group_size}: must be at least 1")
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ConfigError(
                f"temperature={self.temperature}, top_k={self.top_k}, top_p={self.top_p}: "
                "need temperature >= 0, top_k >= 0 and 0 < top_p <= 1"
            )

    @abstractmethod
    def play(
        self,
        problems: Sequence[Problem],
        tasks: Mapping[str, Task],
        actor: Actor,
        *,
        keys: Sequence[int],
        policy_step: int,
        memory: Any = None,
    ) -> list[Episode]:
        """Plays each problem: `len(problems) * group_size` episodes, those of one problem side by side, with the
        verifier's outcomes; rewards come later, from a rubric.

        `tasks` by task name; `keys[i]` (64-bit) names problem i: all noise of its episodes is keyed by it, whatever
        else is in the call. `policy_step` is written into the trajectories. Trajectories that are compared with each
        other share `peers`. `memory` is what `memory()` made, as it has become; it is read here, and moves on by the
        episodes' notes alone. None: the form plays as if it remembered nothing. With a memory, a form may leave a
        problem unfinished: its one episode then has no trajectories, and a note that `waiting` knows it by.
        """

    def memory(self) -> Memory | None:
        """What it remembers, at the start of a run; None: nothing."""
        return None

    @property
    def gives_targets(self) -> bool:
        """Whether its trajectories hold what a search chose among candidates."""
        return False

    def waiting(self, memory: Any) -> list[Waiting]:
        """The problems that were left unfinished, oldest first; the next play must be given all of them."""
        return []

    @property
    def may_leave_unfinished(self) -> bool:
        """Whether a play may end before its episodes do."""
        return False

    @property
    def cuts(self) -> tuple[str, ...]:
        """The budgets that may cut an episode short."""
        return ()

    def problem(self, task: Task, seed: int, level: int) -> Problem:
        """The problem of (seed, level) that is played."""
        return task.sample(seed, level)

    @abstractmethod
    def chance(self, task: Task, problem: Problem, tokenizer: Tokenizer) -> float:
        """Chance that a policy whose open tokens are equally likely takes exactly the oracle's, in [0, 1]."""

    def check(self, task: Task, where: str) -> None:
        """Raises ConfigError that names the key `where` if this form does not play such tasks."""
        if task.kind not in self.kinds:
            raise ConfigError(
                f"{where}: '{task.name}' is of the kind '{task.kind}', and this form of self-play plays "
                f"{' and '.join(self.kinds)}; environments are played by selfplay {{name: converse}}, the rest by solve"
            )

    def params(self, max_new_tokens: int, stop: tuple[int, ...], legal_ids: Iterable[int]) -> SamplingParams:
        """Sampling by this form's options; `legal_ids` counts where `legal_mask` is on."""
        return SamplingParams(
            max_new_tokens=max_new_tokens,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            stop=stop,
            legal_ids=tuple(sorted(set(legal_ids))) if self.legal_mask else None,
        )

    def character_ids(self, characters: str, task: Task, tokenizer: Tokenizer) -> frozenset[int]:
        """The one token of each character; nothing without `legal_mask`. Raises ConfigError where there is not one."""
        return token_ids(characters, task.name, tokenizer) if self.legal_mask else frozenset()


@lru_cache(maxsize=4096)
def token_ids(characters: str, task: str, tokenizer: Tokenizer) -> frozenset[int]:
    """The one token of each legal character. Raises ConfigError where a character has none or several."""
    found = set()
    for character in characters:
        ids = tokenizer.encode_characters(character)
        if len(ids) != 1:
            raise ConfigError(
                f"task {task}: the character {character!r} is {len(ids)} tokens for this tokenizer, and a legal-token "
                "mask needs one; train the tokenizer on text that holds it, or set legal_mask: false"
            )
        found.add(ids[0])
    return frozenset(found)
