"""Episodes as a BatchSource: draw problems, play them with the policy, score, compare with peers, pack."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from rlpt import registry
from rlpt.batch import Batch, SourceContext
from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.rewards.base import DEFAULT_RUBRIC, Rubric
from rlpt.rollout.packing import pack
from rlpt.selfplay.base import SelfPlay
from rlpt.selfplay.curriculum import Curriculum, CurriculumOptions, Weighting
from rlpt.selfplay.first_hit import first_hit
from rlpt.tasks.base import Task, keyed_hash
from rlpt.types import Episode, Problem, Trajectory


@dataclass(frozen=True)
class TaskShare:
    """One task of the mix."""

    task: dict[str, Any]  # {name, **options}
    weight: float = 1.0  # proportional to its share of the problems
    curriculum: CurriculumOptions = field(default_factory=CurriculumOptions)


@register("source", "episodes")
@dataclass(frozen=True)
class EpisodeOptions:
    """`groups` problems a step over all data-parallel ranks, each played as `selfplay` says."""

    tasks: list[TaskShare]
    groups: int = 16
    selfplay: dict[str, Any] = field(default_factory=lambda: {"name": "solve"})
    rubric: list[dict[str, Any]] = field(default_factory=lambda: [dict(part) for part in DEFAULT_RUBRIC])
    skip_silent: bool = False  # leave episodes with an advantage of 0 out of the batch and of its mean loss, as DAPO's
    # dynamic sampling does (2503.14476, without its refill): their policy gradient is nothing
    weighting: Weighting = field(default_factory=Weighting)
    unreachable: Literal["lower", "refuse", "ignore"] = "lower"  # a start level that chance alone would not solve in
    # the episodes of the whole run: start lower, refuse to start, or trust graded credit to lead there

    def planned_episodes(self, index: int, steps: int, group_size: int) -> float:
        """Episodes of the task `index` in `steps` steps, by its weight in the mix."""
        return self.tasks[index].weight / sum(task.weight for task in self.tasks) * steps * self.groups * group_size

    def open(self, context: SourceContext) -> EpisodeSource:
        """The running source. Raises ConfigError for what does not fit together."""
        return EpisodeSource(self, context)


class EpisodeSource:
    """Self-played episodes of this rank. Problems, noise and the curriculum do not depend on the data-parallel size."""

    def __init__(self, options: EpisodeOptions, context: SourceContext) -> None:
        where = f"objectives.{context.objective}.source"
        if options.groups % context.data_size:
            raise ConfigError(
                f"{where}.groups={options.groups} is not divisible by the data-parallel size {context.data_size}"
            )
        self.options, self.context = options, context
        self.selfplay = registry.create("selfplay", options.selfplay, f"{where}.selfplay")
        self.rubric = Rubric.from_config(options.rubric, f"{where}.rubric")
        self.tasks = _create_tasks(options.tasks, self.selfplay, where)
        if options.skip_silent and context.algorithm.needs_silent:
            raise ConfigError(
                f"{where}.skip_silent: the algorithm's entropy or KL term acts on silent episodes too; use one of them"
            )
        by_name = dict(zip(self.tasks, options.tasks))
        self.curriculum = Curriculum(
            {name: share.weight for name, share in by_name.items()},
            {name: share.curriculum for name, share in by_name.items()},
            keyed_hash(context.objective, context.seed),
            options.weighting,
        )
        self.problems_drawn = 0
        self.last_episodes: list[Episode] = []
        self._metrics: dict[str, float] = {}

    def take(self, n: int, step: int = 0, share: float = 1.0) -> list[Batch]:
        """Plays `share` of the groups and packs this rank's episodes into `n` microbatches.

        All data-parallel ranks must call it in step.
        """
        context = self.context
        groups = max(1, round(self.options.groups * share / context.data_size)) * context.data_size
        indices = range(self.problems_drawn, self.problems_drawn + groups)
        mine = [index for index in indices if index % context.data_size == context.data_rank]
        self.problems_drawn += groups
        keys = [keyed_hash("episode", context.objective, context.seed, index) >> 1 for index in mine]
        episodes = self._play(self._problems(mine), keys, step)
        self.last_episodes = episodes
        trajectories = [trajectory for episode in episodes for trajectory in episode.trajectories]
        self._compare(episodes, trajectories)
        if self.options.skip_silent:
            trajectories = [trajectory for trajectory in trajectories if trajectory.advantage != 0]
        batches = pack(
            trajectories,
            context.objective,
            n,
            context.sequence_length,
            context.tokenizer.vocab_size,
            context.tokenizer.pad_id,
        )
        if context.algorithm.needs_reference:
            batches = [replace(batch, ref_logprobs=context.reference(batch)) for batch in batches]
        return batches

    def prepare(self) -> list[str]:
        """Before the first step of a run: a line a task that says when chance alone would first solve it, and a lower
        start level where that is out of reach. Raises ConfigError where it is refused. All ranks must call it."""
        speed, lines = self._episodes_per_second(), []
        for index, (name, task) in enumerate(self.tasks.items()):
            budget = self.options.planned_episodes(index, self.context.steps, self.selfplay.group_size)
            level, floor = self.curriculum.level(name), self.options.tasks[index].curriculum.floor_level
            hit = first_hit(task, level, self.selfplay, self.context.tokenizer)
            lines.append(hit.describe(budget, speed))
            while hit.episodes > budget and self.options.unreachable == "lower" and level > floor:
                level -= 1
                hit = first_hit(task, level, self.selfplay, self.context.tokenizer)
            if hit.episodes > budget and self.options.unreachable != "ignore":
                where = f"objectives.{self.context.objective}.source"
                raise ConfigError(
                    f"{where}.tasks.{index}: {hit.describe(budget, speed)}. Start at a lower level, play more "
                    f"episodes, or set {where}.unreachable=ignore where graded credit leads there"
                )
            if level < self.curriculum.level(name):
                self.curriculum.start_at(name, level)
                lines.append(f"starts lower, at {hit.describe(budget, speed)}")
        return lines

    def _episodes_per_second(self) -> float:
        """How fast all ranks together play one step's groups at the start levels; the episodes are thrown away."""
        context, form = self.context, self.selfplay
        mine = range(context.data_rank, self.options.groups, context.data_size)
        problems = self._problems(mine)
        before = time.monotonic()
        self._play(problems, [keyed_hash("rehearsal", index) >> 1 for index in mine], step=0)
        seconds = max(context.gather(time.monotonic() - before))
        return self.options.groups * form.group_size / max(seconds, 1e-9)

    def _problems(self, indices: Iterable[int]) -> list[Problem]:
        """The problems with these global indices, at the curriculum's present state."""
        drawn = map(self.curriculum.draw, indices)
        return [self.tasks[task].sample(seed, level) for task, level, seed in drawn]

    def _play(self, problems: list[Problem], keys: list[int], step: int) -> list[Episode]:
        context = self.context
        episodes: list[Episode] = self.selfplay.play(
            problems, self.tasks, context.generator, context.tokenizer, self.rubric, keys=keys, policy_step=step
        )
        return episodes

    def _compare(self, episodes: list[Episode], trajectories: list[Trajectory]) -> None:
        """Advantages within peer sets and the curriculum's counts, from all ranks' episodes in problem order.

        Tensor-parallel ranks play the same episodes; where a verifier's verdict can hang on a limit of time, the first
        rank's counts on all of them.
        """
        plays = [
            (e.problem.task, e.problem.level, float(all(score == 1.0 for score in e.outcome.values())))
            for e in episodes
        ]
        rows = [(t.reward, t.peers, t.role, int(t.action_mask.sum()), t.truncated, t.rewards) for t in trajectories]
        gathered = self.context.gather(self.context.agree((plays, rows)))
        every_row = [row for _, part in gathered for row in part]
        rewards = np.array([row[0] for row in every_row], dtype=np.float64)
        peers = np.array([row[1] for row in every_row], dtype=np.int64)
        advantages = self.context.algorithm.advantages(rewards, peers, [row[2] for row in every_row])
        first = sum(len(part) for _, part in gathered[: self.context.data_rank])
        for trajectory, advantage in zip(trajectories, advantages[first : first + len(trajectories)]):
            trajectory.advantage = float(advantage)
        # ranks hold problems round robin: put the plays back into problem order, so that any layout records the same
        size = len(episodes) // max(1, len({t.peers for t in trajectories}))
        in_turn = [part[at : at + size] for at in range(0, len(plays), size) for part, _ in gathered]
        self.curriculum.record(play for group in in_turn for play in group)
        self._metrics = _figures(every_row, rewards, peers, [play for part, _ in gathered for play in part])
        self._metrics |= self.curriculum.metrics()

    def metrics(self) -> dict[str, float]:
        """Reward and its parts, success, share of groups with signal, lengths, the curriculum's levels."""
        return dict(self._metrics)

    def state_dict(self) -> dict[str, Any]:
        """JSON-able; the same on every rank."""
        return {"problems_drawn": self.problems_drawn, "curriculum": self.curriculum.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self.problems_drawn = state["problems_drawn"]
        self.curriculum.load_state_dict(state["curriculum"])


def _create_tasks(shares: list[TaskShare], form: SelfPlay, where: str) -> dict[str, Task]:
    if not shares:
        raise ConfigError(f"{where}.tasks: empty; known tasks: {', '.join(registry.names('task'))}")
    tasks: dict[str, Task] = {}
    for index, share in enumerate(shares):
        task = registry.create("task", share.task, f"{where}.tasks.{index}.task")
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


def _figures(
    rows: list[tuple[Any, ...]], rewards: np.ndarray, peers: np.ndarray, plays: list[tuple[str, int, float]]
) -> dict[str, float]:
    """Figures of one take over all ranks."""
    with_signal = [bool(np.ptp(rewards[peers == peer]) > 0) for peer in np.unique(peers)]
    figures = {
        "episodes": float(len(plays)),
        "tokens": float(sum(row[3] for row in rows)),
        "reward": float(rewards.mean()),
        "success": float(np.mean([play[2] for play in plays])),
        "signal": float(np.mean(with_signal)),
        "length": float(np.mean([row[3] for row in rows])),
        "truncated": float(np.mean([row[4] for row in rows])),
    }
    for part in rows[0][5]:
        figures[f"reward/{part}"] = float(np.mean([row[5][part] for row in rows]))
    return figures
