"""Problems of every registered task, and answers that are worth nothing."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import rlpt.tasks  # noqa: F401  (registers)
from rlpt import registry
from rlpt.registry import lookup
from rlpt.tasks.base import create_task, train_seed

JUNK = [
    "",
    " ",
    "<|answer|>",
    "<|end|>",
    "<answer></answer>",
    "<|answer|><|answer|>1<|end|><|end|>",
    "\u0661\u0662",  # Arabic-Indic digits
    "\uff11\uff12",  # full-width digits
    "\u0430b\u0441",  # Cyrillic look-alikes of abc
    "\u00b2",
    "1" * 100_000,
    "(" * 100_000,
    "0 " * 50_000,
    "__import__('os')",
    "9**9**9",
    "\0",
    "1\0",
    "nan",
    "NaN",
    "inf",
    "-",
    "-0",
    "-0.0",
    "1e3",
    "0x1",
    "\ud800",
    "\n1",
]


def task_names(source: str = "") -> list[str]:
    """Registered names, of one source unless it is empty."""
    return [name for name in registry.names("task") if source in ("", lookup("task", name).source)]


def problems(task, level: int, count: int) -> list:
    """The first `count` problems of a training stream at `level`."""
    return [task.sample(train_seed(3, index), level) for index in range(count)]


def digest(names: list[str]) -> str:
    """A hash over problems, oracle's traces and documents of the tasks: the same bytes, the same hash."""
    sha = hashlib.sha256()
    for name in names:
        task = create_task({"name": name})
        for level in range(task.max_level + 1):
            for problem in (task.sample(train_seed(7, index), level) for index in range(2)):
                trace = task.solution(problem)
                sha.update(repr((problem, trace, task.document(problem, trace))).encode())
    return sha.hexdigest()


def digests_elsewhere(names: list[str], hash_seeds: tuple[str, ...] = ("1", "2")) -> set[str]:
    """What `digest` says in other processes, one for each seed of Python's own hashes."""
    return {
        subprocess.run(
            [sys.executable, "-m", "helpers.tasks", *names],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in hash_seeds
    }


if __name__ == "__main__":
    print(digest(sys.argv[1:]))
