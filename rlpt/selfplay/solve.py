"""Solve: one role answers each problem several times; attempts at one problem are peers.

The groups of GRPO (Shao et al. 2024, arXiv:2402.03300, section 4.1): the attempts differ in nothing but their noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.rewards.base import Rubric
from rlpt.selfplay.base import ROLE, SelfPlay
from rlpt.tasks.base import Task, keyed_hash
from rlpt.template import ANSWER, END, THINK, encode_marked, parse_answer, prompt_text
from rlpt.types import Completion, Episode, Generator, Problem, SamplingParams, Tokenizer, Trajectory


@register("selfplay", "solve")
@dataclass(frozen=True)
class Solve(SelfPlay):
    """Each problem is answered `group_size` times.

    With `think`, a completion is a thought of up to `max_thought` characters, the answer mark and the answer. With
    `legal_mask`, tokens are limited to the characters of the task's answers (and worked traces) and the marks. Without
    `end_mark`, an answer is as long as the level's limit and nothing ends it: for tasks whose answers all have one
    length, and a policy that has to find them by chance.
    """

    kinds: ClassVar[tuple[str, ...]] = ("task", "game")

    think: bool = False
    max_thought: int = 0  # characters
    end_mark: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.think != (self.max_thought > 0):
            raise ConfigError(
                f"think={self.think} with max_thought={self.max_thought}: a thought needs max_thought > 0"
            )
        if self.think and not self.end_mark:
            raise ConfigError("end_mark=False with think=True: after a thought only the end mark ends an answer")

    def play(
        self,
        problems: Sequence[Problem],
        tasks: Mapping[str, Task],
        generator: Generator,
        tokenizer: Tokenizer,
        rubric: Rubric,
        *,
        keys: Sequence[int],
        policy_step: int,
    ) -> list[Episode]:
        prompts, params, noise = [], [], []
        samplings: dict[tuple[str, int], SamplingParams] = {}
        for problem, key in zip(problems, keys, strict=True):
            prompt = encode_marked(tokenizer, prompt_text(problem, self.think))
            kind = (problem.task, problem.level)
            if kind not in samplings:
                samplings[kind] = self.sampling(tasks[problem.task], problem.level, tokenizer)
            for sample in range(self.group_size):
                prompts.append(prompt)
                params.append(samplings[kind])
                noise.append(keyed_hash("solve", key, sample) >> 1)  # 63 bits: a signed tensor holds it
        completions = generator(prompts, params, noise)
        episodes = []
        for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            problem, key = problems[row // self.group_size], keys[row // self.group_size]
            text = (THINK if self.think else ANSWER) + tokenizer.decode(completion.token_ids.tolist())
            answer = self.answer(text, completion)
            outcome = 0.0 if answer is None else tasks[problem.task].verify(problem, answer)
            trajectory = self.trajectory(prompt, completion, key, policy_step)
            trajectory.well_formed = float(bool(answer))
            episode = Episode(problem, [trajectory], {ROLE: outcome}, text)
            rubric.score(episode)
            episodes.append(episode)
        return episodes

    def chance(self, task: Task, problem: Problem, tokenizer: Tokenizer) -> float:
        """For the answer alone: a thought may be anything, but both its marks have to come."""
        legal = self.sampling(task, problem.level, tokenizer).legal_ids
        tokens = len(tokenizer.encode_characters(problem.answer)) + self.end_mark + self.think
        return float(tokenizer.vocab_size if legal is None else len(legal)) ** -tokens

    def answer(self, text: str, completion: Completion) -> str | None:
        """The answer in a completion's marked text; None where it was cut short or an answer mark is missing."""
        if not self.end_mark:
            return text.removeprefix(ANSWER)
        return None if completion.finish_reason == "length" or ANSWER not in text else parse_answer(text)

    def sampling(self, task: Task, level: int, tokenizer: Tokenizer) -> SamplingParams:
        """How answers to problems of `level` are sampled. Raises ConfigError where a legal character has no token."""
        length, characters, marks = task.answer_limit(level), task.legal_characters(level), set()
        if self.end_mark:
            length += 1
            marks.add(tokenizer.mark_id(END))
        if self.think:
            length += self.max_thought + 1  # the answer mark
            characters += task.thought_alphabet
            marks.add(tokenizer.mark_id(ANSWER))
        stop = (tokenizer.mark_id(END),) if self.end_mark else ()
        return self.params(length, stop, marks | self.character_ids(characters, task, tokenizer))

    def trajectory(self, prompt: Sequence[int], completion: Completion, key: int, policy_step: int) -> Trajectory:
        """Prompt and completion side by side; the policy chose the completion's tokens."""
        before, after = len(prompt), len(completion.token_ids)
        kept = completion.kept_ids
        return Trajectory(
            role=ROLE,
            peers=key,
            token_ids=np.concatenate([np.asarray(prompt, np.int64), completion.token_ids.astype(np.int64)]),
            action_mask=np.arange(before + after) >= before,
            logprobs=np.concatenate([np.zeros(before, np.float32), completion.logprobs.astype(np.float32)]),
            temperature=self.temperature,
            kept_ids=None if kept is None else (*(None for _ in range(before)), *kept),
            truncated=self.end_mark and completion.finish_reason == "length",
            policy_step=policy_step,
        )
