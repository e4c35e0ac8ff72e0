"""Solve: one role answers each problem several times; attempts at one problem are peers.

The groups of GRPO (Shao et al. 2024, arXiv:2402.03300, section 4.1): the attempts differ in nothing but their noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

import rlpt.search  # noqa: F401 (registers)
from rlpt import registry
from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.search.base import Search
from rlpt.selfplay.base import ROLE, Actor, SelfPlay
from rlpt.selfplay.judges import Asked, check_judge
from rlpt.tasks.base import Task, keyed_hash
from rlpt.template import ANSWER, END, THINK, encode_marked, parse_answer, prompt_text
from rlpt.types import Completion, Episode, Generator, Problem, SamplingParams, Tokenizer, Trajectory


@register("selfplay", "solve")
@dataclass(frozen=True)
class Solve(SelfPlay):
    """Each problem is answered `group_size` times.

    With `think`, a completion is a thought of up to `max_thought` characters, the answer mark and the answer. With
    `legal_mask`, tokens are limited to the characters of the task's answers (and worked traces) and the marks. With
    `thought_characters`, a thought holds these alone and the answer follows from its own, each sampled by itself: one
    symbol that says nothing makes thoughts that are only long, the control for whether their content helps (Pfau et
    al. 2404.15758). Without `end_mark`, an answer is as long as the level's limit and nothing ends it: for tasks whose
    answers all have one length, and a policy that has to find them by chance.

    With `search`, the first `search_share` of a problem's attempts are what a search over completions returns, by its
    `judge` of the problem; the rest are plain. Their log-probs are the sampler's, though what a search chose is
    off-policy: learn from it by expert_iteration or distill. An evaluation may search as well.
    """

    kinds: ClassVar[tuple[str, ...]] = ("task", "game")

    think: bool = False
    max_thought: int = 0  # characters
    thought_characters: str = ""  # all that a thought may hold; "": the task's, and answers' symbols and marks anywhere
    end_mark: bool = True
    search: dict[str, Any] | None = None  # {name: best_of_n, ...}
    search_share: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.search_share <= 1:
            raise ConfigError(f"search_share={self.search_share}: must be in [0, 1]")
        if self.search is not None:
            check_judge(self._search(self.search), "search")
            if self.thought_characters:
                raise ConfigError("search with thought_characters: thought and answer are two samplings there; use one")
        if self.think != (self.max_thought > 0):
            raise ConfigError(
                f"think={self.think} with max_thought={self.max_thought}: a thought needs max_thought > 0"
            )
        if self.thought_characters and not (self.think and self.legal_mask):
            raise ConfigError(f"thought_characters={self.thought_characters!r}: needs think: true and the legal mask")
        if self.think and not self.end_mark and not self.thought_characters:
            raise ConfigError(
                "end_mark=False with think=True: after a thought only the end mark ends an answer, unless "
                "thought_characters divides the two"
            )

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
        tokenizer = actor.tokenizer
        prompts, params, noise = [], [], []
        samplings: dict[tuple[str, int], list[SamplingParams]] = {}
        for problem, key in zip(problems, keys, strict=True):
            prompt = encode_marked(tokenizer, prompt_text(problem, self.think))
            kind = (problem.task, problem.level)
            if kind not in samplings:
                samplings[kind] = self.sampling(tasks[problem.task], problem.level, tokenizer)
            for sample in range(self.group_size):
                prompts.append(prompt)
                params.append(samplings[kind])
                noise.append(keyed_hash("solve", key, sample) >> 1)  # 63 bits: a signed tensor holds it
        owners = [problem for problem in problems for _ in range(self.group_size)]
        completions, costs = self._attempts(owners, tasks, actor, prompts, params, noise)
        episodes = []
        for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            problem, key = problems[row // self.group_size], keys[row // self.group_size]
            trajectory = self.trajectory(prompt, completion, key, policy_step)
            text, outcome = self.judged(tasks[problem.task], problem, completion, trajectory, tokenizer)
            episodes.append(Episode(problem, [trajectory], {ROLE: outcome}, text, searched=costs[row]))
        return episodes

    def judged(
        self, task: Task, problem: Problem, completion: Completion, trajectory: Trajectory, tokenizer: Tokenizer
    ) -> tuple[str, float]:
        """(marked text, verdict on its answer) of an attempt; says in its trajectory whether that is well formed."""
        text = self._text(completion, tokenizer)
        answer = self.answer(text, completion)
        trajectory.well_formed = float(bool(answer))
        return text, 0.0 if answer is None else task.verify(problem, answer)

    def chance(self, task: Task, problem: Problem, tokenizer: Tokenizer) -> float:
        """For the answer alone: a thought may be anything, but both its marks have to come."""
        *thought, answer = (one.legal_ids for one in self.sampling(task, problem.level, tokenizer))
        tokens = len(tokenizer.encode_characters(problem.answer)) + self.end_mark + (self.think and not thought)
        chance = float(tokenizer.vocab_size if answer is None else len(answer)) ** -tokens
        return chance / len(thought[0]) if thought and thought[0] else chance

    def answer(self, text: str, completion: Completion) -> str | None:
        """The answer in a completion's marked text; None where it was cut short or an answer mark is missing."""
        if not self.ends:
            return text.removeprefix(ANSWER)
        if completion.finish_reason == "length" or ANSWER not in text:
            return None
        return parse_answer(text) if self.end_mark else text.rpartition(ANSWER)[2]

    @property
    def ends(self) -> bool:
        """Whether a completion may be cut short: there is something that it should have come to."""
        return self.end_mark or self.think

    def sampling(self, task: Task, level: int, tokenizer: Tokenizer) -> list[SamplingParams]:
        """How answers to problems of `level` are sampled: all at once, or the thought and then the answer. Raises
        ConfigError where a legal character has no token."""
        length, characters, marks = task.answer_limit(level), task.legal_characters(level), set()
        if self.end_mark:
            length += 1
            marks.add(tokenizer.mark_id(END))
        stop, mark = tuple(marks), tokenizer.mark_id(ANSWER)
        if self.thought_characters:
            thought = {mark} | self.character_ids(self.thought_characters, task, tokenizer)
            answer = marks | self.character_ids(characters, task, tokenizer)
            return [self.params(self.max_thought + 1, (mark,), thought), self.params(length, stop, answer)]
        if self.think:
            length += self.max_thought + 1  # the answer mark
            characters += task.thought_alphabet
            marks.add(mark)
        return [self.params(length, stop, marks | self.character_ids(characters, task, tokenizer))]

    def complete(
        self, prompts: list[list[int]], params: list[list[SamplingParams]], noise: list[int], generator: Generator
    ) -> list[Completion]:
        """A completion a prompt; where thoughts are sampled by themselves, those that came to their end go on to the
        answer, and the two are one completion."""
        completions = generator(prompts, [first for first, *_ in params], noise)
        if not self.thought_characters:
            return completions
        rows = [row for row, thought in enumerate(completions) if thought.finish_reason == "stop"]
        answers = generator(
            [[*prompts[row], *completions[row].token_ids.tolist()] for row in rows],
            [params[row][1] for row in rows],
            [keyed_hash("answer", noise[row]) >> 1 for row in rows],
        )
        for row, answer in zip(rows, answers, strict=True):
            completions[row] = joined(completions[row], answer, self.end_mark)
        return completions

    def _attempts(
        self,
        problems: list[Problem],
        tasks: Mapping[str, Task],
        actor: Actor,
        prompts: list[list[int]],
        params: list[list[SamplingParams]],
        noise: list[int],
    ) -> tuple[list[Completion], list[tuple[int, int]]]:
        """A completion a row, by search where the row is one of its problem's first; and what a search took beyond."""
        costs = [(0, 0)] * len(prompts)
        if self.search is None:
            return self.complete(prompts, params, noise, actor.generator), costs
        count = round(self.search_share * self.group_size)
        rows = [row for row in range(len(prompts)) if row % self.group_size < count]
        others = [row for row in range(len(prompts)) if row % self.group_size >= count]
        search, tokenizer = self._search(self.search), actor.tokenizer
        asked = Asked(
            [problems[row] for row in rows],
            [prompts[row] for row in rows],
            tasks,
            actor,
            lambda completion: self._text(completion, tokenizer),
            lambda completion: self.answer(self._text(completion, tokenizer), completion),
        )
        searcher = search.wrap(actor.generator, check_judge(search, "search").bind(asked), tokenizer, actor.chooser)
        found = searcher(asked.prompts, [params[row][0] for row in rows], [noise[row] for row in rows])
        plain = self.complete(
            [prompts[row] for row in others],
            [params[row] for row in others],
            [noise[row] for row in others],
            actor.generator,
        )
        completions = dict(zip([*rows, *others], [*found, *plain], strict=True))
        assert searcher.last is not None, "it was just called"
        for row, one, generated, read in zip(rows, found, searcher.last.generated, searcher.last.read, strict=True):
            costs[row] = (generated - len(one.token_ids), read - len(prompts[row]))
        return [completions[row] for row in range(len(prompts))], costs

    def _search(self, spec: dict[str, Any]) -> Search:
        search: Search = registry.create("search", spec, "search")
        return search

    def _text(self, completion: Completion, tokenizer: Tokenizer) -> str:
        """Marked, from the prompt's last mark on."""
        return (THINK if self.think else ANSWER) + tokenizer.decode(completion.token_ids.tolist())

    def trajectory(self, prompt: Sequence[int], completion: Completion, key: int, policy_step: int) -> Trajectory:
        """Prompt (and what a search had the policy read after it) and completion side by side; the policy chose the
        completion's tokens."""
        if completion.context is not None:
            prompt = [*prompt, *completion.context.tolist()]
        before, after = len(prompt), len(completion.token_ids)
        kept = completion.kept_ids
        return Trajectory(
            role=ROLE,
            peers=key,
            token_ids=np.concatenate([np.asarray(prompt, np.int64), completion.token_ids.astype(np.int64)]),
            action_mask=np.arange(before + after) >= before,
            logprobs=np.concatenate([np.zeros(before, np.float32), completion.logprobs.astype(np.float32)]),
            temperature=self.temperature,
            kept_ids=None if kept is None else (*(None,) * before, *kept),
            truncated=self.ends and completion.finish_reason == "length",
            policy_step=policy_step,
        )


def joined(thought: Completion, answer: Completion, end_mark: bool) -> Completion:
    """A thought that was closed and the answer after it as one. Without an end mark no answer is cut short."""
    assert thought.kept_ids is not None, "a thought of given characters has a legal set"
    assert answer.kept_ids is not None, "and so has its answer"
    return Completion(
        token_ids=np.concatenate([thought.token_ids, answer.token_ids]),
        logprobs=np.concatenate([thought.logprobs, answer.logprobs]),
        finish_reason=answer.finish_reason if end_mark else "stop",
        kept_ids=(*thought.kept_ids, *answer.kept_ids),
    )
