"""Converse: one role plays an environment turn by turn; episodes of one problem are peers.

With `window`, a turn is chosen from the transcript's last tokens only, as in the small-context proposal of Han et al.
(2025, "General Intelligence Requires Reward-based Pretraining"); each trajectory keeps the window of every turn, and
the trainer scores the turn's tokens from the same window.

With `calls_a_play`, a play ends before long episodes do (partial rollouts: Kimi k1.5, 2501.12599, section 2.6.2): they
go on in the next play, with the weights of then, and each token says which weights drew it. A budget (`max_tokens`,
`max_calls`, `max_seconds`) cuts an episode short, which its trajectory says; it is never an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.selfplay.base import Actor, SelfPlay, Waiting, session
from rlpt.selfplay.transcript import Transcript, Turn, Unfinished, unfinished
from rlpt.tasks.base import Task, keyed_hash
from rlpt.tasks.environments.base import Environment
from rlpt.template import END
from rlpt.types import Episode, Generator, Problem, SamplingParams, Tokenizer


@register("selfplay", "converse")
@dataclass(frozen=True)
class Converse(SelfPlay):
    """Each problem is played `group_size` times, all episodes in step: one call of the generator a turn."""

    kinds: ClassVar[tuple[str, ...]] = ("environment",)

    window: int = 0  # tokens that a turn is chosen from and written into; 0: the whole transcript
    max_tokens: int = 0  # of a transcript; an episode whose next turn might not fit is cut short. 0: no limit
    max_calls: int = 0  # turns of an episode, after which it is cut short. 0: the environment's own limit
    max_seconds: float = 0.0  # of a play, after which every episode under way is cut short when its turn is over. 0: no
    # limit. The one budget that depends on the machine: a run with it can't be repeated exactly; evaluation ignores it
    calls_a_play: int = 0  # turns after which a play ends; unfinished problems go on in the next. 0: play to the end

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("window", "max_tokens", "max_calls", "max_seconds", "calls_a_play"):
            if not getattr(self, key) >= 0:
                raise ConfigError(f"{key}={getattr(self, key)}: must not be negative; 0 turns it off")

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
        """A problem's episodes come back together, when the last of them is over; without a memory, in this play."""
        groups = [self._begin(one, key, tasks, actor, memory) for one, key in zip(problems, keys, strict=True)]
        every = [transcript for group in groups for transcript in group]
        calls_left = self.calls_a_play if memory is not None and self.calls_a_play else math.inf
        clock = actor.clock if self.max_seconds else None
        deadline = math.inf if clock is None else clock() + self.max_seconds
        with session(actor.generator) as generator:
            while calls_left and (live := [one for one in every if self._goes_on(one)]):
                self._take_turns(live, generator, policy_step)
                calls_left -= 1
                if clock is not None and clock() >= deadline:
                    for transcript in filter(self._goes_on, live):
                        transcript.cut = "time"
        episodes: list[Episode] = []
        for group in groups:
            if any(self._goes_on(one) for one in group):
                episodes.append(unfinished(group))
            else:
                episodes += [one.episode(self.temperature, policy_step) for one in group]
        return episodes

    def memory(self) -> Unfinished | None:
        """The problems that go on in the next play."""
        return Unfinished() if self.calls_a_play else None

    def waiting(self, memory: Any) -> list[Waiting]:
        return [] if memory is None else memory.waiting()

    @property
    def may_leave_unfinished(self) -> bool:
        return self.calls_a_play > 0

    @property
    def cuts(self) -> tuple[str, ...]:
        budgets = {"tokens": self.max_tokens, "calls": self.max_calls, "time": self.max_seconds}
        return tuple(name for name, budget in budgets.items() if budget)

    def chance(self, task: Task, problem: Problem, tokenizer: Tokenizer) -> float:
        """Over all turns of the oracle's episode."""
        assert isinstance(task, Environment)
        observation, chance = task.begin(problem), 1.0
        for text, after in task.play(problem):
            open_tokens = len(observation.legal) + 1 if self.legal_mask else tokenizer.vocab_size
            chance *= float(open_tokens) ** -(len(text) + 1)
            observation = after
        return chance

    def _begin(
        self, problem: Problem, key: int, tasks: Mapping[str, Task], actor: Actor, memory: Any
    ) -> list[Transcript]:
        """The problem's transcripts, as far as they are."""
        environment = tasks[problem.task]
        assert isinstance(environment, Environment)
        taken = None if memory is None else memory.samples(key)
        group = []
        for sample, turns in enumerate([[]] * self.group_size if taken is None else taken):
            transcript = Transcript(environment, problem, key, sample, actor.tokenizer)
            for turn in turns:
                transcript.take_turn(turn)
            group.append(transcript)
        return group

    def _take_turns(self, live: Sequence[Transcript], generator: Generator, policy_step: int) -> None:
        """One call of the generator: the next turn of each."""
        params = [self._sampling(one) for one in live]
        starts = [self._window_start(one, sampling) for one, sampling in zip(live, params)]
        views = [one.tokens[start:] for one, start in zip(live, starts)]
        noise = [keyed_hash("converse", one.key, one.sample, len(one.turns)) >> 1 for one in live]
        for one, start, completion in zip(live, starts, generator(views, params, noise), strict=True):
            one.take_turn(Turn(start, completion, policy_step))

    def _goes_on(self, transcript: Transcript) -> bool:
        """Whether it takes another turn; says in it what cut it short."""
        if not transcript.observation.done and not transcript.cut:
            longest = len(transcript.tokens) + transcript.observation.limit + 1
            if self.max_calls and len(transcript.turns) >= self.max_calls:
                transcript.cut = "calls"
            elif self.max_tokens and longest > self.max_tokens:
                transcript.cut = "tokens"
        return not transcript.observation.done and not transcript.cut

    def _sampling(self, transcript: Transcript) -> SamplingParams:
        end = transcript.tokenizer.mark_id(END)
        legal = self.character_ids(transcript.observation.legal, transcript.environment, transcript.tokenizer)
        return self.params(transcript.observation.limit + 1, (end,), {end} | legal)

    def _window_start(self, transcript: Transcript, sampling: SamplingParams) -> int:
        if not self.window:
            return 0
        room = self.window - sampling.max_new_tokens
        if room < 1:
            raise ConfigError(
                f"selfplay.window={self.window}: a turn of '{transcript.environment.name}' takes up to "
                f"{sampling.max_new_tokens} tokens, which leaves nothing to read; make it larger"
            )
        return max(0, len(transcript.tokens) - room)
