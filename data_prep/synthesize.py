"""Stage synthesize: worked solutions of the tasks -> documents/solutions.jsonl, never from an evaluation seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_prep.config import SOLUTIONS, PrepConfig
from data_prep.documents import Document, write_document
from data_prep.ingest import documents_path
from data_prep.progress import Progress
from rlpt.data.manifest import atomic_writer
from rlpt.errors import ConfigError
from rlpt.tasks.base import Task, create_task, keyed_hash, train_seed


def create_tasks(config: PrepConfig) -> list[Task]:
    """The tasks of `synthesize.tasks`. Raises ConfigError for an unknown task, option or level."""
    import rlpt.tasks  # noqa: F401 - registers the families

    tasks = []
    for index, entry in enumerate(config.synthesize.tasks):
        where = f"synthesize.tasks.{index}"
        task = create_task(entry.task, f"{where}.task")
        wrong = [level for level in entry.levels if not 0 <= level <= task.max_level]
        if wrong:
            raise ConfigError(f"{where}.levels: {wrong[0]} is outside 0..{task.max_level} of task '{task.name}'")
        tasks.append(task)
    return tasks


def synthesize(config: PrepConfig, out: Path) -> dict[str, Any]:
    """Figures {task: documents}. Without tasks it writes an empty file."""
    tasks, entries = create_tasks(config), config.synthesize.tasks
    figures: dict[str, int] = {}
    total = sum(entry.documents for entry in entries)
    with Progress("synthesize", SOLUTIONS, total) as progress, atomic_writer(documents_path(out, SOLUTIONS)) as file:
        for task, entry in zip(tasks, entries, strict=True):
            stream = keyed_hash("synthesize", config.seed, json.dumps(entry.task, sort_keys=True))
            for index in range(entry.documents):
                seed, level = train_seed(stream, index), entry.levels[index % len(entry.levels)]
                problem = task.sample(seed, level)
                is_worked = keyed_hash("trace", seed) < config.synthesize.trace_share * 2**64
                trace = task.solution(problem) if is_worked else ""
                document = Document(task.document(problem, trace), f"task {task.name}, level {level}, seed {seed}")
                write_document(file, document, task=task.name, level=level, seed=seed)
                progress.update()
            figures[task.name] = figures.get(task.name, 0) + entry.documents
    return figures
