"""Several machines by datatrove's executors: every phase is a job of as many tasks, each of which does its share.

The tasks share the output folder and nothing else: units are finished by their markers, so a task that is sent again
goes on where it was, and the shards are the ones that one machine would have written.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.config import PrepConfig
from data_prep.pipeline import Share, run
from rlpt.errors import ConfigError, DataError
from rlpt.registry import suggest

EXECUTORS = ["local", "slurm", "ray"]


@dataclass(frozen=True)
class Phase:
    """One phase as a step of a datatrove pipeline: it takes no documents, it does units."""

    name: str
    config: PrepConfig

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        """The share `rank` of `world_size`."""
        run(self.name, self.config, workers=1, share=Share(rank, world_size))
        return data


def submit(phases: Sequence[str], config: PrepConfig, executor: str, tasks: int, options: Mapping[str, Any]) -> None:
    """Runs the phases one after the other (slurm: submits them, each after the one before). `options` go to datatrove's
    executor, e.g. {"partition": "cpu", "time": "04:00:00"} for slurm. Raises ConfigError for options that it does not
    know, DataError without datatrove."""
    if executor not in EXECUTORS:
        raise ConfigError(
            f"--executor {executor}: unknown{suggest(executor, EXECUTORS)}; known: {', '.join(EXECUTORS)}"
        )
    kind, usual = _executor(executor)
    logs, before = config.directory / ".datatrove", None
    for phase in phases:
        given = {"logging_dir": str(Path(logs, phase)), "skip_completed": False, "depends": before, **usual, **options}
        if executor == "slurm":
            given.setdefault("job_name", f"data_prep-{phase}")
        try:
            before = kind(pipeline=[Phase(phase, config)], tasks=tasks, **given)
        except TypeError as error:
            raise ConfigError(f"--executor {executor}: {error}; correct --option") from None
    assert before is not None, "there is at least one phase"
    before.run()


def _executor(name: str) -> tuple[Any, dict[str, Any]]:
    """datatrove's class, and options that it needs here."""
    try:
        if name == "local":
            from datatrove.executor.local import LocalPipelineExecutor

            return LocalPipelineExecutor, {"start_method": "spawn"}
        if name == "slurm":
            from datatrove.executor.slurm import SlurmPipelineExecutor

            return SlurmPipelineExecutor, {"venv_path": f"{sys.prefix}/bin/activate"}
        from datatrove.executor.ray import RayPipelineExecutor

        return RayPipelineExecutor, {}
    except ImportError as error:
        raise DataError(f"--executor {name} needs datatrove ({error}); pip install 'rlpt[cluster]'") from None
