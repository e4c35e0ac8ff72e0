"""Episodes as a BatchSource: draw problems, play them with the policy, score, compare with peers, pack.

problems (task_mix | passages) -> SelfPlay.play -> Rubric.score -> Algorithm.advantages / credit -> Replay -> pack
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rlpt import registry
from rlpt.batch import Batch, Scores, SourceContext
from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.rewards.base import DEFAULT_RUBRIC, RewardContext, Rubric
from rlpt.rollout.comparison import compare
from rlpt.rollout.packing import COLUMNS, counts_of, has_signal, pack, steps_of
from rlpt.rollout.passages import PassageOptions, Passages
from rlpt.rollout.preferences import Preferences
from rlpt.rollout.ranks import check_share, in_turn, own
from rlpt.rollout.replay import Replay
from rlpt.rollout.scoring import POLICY, TextScorer, row_shape, score_trajectories
from rlpt.rollout.task_mix import TaskMix, TaskShare, Unreachable
from rlpt.selfplay.base import Actor
from rlpt.selfplay.curriculum import Weighting
from rlpt.tasks.base import keyed_hash
from rlpt.types import Episode, Problem, Trajectory

RECENT_TRACES = 256  # texts of episodes that rewards may compare with


@register("source", "episodes")
@dataclass(frozen=True)
class EpisodeOptions:
    """`groups` problems a step over all data-parallel ranks, from `tasks` or from `passages` of a corpus, each played
    as `selfplay` says."""

    tasks: list[TaskShare] = field(default_factory=list)
    passages: PassageOptions | None = None
    groups: int = 16
    selfplay: dict[str, Any] = field(default_factory=lambda: {"name": "solve"})
    rubric: list[dict[str, Any]] = field(default_factory=lambda: [dict(part) for part in DEFAULT_RUBRIC])
    skip_silent: bool = False  # leave episodes with an advantage of 0 out of the batch and of its mean loss, as DAPO's
    # dynamic sampling does (2503.14476): their policy gradient is nothing
    share_prompt: bool = True  # the update computes what episodes have in common before their first actions once
    score_silent: bool = False  # the update computes episodes with an advantage of 0 too, where the algorithm learns
    # nothing from them: they count in its means either way, but figures such as the entropy are then of all episodes
    refill: int = 0  # with skip_silent: up to so many further rounds of play a step, until `groups` groups have signal
    refill_from: int = 0  # the optimizer step from which `refill` counts
    inner_epochs: int = 1  # passes over each play
    minibatches: int = 1  # optimizer steps a pass
    staleness: int = 0  # plays that the learner is behind the player
    export_preferences: bool = False  # pairs of each problem's best and worst attempt, in RUN/preferences.jsonl
    weighting: Weighting = field(default_factory=Weighting)
    unreachable: Unreachable = "lower"  # a start level that chance alone would not solve in the episodes of the whole
    # run: start lower, refuse to start, or trust graded credit to lead there

    def __post_init__(self) -> None:
        if bool(self.tasks) == (self.passages is not None):
            raise ValueError("give either tasks or passages")
        for key, least in {"groups": 1, "inner_epochs": 1, "minibatches": 1, "staleness": 0, "refill": 0}.items():
            if getattr(self, key) < least:
                raise ValueError(f"{key}={getattr(self, key)}: must be at least {least}")
        if self.refill and not self.skip_silent:
            raise ValueError("refill: fills up what skip_silent leaves out; set skip_silent: true")

    @property
    def groups_a_step(self) -> float:
        """Groups that are played for each optimizer step: a play serves several."""
        return self.groups / (self.inner_epochs * self.minibatches)

    def open(self, context: SourceContext) -> EpisodeSource:
        """The running source. Raises ConfigError for what does not fit together."""
        return EpisodeSource(self, context)


class EpisodeSource:
    """Self-played episodes of this rank. Problems, noise and the curriculum do not depend on the data-parallel size."""

    def __init__(self, options: EpisodeOptions, context: SourceContext) -> None:
        where = f"objectives.{context.objective}.source"
        check_share("groups", options.groups, context)
        score = None if context.score is None else self._counted(context.score)
        self.options, self.context = options, replace(context, score=score)
        self.selfplay = registry.create("selfplay", options.selfplay, f"{where}.selfplay")
        self.rubric = Rubric.from_config(options.rubric, f"{where}.rubric")
        self.problems = self._open_problems(where)
        self.memory = self.selfplay.memory()
        if options.refill and self.selfplay.may_leave_unfinished:
            raise ConfigError(
                f"{where}.refill: a play that leaves problems unfinished can't fill up a step; set it to 0"
            )
        if options.skip_silent and context.algorithm.needs_silent:
            raise ConfigError(
                f"{where}.skip_silent: the algorithm's entropy, KL or value term acts on silent episodes too; use one "
                "of them"
            )
        if context.algorithm.uses_targets and not self.selfplay.gives_targets:
            raise ConfigError(
                f"{where}.selfplay: the algorithm learns what a search chose; use one that searches, e.g. {{name: "
                "duel, search: {simulations: 25}}"
            )
        self.replay = Replay(
            keyed_hash("replay", context.objective, context.seed) >> 1,
            options.inner_epochs,
            options.minibatches,
            options.staleness,
        )
        self.preferences = Preferences(context) if options.export_preferences else None
        self.problems_drawn = 0
        self.turns = 0
        self.baselines: dict[str, float] = {}
        self.recent: list[str] = []
        self.last_episodes: list[Episode] = []
        self.last_trajectories: list[Trajectory] = []  # that the last `take` gave
        self.last_step = -1  # and the optimizer step that they were for
        self._metrics: dict[str, float] = {}
        self._scored_tokens = 0  # by this rank since the play began

    def _counted(self, score: Callable[[Batch, str], Scores]) -> Callable[[Batch, str], Scores]:
        """The same; tokens that it is asked for count, whoever asks."""

        def counted(batch: Batch, weights: str) -> Scores:
            self._scored_tokens += int((batch.segments >= 0).sum())
            return score(batch, weights)

        return counted

    def _open_problems(self, where: str) -> TaskMix | Passages:
        if self.options.passages is None:
            return TaskMix(self.options.tasks, self.options.weighting, self.selfplay, self.context)
        if "passage" not in self.selfplay.kinds:
            raise ConfigError(
                f"{where}.selfplay.name: '{self.options.selfplay['name']}' does not play passages; use predict or think"
            )
        return Passages(self.options.passages, self.context, self.selfplay.future_tokens)

    def take(self, n: int, step: int = 0, share: float = 1.0) -> list[Batch]:
        """Plays `share` of the groups where a play is due, and packs what this step learns from into `n` microbatches.

        All data-parallel ranks must call it in step.
        """
        context, algorithm = self.context, self.context.algorithm
        self._metrics = {"episodes": 0.0, "tokens": 0.0, "prompt_tokens": 0.0, "scored_tokens": 0.0}
        while self.replay.wants_play:
            self.replay.add(self._play_groups(step, share))
        self.last_trajectories, self.last_step = self.replay.next(), step
        self._metrics |= self._age(step)
        columns = [*COLUMNS, *(["ref_logprobs"] if algorithm.needs_reference else [])]
        columns += ["values"] if algorithm.needs_values else []
        columns += ["returns"] if algorithm.head else []
        columns += ["candidates"] if algorithm.uses_targets else []
        shape = row_shape(context)
        silent = [] if self._scores_all else [one for one in self.last_trajectories if not has_signal(one)]
        loud = [one for one in self.last_trajectories if has_signal(one)] if silent else self.last_trajectories
        batches = pack(loud, context.objective, n, shape, columns, self.options.share_prompt)
        tokens, number = counts_of(silent)
        batches[0] = replace(batches[0], silent_tokens=tokens, silent_trajectories=number)
        alone = algorithm.trains_head_alone(self.turns)
        batches = [replace(one, head=algorithm.head, head_alone=alone, turn=self.turns) for one in batches]
        self.turns += 1
        return batches

    def _play_groups(self, step: int, share: float) -> list[list[Trajectory]]:
        """One play: this rank's trajectories that are learned from, by problem."""
        context, options = self.context, self.options
        wanted = max(1, round(options.groups * share / context.data_size)) * context.data_size
        rounds = 1 + (options.refill if step >= options.refill_from else 0)
        episodes: list[Episode] = []
        missing, self._scored_tokens = wanted, 0
        for _ in range(rounds):
            fresh = self._play(missing, step)
            self._score(fresh, step)
            episodes += fresh
            if rounds == 1:
                break
            missing = wanted - self._groups_with_signal(episodes)
            if missing <= 0:
                break
            missing = -(-missing // context.data_size) * context.data_size
        self.last_episodes = [episode for episode in episodes if episode.trajectories]
        counts = {"scored_tokens": self._scored_tokens}
        figures, plays = compare(episodes, context, self.baselines, self.selfplay.cuts, counts)
        self.problems.record(plays)
        if self.preferences is not None:
            self.preferences.write(episodes, step)
        if self.memory is not None:
            notes = _by_problem(episodes, lambda episode: [episode.note])
            self.memory.record(in_turn(context.gather(notes)), step)
        self.recent = [*self.recent, *self._texts(episodes)][-RECENT_TRACES:] if self._remembers else []
        for key in ("episodes", "tokens", "prompt_tokens", "scored_tokens"):
            figures[key] += self._metrics[key]
        self._metrics |= figures | self.problems.metrics() | ({} if self.memory is None else self.memory.metrics())
        return _by_problem(episodes, self._learned_from)

    def _learned_from(self, episode: Episode) -> list[Trajectory]:
        return [one for one in episode.trajectories if not self.options.skip_silent or one.advantage != 0]

    @property
    def _scores_all(self) -> bool:
        """Whether trajectories without signal have to be in the rows: something would be learned from them, or is read
        off them."""
        algorithm = self.context.algorithm
        learns_anyway = algorithm.needs_silent or algorithm.uses_targets or not algorithm.uses_rewards
        return bool(self.options.score_silent or self.context.scores_silent or learns_anyway)

    def _play(self, groups: int, step: int) -> list[Episode]:
        """This rank's share of the problems that go on and of the next `groups` new ones, played."""
        context = self.context
        waiting = self.selfplay.waiting(self.memory)
        places = own(-len(waiting), len(waiting) + groups, context)
        begun = [waiting[place] for place in places if place < 0]
        new = [self.problems_drawn + place for place in places if place >= 0]
        self.problems_drawn += groups
        tasks = self.problems.tasks
        problems = [self.selfplay.problem(tasks[one.task], one.seed, one.level) for one in begun]
        keys = [one.key for one in begun]
        keys += [keyed_hash("episode", context.objective, context.seed, index) >> 1 for index in new]
        return self._played([*problems, *self.problems.draw(new)], keys, step, self.memory)

    def _played(self, problems: list[Problem], keys: list[int], step: int, memory: Any) -> list[Episode]:
        episodes: list[Episode] = self.selfplay.play(
            problems,
            self.problems.tasks,
            self._actor(),
            keys=keys,
            policy_step=step,
            memory=memory,
        )
        return episodes

    @property
    def _heads(self) -> dict[str, TextScorer]:
        return {name: TextScorer(self.context, head=name) for name in self.context.heads}

    def _actor(self) -> Actor:
        context = self.context
        return Actor(context.generator, context.tokenizer, context.chooser, context.past(), self._heads, self._seconds)

    def _seconds(self) -> float:
        """Tensor-parallel ranks play the same episodes, so the first one's clock counts on all of them."""
        return float(self.context.agree(time.monotonic()))

    def _age(self, step: int) -> dict[str, float]:
        """How many steps before this one the weights were that sampled what is learned from, over all ranks' actions.
        None where they can only be the present ones."""
        options = self.options
        steps_a_play = options.inner_epochs * options.minibatches
        if not (options.staleness or steps_a_play > 1 or self.selfplay.may_leave_unfinished):
            return {}
        ages = [step - steps_of(one)[one.action_mask] for one in self.last_trajectories]
        parts = self.context.gather((sum(int(age.sum()) for age in ages), sum(map(len, ages))))
        return {"age": sum(part[0] for part in parts) / max(1, sum(part[1] for part in parts))}

    def _score(self, episodes: list[Episode], step: int) -> None:
        """Rewards, and what the algorithm wants to know of the reference and of the value head."""
        context, algorithm = self.context, self.context.algorithm
        episodes = [episode for episode in episodes if episode.trajectories]
        trajectories = [one for episode in episodes for one in episode.trajectories]
        self.rubric.score(episodes, self._reward_context(), step)
        if algorithm.needs_reference:
            found = score_trajectories(trajectories, context, context.reference)
            for trajectory, scores in zip(trajectories, found, strict=True):
                trajectory.ref_logprobs = scores.logprobs
        if algorithm.needs_values:
            found = score_trajectories(trajectories, context, head=algorithm.head)
            for trajectory, scores in zip(trajectories, found, strict=True):
                trajectory.values = scores.values

    def _reward_context(self) -> RewardContext:
        context = self.context
        scorers = {name: TextScorer(context, name) for name in context.snapshots}
        return RewardContext(
            tasks=self.problems.tasks,
            scorers=scorers | {POLICY: TextScorer(context)},
            heads=self._heads,
            recent=self.recent,
            tokenizer=context.tokenizer,
        )

    @property
    def _remembers(self) -> bool:
        return any(getattr(part.reward, "uses_recent", False) for part in self.rubric.parts)

    def _texts(self, episodes: list[Episode]) -> list[str]:
        """Of all ranks' episodes, in problem order."""
        parts = _by_problem(episodes, lambda episode: [episode.text] if episode.trajectories else [])
        return in_turn(self.context.gather(parts))

    def _groups_with_signal(self, episodes: list[Episode]) -> int:
        """Sets of peers whose rewards differ, over all ranks."""
        rewards: dict[int, set[float]] = {}
        for one in (one for episode in episodes for one in episode.trajectories):
            rewards.setdefault(one.peers, set()).add(one.reward)
        own = self.context.agree(sum(len(values) > 1 for values in rewards.values()))
        return sum(self.context.gather(own))

    def prepare(self) -> list[str]:
        """Before the first step of a run: what chance alone would solve when. All ranks must call it."""
        if not isinstance(self.problems, TaskMix):
            return []
        return self.problems.prepare(self.options.groups_a_step, self.options.unreachable, self._episodes_per_second)

    def _episodes_per_second(self) -> float:
        """How fast all ranks together play one step's groups at the start levels; the episodes are thrown away."""
        context = self.context
        mine = own(0, self.options.groups, context)
        before = time.monotonic()
        keys = [keyed_hash("rehearsal", index) >> 1 for index in mine]
        self._played(self.problems.draw(mine), keys, step=0, memory=None)
        seconds = max(context.gather(time.monotonic() - before))
        return float(self.options.groups * self.selfplay.group_size / max(seconds, 1e-9))

    @property
    def curriculum(self) -> Any:
        """The curriculum of the tasks; None for passages."""
        return self.problems.curriculum if isinstance(self.problems, TaskMix) else None

    def metrics(self) -> dict[str, float]:
        """Reward and its parts, success, share of groups with signal, lengths, the curriculum's levels."""
        return dict(self._metrics)

    def state_dict(self) -> dict[str, Any]:
        """JSON-able; the same on every rank. All data-parallel ranks must call it."""
        return {
            "problems_drawn": self.problems_drawn,
            "turns": self.turns,
            "baselines": dict(self.baselines),
            "recent": list(self.recent),
            "replay": self.replay.state_dict(self.context.gather),
            **({} if self.memory is None else {"memory": self.memory.state_dict()}),
            **self.problems.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self.problems_drawn, self.turns = state["problems_drawn"], state["turns"]
        self.baselines, self.recent = dict(state["baselines"]), list(state["recent"])
        self.replay.load_state_dict(state["replay"], self.context.data_rank, self.context.data_size)
        self.problems.load_state_dict(state)
        if self.memory is not None and "memory" in state:
            self.memory.load_state_dict(state["memory"])

    def cursor(self) -> dict[str, Any]:
        """See `BatchSource`."""
        return {"problems_drawn": self.problems_drawn}


def _by_problem(episodes: list[Episode], what: Callable[[Episode], Iterable[Any]]) -> list[list[Any]]:
    """What there is of this rank's episodes, by problem."""
    found: dict[int, list[Any]] = {}
    for episode in episodes:
        found.setdefault(id(episode.problem), []).extend(what(episode))
    return list(found.values())
