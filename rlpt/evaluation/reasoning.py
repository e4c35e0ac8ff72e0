"""pass@k of held-out problems, per task and level, and what thoughts look like; sharded over data-parallel ranks.

Held-out problem i of a task has the seed `evaluation_seed(i)`, which no training seed equals; the noise keys of its
samples hang on (task, seed, level) alone, so evaluations of one run differ by the weights and by nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlpt.config import EvaluationConfig
from rlpt.errors import ConfigError
from rlpt.evaluation.behaviours import Thought, behaviour_figures, measure
from rlpt.evaluation.statistics import clustered_wilson_interval, pass_at_k
from rlpt.selfplay.base import ROLE, Actor, SelfPlay
from rlpt.tasks.base import Task, evaluation_seed, keyed_hash
from rlpt.types import Episode, Problem

Play = Callable[[list[Problem], Mapping[str, Task], list[int]], list[Episode]]  # (problems, tasks, keys)
Gather = Callable[[Any], list[Any]]  # all_gather_object over data-parallel ranks, in rank order


@dataclass(frozen=True)
class Attempted:
    """What the samples of one held-out problem came to."""

    label: str  # of the evaluated task
    index: int  # of the problem
    num_correct: int  # samples with score exactly 1
    num_samples: int
    total_score: float  # graded
    thoughts: tuple[Thought, ...] = ()  # one a sample, where they think


def play_with(form: SelfPlay, actor: Actor) -> Play:
    """A self-play form (`solve`, with `group_size` = samples a problem) as what `evaluate_tasks` calls."""

    def play(problems: list[Problem], tasks: Mapping[str, Task], keys: list[int]) -> list[Episode]:
        return form.play(problems, tasks, actor, keys=keys, policy_step=0)

    return play


def evaluate_tasks(
    tasks: Sequence[tuple[Task, int]],
    play: Play,
    options: EvaluationConfig,
    data_rank: int = 0,
    data_size: int = 1,
    gather: Gather = lambda value: [value],
    names: Sequence[str] | None = None,
) -> dict[str, dict[str, Any]]:
    """Plays `options.problems` held-out problems of each (task, level); the same result on every rank.

    Per task: {"level", "pass@K" for each K, "interval" (95 % of pass@1, problems as clusters), "mean_score" (graded),
    "problems", "samples"}, and "behaviours" (see `behaviour_figures`) where samples think. The key is the task's name,
    or what `names` calls it, with "@LEVEL" where one name is evaluated at several levels.
    Raises ConfigError when a task stands twice at one level, ValueError when `play` returns another number of
    episodes than `options.samples` a problem.
    """
    names = names or [task.name for task, _ in tasks]
    labels = task_labels([(name, level) for name, (_, level) in zip(names, tasks, strict=True)])
    mine = [
        attempted
        for label, (task, level) in zip(labels, tasks, strict=True)
        for attempted in _attempt(label, task, level, play, options, range(data_rank, options.problems, data_size))
    ]
    attempts: dict[str, list[Attempted]] = {label: [] for label in labels}
    for attempted in sorted((one for part in gather(mine) for one in part), key=lambda one: one.index):
        attempts[attempted.label].append(attempted)
    return {
        label: {"level": level} | _figures(attempts[label], options)
        for label, (_, level) in zip(labels, tasks, strict=True)
    }


def task_labels(tasks: Sequence[tuple[str, int]]) -> list[str]:
    """One key for each (name, level): the name, or name@level where the name occurs more than once."""
    counts = Counter(name for name, _ in tasks)
    labels = [name if counts[name] == 1 else f"{name}@{level}" for name, level in tasks]
    for label, count in Counter(labels).items():
        if count > 1:
            raise ConfigError(f"evaluation.tasks: '{label}' is listed {count} times; a task at a level is listed once")
    return labels


def evaluation_key(problem: Problem) -> int:
    """64-bit noise key of a held-out problem."""
    return keyed_hash("evaluation", problem.task, problem.seed, problem.level)


def _attempt(
    label: str, task: Task, level: int, play: Play, options: EvaluationConfig, indices: range
) -> list[Attempted]:
    problems = [task.sample(evaluation_seed(index), level) for index in indices]
    if not problems:
        return []
    episodes = play(problems, {task.name: task}, [evaluation_key(problem) for problem in problems])
    played: dict[int, list[Episode]] = {problem.seed: [] for problem in problems}
    for episode in episodes:
        played[episode.problem.seed].append(episode)
    attempts = []
    for index, problem in zip(indices, problems, strict=True):
        samples = played[problem.seed]
        if len(samples) != options.samples:
            raise ValueError(
                f"evaluation of {label}: {len(samples)} episodes of problem {problem.seed}, "
                f"evaluation.samples={options.samples}"
            )
        scores = [episode.outcome[ROLE] for episode in samples]
        thoughts = tuple(thought for episode in samples if (thought := measure(episode, task)) is not None)
        num_correct = sum(score == 1.0 for score in scores)
        attempts.append(Attempted(label, index, num_correct, options.samples, sum(scores), thoughts))
    return attempts


def _figures(attempts: Sequence[Attempted], options: EvaluationConfig) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for k in sorted({1, *options.pass_at}):
        rates = [pass_at_k(one.num_samples, one.num_correct, k) for one in attempts]
        figures[f"pass@{k}"] = sum(rates) / len(rates)
        if k == 1:
            figures["interval"] = list(clustered_wilson_interval(rates, options.samples))
    total = sum(one.total_score for one in attempts)
    figures["mean_score"] = total / (len(attempts) * options.samples)
    figures |= {"problems": len(attempts), "samples": options.samples}
    thoughts = [thought for one in attempts for thought in one.thoughts]
    return figures | ({"behaviours": behaviour_figures(thoughts)} if thoughts else {})
