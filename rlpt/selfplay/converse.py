"""Converse: one role plays an environment turn by turn; episodes of one problem are peers.

A transcript is append-only and never encoded again: each turn's tokens are those that the sampler drew, followed by the
tokens of what the environment showed. With `window`, a turn is chosen from the transcript's last tokens only, as in the
small-context proposal of Han et al. (2025, "General Intelligence Requires Reward-based Pretraining"); each trajectory
keeps the window of every turn, and the trainer scores the turn's tokens from the same window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.selfplay.base import ROLE, Actor, SelfPlay
from rlpt.tasks.base import Task, capped, keyed_hash
from rlpt.tasks.environments.base import Environment, Observation, opening_text, shown_text
from rlpt.template import END, encode_marked
from rlpt.types import Completion, Episode, Problem, SamplingParams, Tokenizer, Trajectory


@register("selfplay", "converse")
@dataclass(frozen=True)
class Converse(SelfPlay):
    """Each problem is played `group_size` times, all episodes in step: one call of the generator a turn."""

    kinds: ClassVar[tuple[str, ...]] = ("environment",)

    window: int = 0  # tokens that a turn is chosen from and written into; 0: the whole transcript
    max_tokens: int = 0  # of a transcript; an episode whose next turn might not fit is cut short. 0: no limit

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 0 or self.max_tokens < 0:
            raise ConfigError(f"window={self.window}, max_tokens={self.max_tokens}: must not be negative")

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
        """The role's outcome is the environment's score; an ill-formed turn is used up."""
        talks = []
        for problem, key in zip(problems, keys, strict=True):
            environment = tasks[problem.task]
            assert isinstance(environment, Environment)
            for sample in range(self.group_size):
                talks.append(_Talk(environment, problem, key, sample, actor.tokenizer))
        while live := [talk for talk in talks if self._goes_on(talk)]:
            params = [self._sampling(talk) for talk in live]
            starts = [self._window_start(talk, sampling) for talk, sampling in zip(live, params)]
            views = [talk.tokens[start:] for talk, start in zip(live, starts)]
            noise = [keyed_hash("converse", talk.key, talk.sample, talk.turns) >> 1 for talk in live]
            for talk, start, completion in zip(live, starts, actor.generator(views, params, noise), strict=True):
                talk.take_turn(start, completion)
        return [talk.episode(self.temperature, policy_step) for talk in talks]

    def chance(self, task: Task, problem: Problem, tokenizer: Tokenizer) -> float:
        """Over all turns of the oracle's episode."""
        assert isinstance(task, Environment)
        observation, chance = task.begin(problem), 1.0
        for text, after in task.play(problem):
            open_tokens = len(observation.legal) + 1 if self.legal_mask else tokenizer.vocab_size
            chance *= float(open_tokens) ** -(len(text) + 1)
            observation = after
        return chance

    def _goes_on(self, talk: _Talk) -> bool:
        if talk.observation.done:
            return False
        room = self.max_tokens - len(talk.tokens) if self.max_tokens else talk.observation.limit + 1
        talk.truncated = room < talk.observation.limit + 1
        return not talk.truncated

    def _sampling(self, talk: _Talk) -> SamplingParams:
        end = talk.tokenizer.mark_id(END)
        legal = self.character_ids(talk.observation.legal, talk.environment, talk.tokenizer)
        return self.params(talk.observation.limit + 1, (end,), {end} | legal)

    def _window_start(self, talk: _Talk, sampling: SamplingParams) -> int:
        if not self.window:
            return 0
        room = self.window - sampling.max_new_tokens
        if room < 1:
            raise ConfigError(
                f"selfplay.window={self.window}: a turn of '{talk.environment.name}' takes up to "
                f"{sampling.max_new_tokens} tokens, which leaves nothing to read; make it larger"
            )
        return max(0, len(talk.tokens) - room)


@dataclass
class _Talk:
    """One episode under way."""

    environment: Environment
    problem: Problem
    key: int
    sample: int
    tokenizer: Tokenizer
    turns: int = 0
    num_well_formed: int = 0
    truncated: bool = False
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    is_action: list[bool] = field(default_factory=list)
    kept: list[np.ndarray | None] = field(default_factory=list)
    windows: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.observation: Observation = self.environment.begin(self.problem)
        self._show(encode_marked(self.tokenizer, opening_text(self.environment, self.observation)))

    def take_turn(self, start: int, completion: Completion) -> None:
        """Writes the turn that was chosen from tokens [start, ...), and what the environment shows after it."""
        drawn = completion.token_ids.tolist()
        ended = completion.finish_reason == "stop"
        text = self.tokenizer.decode(drawn[:-1] if ended else drawn)
        self.tokens += drawn
        self.logprobs += completion.logprobs.tolist()
        self.is_action += [True] * len(drawn)
        self.kept += [None] * len(drawn) if completion.kept_ids is None else completion.kept_ids
        if self.windows and self.windows[-1][0] == start:
            self.windows.pop()
        self.windows.append((start, len(self.tokens)))
        self.turns += 1
        self.num_well_formed += ended and self.environment.is_well_formed(self.observation, text)
        self.observation = self.environment.act(self.observation, text if ended else "")
        if not self.observation.done:
            self._show(encode_marked(self.tokenizer, shown_text(self.observation)))

    def _show(self, ids: list[int]) -> None:
        self.tokens += ids
        self.logprobs += [0.0] * len(ids)
        self.is_action += [False] * len(ids)
        self.kept += [None] * len(ids)

    def episode(self, temperature: float, policy_step: int) -> Episode:
        length = self.windows[-1][1] if self.windows else len(self.tokens)  # nothing is learned from what came after
        trajectory = Trajectory(
            role=ROLE,
            peers=self.key,
            token_ids=np.array(self.tokens[:length], np.int64),
            action_mask=np.array(self.is_action[:length], bool),
            logprobs=np.array(self.logprobs[:length], np.float32),
            temperature=temperature,
            kept_ids=tuple(self.kept[:length]) if any(ids is not None for ids in self.kept) else None,
            windows=None if all(start == 0 for start, _ in self.windows) else tuple(self.windows),
            well_formed=self.num_well_formed / max(1, self.turns),
            truncated=self.truncated,
            policy_step=policy_step,
        )
        score = capped(self.observation.score) if self.observation.done else 0.0
        return Episode(self.problem, [trajectory], {ROLE: score}, self.tokenizer.decode(self.tokens))
