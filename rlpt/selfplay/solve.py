"""Solve: one role answers each problem several times; attempts at one problem are peers.

The groups of GRPO (Shao et al. 2024, arXiv:2402.03300, section 4.1): the attempts differ in nothing but their noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.rewards.base import Rubric
from rlpt.selfplay.base import SelfPlay
from rlpt.tasks.base import Task, keyed_hash
from rlpt.template import ANSWER, END, THINK, encode_marked, parse_answer, prompt_text
from rlpt.types import Completion, Episode, Generator, Problem, SamplingParams, Tokenizer, Trajectory

ROLE = "solver"


@register("selfplay", "solve")
@dataclass(frozen=True)
class Solve(SelfPlay):
    """Each problem is answered `group_size` times.

    With `think`, a completion is a thought of up to `max_thought` characters, the answer mark and the answer. With
    `legal_mask`, tokens are limited to the characters of the task's answers (and worked traces) and the marks.
    """

    group_size: int = 16
    think: bool = False
    max_thought: int = 0  # characters
    temperature: float = 1.0  # 0: greedy
    top_k: int = 0  # 0: off
    top_p: float = 1.0  # 1: off
    legal_mask: bool = True

    def __post_init__(self) -> None:
        if self.group_size < 1:
            raise ConfigError(f"group_size={self.group_size}: must be at least 1")
        if self.think != (self.max_thought > 0):
            raise ConfigError(
                f"think={self.think} with max_thought={self.max_thought}: a thought needs max_thought > 0"
            )
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ConfigError(
                f"temperature={self.temperature}, top_k={self.top_k}, top_p={self.top_p}: "
                "need temperature >= 0, top_k >= 0 and 0 < top_p <= 1"
            )

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
        """`len(problems) * group_size` episodes, those of one problem side by side."""
        prompts, params, noise = [], [], []
        for problem, key in zip(problems, keys, strict=True):
            prompt = encode_marked(tokenizer, prompt_text(problem, self.think))
            sampling = self.sampling(tasks[problem.task], problem.level, tokenizer)
            for sample in range(self.group_size):
                prompts.append(prompt)
                params.append(sampling)
                noise.append(keyed_hash("solve", key, sample) >> 1)  # 63 bits: a signed tensor holds it
        completions = generator(prompts, params, noise)
        episodes = []
        for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            problem, key = problems[row // self.group_size], keys[row // self.group_size]
            trajectory = self.trajectory(prompt, completion, key, policy_step)
            text = (THINK if self.think else ANSWER) + tokenizer.decode(completion.token_ids.tolist())
            answer = None if trajectory.truncated or ANSWER not in text else parse_answer(text)
            outcome = 0.0 if answer is None else tasks[problem.task].verify(problem, answer)
            episode = Episode(problem, [trajectory], {ROLE: outcome}, text)
            rubric.score(episode)
            episodes.append(episode)
        return episodes

    def sampling(self, task: Task, level: int, tokenizer: Tokenizer) -> SamplingParams:
        """How answers to problems of `level` are sampled. Raises ConfigError where a legal character has no token."""
        end = tokenizer.mark_id(END)
        length = task.answer_limit(level) + 1  # the end mark
        characters = task.legal_characters(level)
        if self.think:
            length += self.max_thought + 1  # the answer mark
            characters += task.thought_alphabet
        legal = None
        if self.legal_mask:
            marks = {end, tokenizer.mark_id(ANSWER)} if self.think else {end}
            legal = tuple(sorted(marks | {character_id(tokenizer, task, c) for c in characters}))
        return SamplingParams(
            max_new_tokens=length,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            stop=(end,),
            legal_ids=legal,
        )

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
            truncated=completion.finish_reason == "length",
            policy_step=policy_step,
        )


def character_id(tokenizer: Tokenizer, task: Task, character: str) -> int:
    """The one token of a legal character. Raises ConfigError where there is none or several."""
    ids = tokenizer.encode_characters(character)
    if len(ids) != 1:
        raise ConfigError(
            f"task {task.name}: the character {character!r} is {len(ids)} tokens for this tokenizer, and a legal-token "
            "mask needs one; train the tokenizer on text that holds it, or set legal_mask: false"
        )
    return ids[0]
