"""Problems of a weighted mix of tasks, each at the level that its curriculum has reached."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rlpt import registry
from rlpt.batch import SourceContext
from rlpt.errors import ConfigError
from rlpt.selfplay.base import SelfPlay
from rlpt.selfplay.curriculum import Curriculum, CurriculumOptions, Weighting
from rlpt.selfplay.first_hit import first_hit
from rlpt.tasks.base import Task, keyed_hash
from rlpt.types import Problem

Unreachable = Literal["lower", "refuse", "ignore"]


@dataclass(frozen=True)
class TaskShare:
    """One task of the mix."""

    task: dict[str, Any]  # {name, **options}
    weight: float = 1.0  # proportional to its share of the problems
    curriculum: CurriculumOptions = field(default_factory=CurriculumOptions)


class TaskMix:
    """Problems by their number in the run; the same on any number of ranks."""

    def __init__(
        self, shares: list[TaskShare], weighting: Weighting, form: SelfPlay | None, context: SourceContext
    ) -> None:
        self.shares, self.form, self.context = shares, form, context
        self.where = f"objectives.{context.objective}.source"
        self.tasks = create_tasks(shares, form, self.where)
        by_name = dict(zip(self.tasks, shares))
        self.curriculum = Curriculum(
            {name: share.weight for name, share in by_name.items()},
            {name: share.curriculum for name, share in by_name.items()},
            keyed_hash(context.objective, context.seed),
            weighting,
        )

    def draw(self, indices: Iterable[int]) -> list[Problem]:
        """The problems with these numbers, at the curriculum's present state."""
        drawn = [(self.tasks[task], level, seed) for task, level, seed in map(self.curriculum.draw, indices)]
        if self.form is None:
            return [task.sample(seed, level) for task, level, seed in drawn]
        return [self.form.problem(task, seed, level) for task, level, seed in drawn]

    def record(self, plays: Iterable[tuple[str, int, float]]) -> None:
        """Moves the curriculum on by (task, level, success) of every play, in problem order."""
        self.curriculum.record(plays)

    def metrics(self) -> dict[str, float]:
        """Levels and successes."""
        return self.curriculum.metrics()

    def state_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"curriculum": self.curriculum.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self.curriculum.load_state_dict(state["curriculum"])

    def prepare(self, groups_a_step: float, unreachable: Unreachable, speed: Callable[[], float]) -> list[str]:
        """A line a task that says when chance alone would first solve it, and a lower start level where that is out of
        reach. `speed()` is episodes a second. Raises ConfigError where it is refused."""
        assert self.form is not None
        if not self.form.needs_luck:
            return []
        rate, lines = speed(), []
        for index, (name, task) in enumerate(self.tasks.items()):
            budget = planned_episodes(self.shares, index, self.context.steps, groups_a_step * self.form.group_size)
            level, floor = self.curriculum.level(name), self.shares[index].curriculum.floor_level
            hit = first_hit(task, level, self.form, self.context.tokenizer)
            lines.append(hit.describe(budget, rate))
            while hit.episodes > budget and unreachable == "lower" and level > floor:
                level -= 1
                hit = first_hit(task, level, self.form, self.context.tokenizer)
            if hit.episodes > budget and unreachable != "ignore":
                raise ConfigError(
                    f"{self.where}.tasks.{index}: {hit.describe(budget, rate)}. Start at a lower level, play more "
                    f"episodes, or set {self.where}.unreachable=ignore where graded credit leads there"
                )
            if level < self.curriculum.level(name):
                self.curriculum.start_at(name, level)
                lines.append(f"starts lower, at {hit.describe(budget, rate)}")
        return lines


def planned_episodes(shares: list[TaskShare], index: int, steps: int, episodes_a_step: float) -> float:
    """Episodes of the task `index` in `steps` steps, by its weight in the mix."""
    return shares[index].weight / sum(share.weight for share in shares) * steps * episodes_a_step


def create_tasks(shares: list[TaskShare], form: SelfPlay | None, where: str) -> dict[str, Task]:
    """The tasks by name. Raises ConfigError naming the key for one that `form` can't play, that is there twice, or that
    has no such level."""
    if not shares:
        raise ConfigError(f"{where}.tasks: empty; known tasks: {', '.join(registry.names('task'))}")
    tasks: dict[str, Task] = {}
    for index, share in enumerate(shares):
        task = registry.create("task", share.task, f"{where}.tasks.{index}.task")
        if form is not None:
            form.check(task, f"{where}.tasks.{index}.task")
        if task.name in tasks:
            raise ConfigError(f"{where}.tasks.{index}: task '{task.name}' is given twice")
        if share.curriculum.target_level > task.max_level:
            raise ConfigError(
                f"{where}.tasks.{index}.curriculum.target_level={share.curriculum.target_level}: "
                f"task '{task.name}' has levels 0..{task.max_level}"
            )
        tasks[task.name] = task
    return tasks
