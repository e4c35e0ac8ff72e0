"""Who judges what a search found: the verifiers of the problems in play, the policy's own figures, a learned head.

Judges are registered by name; `bind` ties one to the rows of a search's call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlpt import registry
from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.search.base import Judge, Search
from rlpt.selfplay.base import Actor
from rlpt.tasks.base import WRONG_CREDIT, Task
from rlpt.template import ANSWER, THINK
from rlpt.types import Completion, Problem


@dataclass(frozen=True)
class Asked:
    """What the rows of a search's call are about."""

    problems: Sequence[Problem]
    prompts: Sequence[Sequence[int]]
    tasks: Mapping[str, Task]
    actor: Actor
    text: Callable[[Completion], str]  # marked, from the mark that it begins after
    answer: Callable[[Completion], str | None]  # None: it has not come to one

    def credit(self, row: int, answer: str | None) -> float:
        """The verifier's word on an answer."""
        problem = self.problems[row]
        return 0.0 if answer is None else self.tasks[problem.task].verify(problem, answer)


@dataclass(frozen=True)
class BoundJudge(ABC):
    """A judge's options. `is_share`: its values lie in [0, 1], as tree search needs them."""

    is_share: ClassVar[bool] = True

    @abstractmethod
    def bind(self, asked: Asked) -> Judge:
        """The judge of a call. Raises ConfigError where the policy lacks what it asks."""


def check_judge(search: Search, where: str) -> BoundJudge:
    """The judge that a search names. Raises ConfigError where there is none, or where they do not go together."""
    judge: BoundJudge = registry.create("judge", search.judge, f"{where}.judge")
    if hasattr(search, "simulations") and not judge.is_share:
        raise ConfigError(
            f"{where}.judge: mcts needs values in [0, 1], which '{search.judge['name']}' does not give; use verifier, "
            "steps or scorer"
        )
    return judge


@register("judge", "verifier")
@dataclass(frozen=True)
class Verifier(BoundJudge):
    """The task's credit for the answer; 0 without one. A perfect judge: what it finds is not the policy's alone."""

    def bind(self, asked: Asked) -> Judge:
        return lambda rows, completions: [asked.credit(row, asked.answer(one)) for row, one in zip(rows, completions)]


@register("judge", "steps")
@dataclass(frozen=True)
class Steps(BoundJudge):
    """How far a solution has come, of n steps, as many as the worked one has, and the answer: with k steps before the
    first that `Task.verify_steps` calls wrong, (k + 1/2) / (n + 1) while nothing is wrong, and (k / 2) / (n + 1) once
    something is, so that what can still come out right stays ahead; 1 for a whole and right one.

    To answer before the n-th step is wrong too, or not at all. A step that is not closed by whitespace or the answer
    mark is not looked at. An answer that is not ended adds a part of the other 1/2: where there is one right answer,
    the share of it that is written (it is wrong where it does not begin like it); else the verifier's credit.
    """

    def bind(self, asked: Asked) -> Judge:
        return lambda rows, completions: [self._share(asked, row, one) for row, one in zip(rows, completions)]

    def _share(self, asked: Asked, row: int, completion: Completion) -> float:
        problem, text = asked.problems[row], asked.text(completion)
        task = asked.tasks[problem.task]
        if not text.startswith(THINK):
            raise ConfigError("search judge 'steps': there is no thought to look at; set think: true, or use verifier")
        before, mark, behind = text.rpartition(ANSWER)
        thought = (before if mark else behind).removeprefix(THINK)
        closed = thought.split() if mark or thought[-1:].isspace() else thought.split()[:-1]
        marks, whole = task.verify_steps(problem, " ".join(closed)), len(task.solution(problem).split())
        right = min(int(np.cumprod([*marks, 0.0]).sum()), whole)
        if right < len(closed) or (mark and right < whole):
            return right / 2 / (whole + 1)
        if not mark:
            return (right + 0.5 if completion.finish_reason == "length" else right / 2) / (whole + 1)
        ended = asked.answer(completion)
        if ended is not None:
            return (right + 1 if asked.credit(row, ended) == 1.0 else right / 2) / (whole + 1)
        if not task.unique_answer:
            return (right + 0.5 + 0.5 * min(asked.credit(row, behind), WRONG_CREDIT)) / (whole + 1)
        written = len(behind) / (len(problem.answer) + 1)
        return (right + 0.5 + 0.5 * written if problem.answer.startswith(behind) else right / 2) / (whole + 1)


@register("judge", "likelihood")
@dataclass(frozen=True)
class Likelihood(BoundJudge):
    """The policy's mean log-prob of the tokens; 0 without any."""

    is_share: ClassVar[bool] = False

    def bind(self, asked: Asked) -> Judge:
        return lambda rows, completions: [_mean(one.logprobs) for one in completions]


@register("judge", "self_certainty")
@dataclass(frozen=True)
class SelfCertainty(BoundJudge):
    """Mean over the tokens of KL(uniform || sampler) over what each was drawn from (Kang et al. 2502.18581). Raises
    ConfigError where the generator does not say it."""

    is_share: ClassVar[bool] = False

    def bind(self, asked: Asked) -> Judge:
        def judge(rows: Sequence[int], completions: Sequence[Completion]) -> list[float]:
            return [_mean(_certainty(one)) for one in completions]

        return judge


@register("judge", "majority")
@dataclass(frozen=True)
class Majority(BoundJudge):
    """The share of a row's completions that have the same answer (self-consistency, 2203.11171); 0 without one."""

    def bind(self, asked: Asked) -> Judge:
        def judge(rows: Sequence[int], completions: Sequence[Completion]) -> list[float]:
            answers = [(row, asked.answer(one)) for row, one in zip(rows, completions)]
            votes, voters = Counter(answers), Counter(rows)
            return [0.0 if said[1] is None else votes[said] / voters[said[0]] for said in answers]

        return judge


@register("judge", "scorer")
@dataclass(frozen=True)
class ScorerJudge(BoundJudge):
    """A scalar head's value of the state before a completion's end mark, or behind its last token where it is not
    ended."""

    head: str = "value"

    def bind(self, asked: Asked) -> Judge:
        heads = asked.actor.heads
        if self.head not in heads:
            raise ConfigError(
                f"search judge 'scorer': the policy has no head '{self.head}' here"
                f"{registry.suggest(self.head, sorted(heads))}"
            )
        pad = asked.actor.tokenizer.pad_id

        def judge(rows: Sequence[int], completions: Sequence[Completion]) -> list[float]:
            texts, masks = [], []
            for row, one in zip(rows, completions, strict=True):
                given = [] if one.context is None else one.context.tolist()
                ids = np.array([*asked.prompts[row], *given, *one.token_ids.tolist(), pad], np.int64)
                texts.append(ids[:-1] if one.finish_reason == "stop" else ids)
                masks.append(np.arange(len(texts[-1])) == len(texts[-1]) - 1)
            found = heads[self.head](texts, masks)
            return [float(values[-1]) for values in found]

        return judge


def _certainty(completion: Completion) -> np.ndarray:
    if completion.certainty is None and len(completion.token_ids):
        raise ConfigError("search judge 'self_certainty': this generator does not say how certain it was; use another")
    return np.zeros(0) if completion.certainty is None else completion.certainty


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=np.float64)) if len(values) else 0.0
