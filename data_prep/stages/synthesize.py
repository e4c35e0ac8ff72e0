"""Stage synthesize: worked solutions of the tasks -> documents/solutions/PART.jsonl, never from an evaluation seed."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from data_prep.config import PrepConfig, SynthesizeConfig, SynthesizedTask
from data_prep.documents import write_document
from data_prep.layout import SOLUTIONS, documents_path, part_name
from data_prep.plan import Chunk, Plan
from data_prep.styles import StyleMix, check_level_weights, level_of
from data_prep.work import Figures, Unit
from rlpt.data.manifest import atomic_writer
from rlpt.errors import ConfigError
from rlpt.tasks.base import Task, create_task, keyed_hash, train_seed


def create_tasks(config: PrepConfig) -> list[Task]:
    """The tasks of `synthesize.tasks`. Raises ConfigError for an unknown task, option, level or style."""
    tasks = []
    for index, entry in enumerate(config.synthesize.tasks):
        where = f"synthesize.tasks.{index}"
        task = _create(entry, where)
        wrong = [level for level in entry.levels if not 0 <= level <= task.max_level]
        if wrong:
            raise ConfigError(f"{where}.levels: {wrong[0]} is outside 0..{task.max_level} of task '{task.name}'")
        check_level_weights(entry.levels, entry.level_weights, f"{where}.level_weights")
        _mix(config.synthesize, entry).check(task, f"{where}.styles" if entry.styles else "synthesize.styles")
        tasks.append(task)
    return tasks


def _mix(options: SynthesizeConfig, entry: SynthesizedTask) -> StyleMix:
    return StyleMix(entry.styles or options.styles, options.trace_share)


def _create(entry: SynthesizedTask, where: str = "") -> Task:
    import rlpt.tasks  # noqa: F401 - registers the families

    return create_task(entry.task, f"{where}.task")


def units(plan: Plan) -> list[Unit]:
    """One a chunk of solutions."""
    config, found = plan.config, []
    for chunk in plan.chunks:
        path, entry = documents_path(plan.out, SOLUTIONS, chunk.index), config.synthesize.tasks[chunk.entry]
        run = partial(synthesize_chunk, config.seed, config.synthesize, chunk, path)
        inputs = [
            config.seed,
            config.synthesize.trace_share,
            config.synthesize.styles,
            entry.model_dump(mode="json"),
            chunk.start,
            chunk.stop,
        ]
        found.append(Unit(part_name(SOLUTIONS, chunk.index), run, (path,), inputs, after=()))
    return found


def synthesize_chunk(prep_seed: int, options: SynthesizeConfig, chunk: Chunk, path: Path) -> Figures:
    """Writes the chunk's solutions."""
    entry = options.tasks[chunk.entry]
    task, mix, size = _create(entry), _mix(options, entry), 0
    stream = keyed_hash("synthesize", prep_seed, json.dumps(entry.task, sort_keys=True))
    with atomic_writer(path) as file:
        for index in range(chunk.start, chunk.stop):
            seed = train_seed(stream, index)
            level = level_of(entry.levels, entry.level_weights, seed, index)
            document = mix.document(task, seed, level)
            write_document(file, document, task=task.name, level=level, seed=seed)
            size += len(document.text.encode("utf-8"))
    return {"documents": chunk.stop - chunk.start, "utf8_bytes": size, "task": task.name}
