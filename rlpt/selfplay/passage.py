"""What forms of self-play on corpus text share: a passage is cut in two, and the policy thinks where the cut is.

A passage is a `Problem` of the task "passage" whose `meta` holds token ids, `context` before the cut and `future`
after it. They go into trajectories as they are: text is never decoded and encoded again. No task stands behind it: the
corpus is the only judge.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from rlpt.errors import ConfigError
from rlpt.selfplay.base import ROLE, Actor, SelfPlay, token_ids
from rlpt.tasks.base import Task, keyed_hash
from rlpt.types import Completion, Episode, Problem, SamplingParams, Tokenizer, Trajectory

PASSAGE = "passage"  # the kind, and the `Problem.task` of all passages


@dataclass(frozen=True)
class PassagePlay(SelfPlay):
    """Each passage is continued `group_size` times from its context and a mark; attempts are peers."""

    kinds: ClassVar[tuple[str, ...]] = (PASSAGE,)

    max_thought: int = 8  # tokens
    characters: str = ""  # sampled tokens are limited to the one-character tokens of these and the marks that the form
    # needs, where `legal_mask` is on; "": the whole vocabulary is open

    @property
    @abstractmethod
    def future_tokens(self) -> int:
        """The fewest tokens that a passage may hold after its cut."""

    @abstractmethod
    def opening_mark(self) -> str:
        """The mark between a passage's context and the completion."""

    @abstractmethod
    def sampling(self, tokenizer: Tokenizer) -> SamplingParams:
        """How completions are sampled. Raises ConfigError where one of `characters` has no single token."""

    @abstractmethod
    def episode(
        self, problem: Problem, completion: Completion, tokenizer: Tokenizer, *, key: int, policy_step: int
    ) -> Episode:
        """One attempt at one passage."""

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
        """`tasks` has nothing to say about passages. Raises ConfigError for one with too short a future."""
        tokenizer = actor.tokenizer
        sampling = self.sampling(tokenizer)
        attempts: list[tuple[Problem, int]] = []
        prompts, noise = [], []
        for problem, key in zip(problems, keys, strict=True):
            future = problem.meta["future"]
            if len(future) < self.future_tokens:
                raise ConfigError(
                    f"a passage holds {len(future)} tokens after its cut, and this form of self-play needs "
                    f"{self.future_tokens} (think: its horizon); cut passages with a longer future"
                )
            prompt = self.prompt(problem, tokenizer)
            for sample in range(self.group_size):
                attempts.append((problem, key))
                prompts.append(prompt)
                noise.append(keyed_hash(PASSAGE, key, sample) >> 1)  # 63 bits: a signed tensor holds it
        completions = actor.generator(prompts, [sampling] * len(prompts), noise)
        return [
            self.episode(problem, completion, tokenizer, key=key, policy_step=policy_step)
            for (problem, key), completion in zip(attempts, completions, strict=True)
        ]

    def prompt(self, problem: Problem, tokenizer: Tokenizer) -> list[int]:
        """The context's own tokens and the opening mark."""
        return [*map(int, problem.meta["context"]), tokenizer.mark_id(self.opening_mark())]

    def limited(
        self, max_new_tokens: int, stop: tuple[int, ...], marks: set[int], tokenizer: Tokenizer
    ) -> SamplingParams:
        """Sampling within `characters` and `marks`, or within the whole vocabulary."""
        legal = self.character_tokens(tokenizer)
        params = self.params(max_new_tokens, stop, marks | legal)
        return params if legal else replace(params, legal_ids=None)

    def character_tokens(self, tokenizer: Tokenizer) -> frozenset[int]:
        """The one token of each of `characters`; empty where the vocabulary is open."""
        return token_ids(self.characters, PASSAGE, tokenizer) if self.legal_mask else frozenset()

    def trajectory(
        self,
        prompt: Sequence[int],
        completion: Completion,
        key: int,
        policy_step: int,
        given: Sequence[int] = (),
        num_evidence: int = 0,
    ) -> Trajectory:
        """Prompt, completion and what was written after it; the policy chose the completion's tokens alone.

        The last `num_evidence` of the tokens in `given` are what the thought is judged by.
        """
        before, drawn, after = len(prompt), len(completion.token_ids), len(given)
        position = np.arange(before + drawn + after)
        kept = completion.kept_ids
        parts = ([0.0] * before, completion.logprobs, [0.0] * after)
        return Trajectory(
            role=ROLE,
            peers=key,
            token_ids=np.concatenate([np.asarray(ids, np.int64) for ids in (prompt, completion.token_ids, given)]),
            action_mask=(position >= before) & (position < before + drawn),
            logprobs=np.concatenate([np.asarray(part, np.float32) for part in parts]),
            temperature=self.temperature,
            kept_ids=None if kept is None else (*[None] * before, *kept, *[None] * after),
            evidence_mask=position >= len(position) - num_evidence if num_evidence else None,
            truncated=completion.finish_reason == "length",
            policy_step=policy_step,
        )
