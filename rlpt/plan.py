"""What a recipe amounts to, worked out without building anything: parameters, tokens a step, steps, the mesh."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from rlpt import registry
from rlpt.config import Config, check_vocabulary, check_world
from rlpt.training.memory import adapter_parameters, base_parameters, memory_rows, weight_bytes


@dataclass(frozen=True)
class Plan:
    """A recipe in figures. `vocabulary` is None while the tokenizer is not prepared; the embedding is then not
    counted in `parameters`."""

    name: str
    directory: Path
    ranks: int
    data: int  # data-parallel size
    vocabulary: int | None  # padded
    parameters: int
    steps: int
    tokens_per_step: dict[str, int]  # positions that each objective trains on, padding included
    memory: list[tuple[str, str]]  # (what, size) of one rank; empty while the vocabulary is not known

    def rows(self) -> list[tuple[str, str]]:
        """(what, figure) pairs for a table."""
        vocabulary = "tokenizer not prepared yet" if self.vocabulary is None else f"{self.vocabulary:,} (padded)"
        counted = "" if self.vocabulary is not None else " without the embedding"
        return [
            ("run folder", str(self.directory)),
            ("ranks", f"{self.ranks} ({self.data} data-parallel)"),
            ("vocabulary", vocabulary),
            ("parameters", f"{self.parameters:,}{counted}"),
            ("steps", f"{self.steps:,}"),
            *((f"tokens a step, {name}", f"{count:,}") for name, count in self.tokens_per_step.items()),
            ("tokens in all", f"{self.steps * sum(self.tokens_per_step.values()):,}"),
            *self.memory,
        ]


def default_ranks(config: Config) -> int:
    """The least number of ranks that the recipe's mesh asks for: tensor x pipeline x data (1 where data is open)."""
    return config.parallel.tensor * config.parallel.pipeline * (config.parallel.data or 1)


def make_plan(config: Config, world_size: int) -> Plan:
    """The plan of `config` on `world_size` ranks. Raises ConfigError where the layout does not fit."""
    data = check_world(config, world_size)
    vocabulary = None
    if config.tokenizer.exists():
        from rlpt.data.tokenizer import load_tokenizer

        vocabulary = check_vocabulary(config, load_tokenizer(config.tokenizer).vocab_size)
    rows = config.batch.micro_batch_size * config.batch.sequence_length
    return Plan(
        name=config.name,
        directory=config.directory,
        ranks=world_size,
        data=data,
        vocabulary=vocabulary,
        parameters=base_parameters(config, vocabulary or 0) + adapter_parameters(config),
        steps=config.schedule.steps,
        tokens_per_step={name: objective.microbatches * rows for name, objective in config.objectives.items()},
        memory=[] if vocabulary is None else memory_rows(config, vocabulary, weight_bytes(config), data),
    )


def check_components(config: Config) -> None:
    """Builds every named component from its options, data and model left out. Raises ConfigError naming the key.

    It imports torch, and so takes a second or two.
    """
    # Importing registers; the episode source brings tasks, rewards and self-play.
    import rlpt.algorithms
    import rlpt.data.corpus  # noqa: F401
    from rlpt.evaluation.games import open_contests
    from rlpt.rewards.base import Rubric
    from rlpt.rollout.source import EpisodeOptions
    from rlpt.training.sources import check_pair

    for name, objective in config.objectives.items():
        where = f"objectives.{name}"
        algorithm = registry.create("algorithm", objective.algorithm, f"{where}.algorithm")
        check_pair(config, name, algorithm)
        options = registry.create("source", objective.source, f"{where}.source")
        if isinstance(options, EpisodeOptions):
            form = registry.create("selfplay", options.selfplay, f"{where}.source.selfplay")
            Rubric.from_config(options.rubric, f"{where}.source.rubric")
            for index, share in enumerate(options.tasks):
                key = f"{where}.source.tasks.{index}.task"
                form.check(registry.create("task", share.task, key), key)
    open_contests(config.evaluation.games)
    form = registry.create("selfplay", config.evaluation.selfplay, "evaluation.selfplay")
    for index, evaluated in enumerate(config.evaluation.tasks):
        key = f"evaluation.tasks.{index}.task"
        form.check(registry.create("task", evaluated.task, key), key)


def first_hits(config: Config) -> list[tuple[str, str]]:
    """(what, estimate) rows: when chance alone first solves a task at the level that its curriculum starts at, beside
    the episodes that the whole run plays of it. Nothing while the tokenizer is not prepared."""
    from rlpt.data.tokenizer import load_tokenizer
    from rlpt.rollout.source import EpisodeOptions
    from rlpt.rollout.task_mix import planned_episodes
    from rlpt.selfplay.first_hit import first_hit

    rows: list[tuple[str, str]] = []
    if not config.tokenizer.exists():
        return rows
    tokenizer = load_tokenizer(config.tokenizer)
    for name, objective in config.objectives.items():
        options = registry.create("source", objective.source, f"objectives.{name}.source")
        if not isinstance(options, EpisodeOptions):
            continue
        form = registry.create("selfplay", options.selfplay, f"objectives.{name}.source.selfplay")
        if not form.needs_luck:
            continue
        steps = objective.active_steps(config.schedule.steps)
        for index, share in enumerate(options.tasks):
            task = registry.create("task", share.task, f"objectives.{name}.source.tasks.{index}.task")
            hit = first_hit(task, share.curriculum.start_level, form, tokenizer)
            budget = planned_episodes(options.tasks, index, steps, options.groups_a_step * form.group_size)
            rows.append((f"first hit, {name}", hit.describe(budget)))
    return rows


def data_files(config: Config) -> list[Path]:
    """Files that the recipe reads: the tokenizer, shards of text, held-out shards."""
    shards = [*config.evaluation.text, *config.evaluation.unigram]
    for objective in config.objectives.values():
        read = (objective.source, objective.source.get("passages") or {})
        shards += [Path(entry["path"]) for part in read for entry in part.get("blend", ())]
    return [config.tokenizer, *(shard.with_name(f"{shard.name}.idx") for shard in shards)]


def missing_data(config: Config) -> list[Path]:
    """Those of `data_files` that are not there."""
    return [file for file in data_files(config) if not file.exists()]


def data_manifests(config: Config) -> dict[str, str]:
    """Manifest beside a file that the recipe reads -> its sha256; the hashes of all shards are in it."""
    manifests = {file.parent / "manifest.json" for file in data_files(config)}
    found = sorted(path for path in manifests if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}
