"""First hit: how many episodes a policy at random weights plays before it first solves a problem by chance.

`alphabet ^ length` of the oracle's answer, for each token that the policy has to choose; where several answers are
right, random answers that were tried out say how often one is met. Graded credit leads there sooner: the estimate is
what pure chance needs.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlpt.selfplay.base import SelfPlay
from rlpt.tasks.base import Task
from rlpt.tasks.profile import first_problems, random_success
from rlpt.types import Tokenizer

NUM_PROBLEMS = 32  # whose oracle's answers are measured
NUM_RANDOM = 400  # random answers tried out


@dataclass(frozen=True)
class FirstHit:
    """The estimate for one task at one level."""

    task: str
    level: int
    episodes: float  # expected until the first exact success; inf where it is beyond counting

    def describe(self, budget: float, episodes_per_second: float = 0.0) -> str:
        """One line for a person: the estimate, in seconds too where the speed is known, and the run's episodes."""
        seconds = f" ({self.episodes / episodes_per_second:,.3g} s)" if episodes_per_second else ""
        return (
            f"{self.task} level {self.level}: chance alone solves one in {self.episodes:,.3g} episodes{seconds}; this "
            f"run plays {budget:,.0f}" + (f" at {episodes_per_second:,.0f} a second" if episodes_per_second else "")
        )


def first_hit(task: Task, level: int, form: SelfPlay, tokenizer: Tokenizer) -> FirstHit:
    """The estimate from `NUM_PROBLEMS` oracle's answers, or from random ones where those succeed oftener."""
    problems = first_problems(task, level, NUM_PROBLEMS)
    chance = sum(form.chance(task, problem, tokenizer) for problem in problems) / NUM_PROBLEMS
    if not task.unique_answer and form.legal_mask:
        chance = max(chance, random_success(task, level, NUM_RANDOM))
    return FirstHit(task.name, level, 1 / chance if chance > 0 else float("inf"))
