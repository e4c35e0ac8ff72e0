"""What one optimizer step does: rows of each objective, episodes and their tokens, passes without gradients."""

from __future__ import annotations

from dataclasses import dataclass

import rlpt.algorithms
import rlpt.rollout  # noqa: F401 (both register)
from rlpt import registry
from rlpt.config import Config
from rlpt.config_objectives import ObjectiveConfig
from rlpt.rollout.source import EpisodeOptions
from rlpt.selfplay.base import SelfPlay
from rlpt.tasks.base import Task
from rlpt.tasks.profile import first_problems

NUM_PROBLEMS = 16  # of each task, whose texts say how long episodes are
MARKS = 6  # tokens of an episode that are no characters: begin, thought, answer, end
MAX_ROWS = 512  # of one batch that decodes: PolicyGenerator's default


@dataclass(frozen=True)
class Work:
    """One objective's share of a step in which it takes part."""

    objective: str
    microbatches: int  # of one replica
    rows: int  # of each microbatch
    length: int  # of a row
    episodes: int = 0  # of one replica
    prompts: int = 0  # distinct ones among them
    prompt_tokens: int = 0  # of one episode
    sampled_tokens: int = 0  # of one episode, at most
    scorings: int = 0  # forward passes over the episodes beside the update
    heads: tuple[str, ...] = ()
    active: float = 1.0  # share of the run's steps that it takes part in

    @property
    def positions(self) -> int:
        """That one replica trains on."""
        return self.microbatches * self.rows * self.length

    @property
    def decoding_rows(self) -> int:
        """Rows that decode together."""
        return min(self.episodes, MAX_ROWS)


def workloads(config: Config, data_size: int, episode_tokens: int = 0) -> list[Work]:
    """By objective. `episode_tokens`: how long episodes are, prompt included; 0: the most that the tasks allow, a token
    a character. Raises ConfigError for components that do not build."""
    return [_work(config, name, objective, data_size, episode_tokens) for name, objective in config.objectives.items()]


def _work(config: Config, name: str, objective: ObjectiveConfig, data_size: int, episode_tokens: int) -> Work:
    algorithm = registry.create("algorithm", objective.algorithm, f"objectives.{name}.algorithm")
    options = registry.create("source", objective.source, f"objectives.{name}.source")
    length, microbatches = config.batch.sequence_length, objective.microbatches // data_size
    heads = (algorithm.head,) if algorithm.head else ()
    active = objective.active_steps(config.schedule.steps) / config.schedule.steps
    if not isinstance(options, EpisodeOptions):
        return Work(name, microbatches, config.batch.micro_batch_size, length, heads=heads, active=active)
    form = registry.create("selfplay", options.selfplay, f"objectives.{name}.source.selfplay")
    prompt, sampled = _episode_tokens(config, name, options, form, episode_tokens)
    episodes = round(options.groups_a_step * form.group_size / data_size)
    a_row = max(1, (length + 1) // (prompt + sampled))  # packing fills a row with whole episodes
    rows = max(1, -(-episodes // (a_row * microbatches)))
    return Work(
        objective=name,
        microbatches=microbatches,
        rows=rows,
        length=length,
        episodes=episodes,
        prompts=max(1, episodes // form.group_size),
        prompt_tokens=prompt,
        sampled_tokens=sampled,
        scorings=int(algorithm.needs_reference) + int(algorithm.needs_values),
        heads=heads,
        active=active,
    )


def _episode_tokens(
    config: Config, name: str, options: EpisodeOptions, form: SelfPlay, episode_tokens: int
) -> tuple[int, int]:
    """(prompt, sampled) tokens of the longest episode; what the form does not tell is all of a row."""
    room = config.batch.sequence_length
    budget = episode_tokens or getattr(form, "window", 0) or getattr(form, "max_tokens", 0)
    if budget:
        budget = min(budget, room)
        return max(1, budget // 2), max(1, budget - budget // 2)
    lengths = []
    for index, share in enumerate(options.tasks):
        task = registry.create("task", share.task, f"objectives.{name}.source.tasks.{index}.task")
        lengths.append(_task_tokens(task, share.curriculum.target_level, getattr(form, "max_thought", 0)))
    if not lengths or form.kinds != ("task", "game"):
        return max(1, room // 2), max(1, room - room // 2)
    prompt, sampled = max(lengths, key=sum)
    sampled = max(1, min(sampled, room - 1))
    return max(1, min(prompt, room - sampled)), sampled


def _task_tokens(task: Task, level: int, thought: int) -> tuple[int, int]:
    prompts = [len(problem.prompt) for problem in first_problems(task, level, NUM_PROBLEMS)]
    return max(prompts) + MARKS // 2, task.answer_limit(level) + thought + MARKS // 2
