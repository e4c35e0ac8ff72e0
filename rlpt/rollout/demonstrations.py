"""Worked solutions as a BatchSource: what a supervised phase imitates, with loss on what follows the prompt alone.

Problem i of the stream is a function of (seed, i). For experiments on imitation, a share of the prompts can be given
wrong answers, wrong in the same way each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rlpt.batch import Batch, SourceContext
from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.rollout.packing import pack
from rlpt.rollout.ranks import check_share, own
from rlpt.rollout.scoring import row_shape
from rlpt.rollout.task_mix import TaskMix, TaskShare
from rlpt.selfplay.curriculum import Weighting
from rlpt.tasks.base import keyed_hash, keyed_random
from rlpt.tasks.mistakes import wrong_answer
from rlpt.template import ANSWER, END, THINK, encode_marked
from rlpt.types import Problem, Trajectory


@register("source", "demonstrations")
@dataclass(frozen=True)
class DemonstrationOptions:
    """`problems` worked solutions a step over all data-parallel ranks, at each task's start level, with a share
    of lower levels as its curriculum says."""

    tasks: list[TaskShare]
    problems: int = 64
    think: bool = False  # the worked trace stands before the answer
    break_off: float = 0.0  # chance, before each character of a trace, that the thought ends there (the answer stays)
    thought_filler: str = ""  # a character that stands for each of a trace's: thoughts that are only long
    end_mark: bool = True  # after the answer; false goes with episodes without one
    wrong: float = 0.0  # share of prompts whose demonstration ends in a wrong answer

    def __post_init__(self) -> None:
        if self.problems < 1:
            raise ValueError(f"problems={self.problems}: must be at least 1")
        if not 0 <= self.wrong <= 1:
            raise ValueError(f"wrong={self.wrong}: must be between 0 and 1")
        if not 0 <= self.break_off <= 1:
            raise ValueError(f"break_off={self.break_off}: must be between 0 and 1")
        if len(self.thought_filler) > 1:
            raise ValueError(f"thought_filler={self.thought_filler!r}: must be one character, or empty")
        if (self.break_off or self.thought_filler) and not self.think:
            raise ValueError("break_off, thought_filler: there are no thoughts; set think: true")

    def open(self, context: SourceContext) -> DemonstrationSource:
        """The running source. Raises ConfigError for what does not fit together."""
        return DemonstrationSource(self, context)


class DemonstrationSource:
    """Demonstrations of this rank."""

    def __init__(self, options: DemonstrationOptions, context: SourceContext) -> None:
        check_share("problems", options.problems, context)
        self.options, self.context = options, context
        self.mix = TaskMix(options.tasks, Weighting(), None, context)
        for index, task in enumerate(self.mix.tasks.values()):
            if task.kind == "environment":
                raise ConfigError(
                    f"objectives.{context.objective}.source.tasks.{index}.task: '{task.name}' is of the kind "
                    "'environment', whose solutions are whole episodes; demonstrations show tasks and games"
                )
        self.problems_drawn = 0

    def take(self, n: int, step: int = 0, share: float = 1.0) -> list[Batch]:
        """The next problems' solutions in `n` microbatches; `step` and `share` do not matter."""
        context = self.context
        mine = own(self.problems_drawn, self.options.problems, context)
        self.problems_drawn += self.options.problems
        shown = [self.demonstration(problem) for problem in self.mix.draw(mine)]
        return pack(shown, context.objective, n, row_shape(context), columns=("sequence_share",), share_prompt=False)

    def demonstration(self, problem: Problem) -> Trajectory:
        """The marked document of a solution; what stands after the prompt is to be imitated."""
        task, tokenizer = self.mix.tasks[problem.task], self.context.tokenizer
        if self._is_wrong(problem):
            problem = replace(problem, answer=wrong_answer(task, problem))
        trace = task.solution(problem) if self.options.think else ""
        text = task.document(problem, trace).replace(THINK + trace, THINK + self._shown(problem, trace), 1)
        ids = np.array(encode_marked(tokenizer, text if self.options.end_mark else text.removesuffix(END)), np.int64)
        opening = tokenizer.mark_id(THINK if trace else ANSWER)
        mask = np.arange(len(ids)) > int(np.argmax(ids == opening))
        return Trajectory("teacher", 0, ids, mask, np.zeros(len(ids), np.float32))

    def _shown(self, problem: Problem, trace: str) -> str:
        """What a demonstration's thought holds of a trace."""
        rng = keyed_random(problem.task, problem.seed, problem.level, "break off")
        length = next((at for at in range(len(trace)) if rng.random() < self.options.break_off), len(trace))
        return length * self.options.thought_filler or trace[:length]

    def _is_wrong(self, problem: Problem) -> bool:
        """Whether this prompt is one of the wrong ones: by its last character's place in the task's alphabet, so that
        prompts that were never shown are of one kind or the other too; by its hash where it ends otherwise."""
        if self.options.wrong == 0:
            return False
        alphabet = self.mix.tasks[problem.task].legal_characters(problem.level)
        place = alphabet.find(problem.prompt[-1])
        if place < 0:
            return keyed_hash("wrong", problem.prompt) % 10_000 < self.options.wrong * 10_000
        return (place + 0.5) / len(alphabet) < self.options.wrong

    def metrics(self) -> dict[str, float]:
        """None: they are text."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """JSON-able; the same on every rank."""
        return {"problems_drawn": self.problems_drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self.problems_drawn = state["problems_drawn"]

    def cursor(self) -> dict[str, Any]:
        """See `BatchSource`."""
        return self.state_dict()
