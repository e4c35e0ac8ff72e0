"""Monte-Carlo values of reasoning steps as a BatchSource: what a process head learns to say.

The value of a step is the share of continuations from its end that come to a right answer (Math-Shepherd, Wang et al.
2312.08935, soft labels). Thoughts are the policy's own; a step ends where whitespace or the answer mark follows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rlpt import registry
from rlpt.batch import Batch, SourceContext
from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.rewards.trace import steps, turns
from rlpt.rollout.packing import pack
from rlpt.rollout.ranks import check_share, own
from rlpt.rollout.scoring import row_shape
from rlpt.rollout.task_mix import TaskMix, TaskShare
from rlpt.selfplay.base import Actor
from rlpt.selfplay.curriculum import Weighting
from rlpt.selfplay.solve import Solve
from rlpt.tasks.base import keyed_hash
from rlpt.template import THINK
from rlpt.types import Episode, SamplingParams, Trajectory


@register("source", "step_values")
@dataclass(frozen=True)
class StepValueOptions:
    """`problems` a step over all data-parallel ranks, each thought about once; of each thought up to `steps` steps are
    judged, each by `continuations` from its end."""

    tasks: list[TaskShare]
    selfplay: dict[str, Any]
    problems: int = 16
    steps: int = 4
    continuations: int = 8

    def __post_init__(self) -> None:
        for key in ("problems", "steps", "continuations"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}={getattr(self, key)}: must be at least 1")

    def open(self, context: SourceContext) -> StepValueSource:
        """The running source. Raises ConfigError for what does not fit together."""
        return StepValueSource(self, context)


@dataclass
class _Judged:
    """One step: where it ends, and what its continuations came to. Mutable: they come in one by one."""

    trajectory: Trajectory
    end: int  # position of its last token
    right: int = 0


class StepValueSource:
    """Judged steps of this rank."""

    def __init__(self, options: StepValueOptions, context: SourceContext) -> None:
        where = f"objectives.{context.objective}.source"
        check_share("problems", options.problems, context)
        form = registry.create("selfplay", options.selfplay, f"{where}.selfplay")
        if not isinstance(form, Solve) or not form.think:
            raise ConfigError(f"{where}.selfplay: steps are those of thoughts; use {{name: solve, think: true, ...}}")
        if not context.algorithm.head:
            raise ConfigError(f"objectives.{context.objective}.algorithm: must train a head; use value_regression")
        self.options, self.context = options, context
        self.form: Solve = replace(form, group_size=1)
        self.mix = TaskMix(options.tasks, Weighting(), self.form, context)
        self.problems_drawn = 0
        self._metrics: dict[str, float] = {}

    def take(self, n: int, step: int = 0, share: float = 1.0) -> list[Batch]:
        """The next problems' judged steps in `n` microbatches. All data-parallel ranks must call it in step."""
        context = self.context
        mine = own(self.problems_drawn, self.options.problems, context)
        self.problems_drawn += self.options.problems
        keys = [keyed_hash("step values", context.objective, context.seed, index) >> 1 for index in mine]
        actor = Actor(context.generator, context.tokenizer)
        episodes = self.form.play(self.mix.draw(mine), self.mix.tasks, actor, keys=keys, policy_step=step)
        judged = [self._steps(episode) for episode in episodes]
        sampled = self._continue(episodes, judged, keys)
        shown = [self._shown(found) for found in judged if found]
        self._count(episodes, judged, sampled)
        columns = ("sequence_share", "returns")
        batches = pack(shown, context.objective, n, row_shape(context), columns)
        return [replace(batch, head=context.algorithm.head) for batch in batches]

    def _steps(self, episode: Episode) -> list[_Judged]:
        """Up to `steps` steps of the thought, spread evenly over it, each with a token behind it."""
        (trajectory,) = episode.trajectories
        tokenizer = self.context.tokenizer
        thought = turns(trajectory, tokenizer)[0].thought
        _, ends = steps(tokenizer, trajectory.token_ids, thought)
        ends = ends[ends + 1 < len(trajectory.token_ids)]
        chosen = np.unique(np.linspace(0, len(ends) - 1, min(self.options.steps, len(ends))).round().astype(int))
        return [_Judged(trajectory, int(ends[index])) for index in chosen]

    def _continue(self, episodes: list[Episode], judged: list[list[_Judged]], keys: list[int]) -> int:
        """Plays every judged step on, `continuations` times; returns the number of tokens that were sampled."""
        tokenizer, form = self.context.tokenizer, self.form
        prompts: list[list[int]] = []
        params: list[list[SamplingParams]] = []
        noise: list[int] = []
        whose: list[tuple[Episode, _Judged]] = []
        for episode, found, key in zip(episodes, judged, keys, strict=True):
            task = self.mix.tasks[episode.problem.task]
            sampling = form.sampling(task, episode.problem.level, tokenizer)
            for item in found:
                written = int(item.trajectory.action_mask[: item.end + 1].sum())
                left = replace(sampling[0], max_new_tokens=max(1, sampling[0].max_new_tokens - written))
                for sample in range(self.options.continuations):
                    prompts.append(item.trajectory.token_ids[: item.end + 1].tolist())
                    params.append([left, *sampling[1:]])
                    noise.append(keyed_hash("continuation", key, item.end, sample) >> 1)
                    whose.append((episode, item))
        completions = form.complete(prompts, params, noise, self.context.generator)
        for (episode, item), completion in zip(whose, completions, strict=True):
            begun = item.trajectory.token_ids[: item.end + 1][item.trajectory.action_mask[: item.end + 1]]
            text = THINK + tokenizer.decode([*begun.tolist(), *completion.token_ids.tolist()])
            answer = form.answer(text, completion)
            task = self.mix.tasks[episode.problem.task]
            item.right += answer is not None and task.verify(episode.problem, answer) == 1.0
        return sum(len(completion.token_ids) for completion in completions)

    def _shown(self, found: list[_Judged]) -> Trajectory:
        """The thought with the value of each judged step, as a return of the state behind its last token."""
        trajectory = found[0].trajectory
        mask, returns = np.zeros(len(trajectory.token_ids), bool), np.zeros(len(trajectory.token_ids), np.float32)
        for item in found:
            mask[item.end + 1] = True
            returns[item.end + 1] = item.right / self.options.continuations
        return replace(trajectory, action_mask=mask, returns=returns, kept_ids=None, temperature=1.0)

    def _count(self, episodes: list[Episode], judged: list[list[_Judged]], sampled: int) -> None:
        """Figures over all ranks; the continuations are rollouts too."""
        trajectories = [one for episode in episodes for one in episode.trajectories]
        values = [item.right / self.options.continuations for found in judged for item in found]
        continued = sum(item.end + 1 for found in judged for item in found)
        own = {
            "episodes": len(episodes) + len(values) * self.options.continuations,
            "tokens": sampled + sum(int(one.action_mask.sum()) for one in trajectories),
            "prompt_tokens": continued + sum(int((~one.action_mask).sum()) for one in trajectories),
            "steps": len(values),
            "step_value": sum(values),
        }
        parts = self.context.gather(self.context.agree(own))
        total = {key: float(sum(part[key] for part in parts)) for key in own}
        total["step_value"] /= max(1.0, total["steps"])
        self._metrics = total

    def metrics(self) -> dict[str, float]:
        """Judged steps of the last `take` and their mean value, with the tokens that it took."""
        return dict(self._metrics)

    def state_dict(self) -> dict[str, Any]:
        """JSON-able; the same on every rank."""
        return {"problems_drawn": self.problems_drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self.problems_drawn = state["problems_drawn"]

    def cursor(self) -> dict[str, Any]:
        """See `BatchSource`."""
        return self.state_dict()
