"""Several machines by datatrove's executors: every phase is a job of several tasks, each of which does its share.

The tasks share the output folder and nothing else: units are finished by their markers, so a task that is sent again
goes on where it was, and the shards are the ones that one machine would have written.
"""

from __future__ import annotations

import inspect
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from data_prep.config import PrepConfig
from data_prep.layout import logs_path
from data_prep.pipeline import phases_to_do
from rlpt.config_files import parse_yaml
from rlpt.errors import ConfigError, DataError
from rlpt.registry import suggest

EXECUTORS = ["local", "slurm", "ray"]
_OURS = ("self", "pipeline", "tasks", "depends", "logging_dir", "skip_completed")  # not for --option
_ROOT = Path(__file__).parents[1]


def submit(name: str, config: PrepConfig, executor: str, tasks: int, options: Iterable[str]) -> None:
    """Runs a stage's phases, or those of `all`, one after the other (slurm: submits them, each after the one before).

    `options` are KEY=VALUE for datatrove's executor, e.g. partition=cpu for slurm. Raises ConfigError for those that it
    does not know, DataError when a task failed or a package is missing.
    """
    if executor not in EXECUTORS:
        raise ConfigError(
            f"--executor {executor}: unknown{suggest(executor, EXECUTORS)}; known: {', '.join(EXECUTORS)}"
        )
    kind, usual = _executor(executor)
    given = _merged(usual, _read(executor, kind, options))
    from data_prep.phase import Phase

    phases = phases_to_do(name, config, tasks)
    logs, job = _new_folder(logs_path(config.directory)), None
    for phase, count in phases:
        step = Phase(phase, config, exits=executor == "slurm")
        named = {"job_name": f"data_prep-{phase}", "depends_job_id": job} if executor == "slurm" else {}
        running = kind(pipeline=[step], tasks=count, logging_dir=str(logs / phase), **(named | given))
        try:
            running.run()
        except subprocess.CalledProcessError:
            raise ConfigError(
                f"--executor slurm: sbatch refused {phase} (its reason is above); correct --option. Phases before it "
                "are submitted: scancel them, or leave them, a second submission does what is missing"
            ) from None
        if executor == "slurm":
            job = running.job_id
            print(f"{phase}: job {job}, {count} task{'s' * (count > 1)}")
        elif missing := running.get_incomplete_ranks(skip_completed=True):
            raise DataError(
                f"{phase}: {len(missing)} of {count} tasks failed, the first is {missing[0]}; see {logs / phase}/logs; "
                "what was finished stays: mend it and run again"
            )
    print(f"logs: {logs}" + ("; when all have ended: python -m data_prep verify" if executor == "slurm" else ""))


def show_phases(config: PrepConfig, tasks: int) -> None:
    """Prints what a cluster is to run, a line each and in order: phase, number of tasks, folder for their logs."""
    for phase, count in phases_to_do("all", config, tasks):
        logs = logs_path(config.directory) / phase
        logs.mkdir(parents=True, exist_ok=True)
        print(phase, count, logs)


def _executor(name: str) -> tuple[Any, dict[str, Any]]:
    """datatrove's class, and options that it needs here."""
    try:
        if name == "local":
            from datatrove.executor.local import LocalPipelineExecutor

            return LocalPipelineExecutor, {"start_method": "spawn"}
        if name == "slurm":
            from datatrove.executor.slurm import SlurmPipelineExecutor

            return SlurmPipelineExecutor, _slurm_options()
        import ray  # noqa: F401 - datatrove imports it when it runs
        from datatrove.executor.ray import RayPipelineExecutor

        return RayPipelineExecutor, {}
    except ImportError as error:
        extra = "ray" if name == "ray" else "cluster"
        raise DataError(f"--executor {name}: {error}; pip install 'rlpt[{extra}]'") from None


def _slurm_options() -> dict[str, Any]:
    """Tasks have this process's interpreter and code; the cluster decides on the quality of service; what waits for a
    phase that failed is cancelled."""
    if shutil.which("sbatch") is None:
        raise DataError("--executor slurm: no sbatch here; submit from a login node")
    code = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = f"export PATH={shlex.quote(f'{sys.prefix}/bin')}:$PATH PYTHONPATH={shlex.quote(code)}"
    return {"env_command": command, "qos": "", "sbatch_args": {"kill-on-invalid-dep": "yes"}}


def _read(executor: str, kind: Any, options: Iterable[str]) -> dict[str, Any]:
    """The options as datatrove wants them: text as it is given (a time is no number), the rest as YAML."""
    known = {key: one for key, one in inspect.signature(kind).parameters.items() if key not in _OURS}
    read: dict[str, Any] = {}
    for option in options:
        key, equals, text = option.partition("=")
        if not equals or not key:
            raise ConfigError(f"--option {option}: write KEY=VALUE, e.g. partition=cpu")
        head, _, inner = key.partition(".")
        if head not in known:
            raise ConfigError(f"--option {key}: unknown to --executor {executor}{suggest(head, list(known))}")
        if inner:
            read[head] = {**read.get(head, {}), inner: text}
        else:
            read[key] = text if "str" in str(known[head].annotation) else parse_yaml(text, f"--option {option}")
    missing = [
        key
        for key, one in known.items()
        if one.default is one.empty and one.kind is not one.VAR_KEYWORD and key not in read
    ]
    if missing:
        raise ConfigError(f"--executor {executor} needs --option {missing[0]}=...")
    return read


def _new_folder(logs: Path) -> Path:
    """One for this submission: what datatrove notes about one before is not of this one."""
    logs.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=logs))


def _merged(usual: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` over `usual`; the user's environment replaces ours, and sbatch's arguments are laid over ours."""
    own = {
        key: value for key, value in usual.items() if key != "env_command" or not {"venv_path", "condaenv"} & set(given)
    }
    both = {key: {**own[key], **value} for key, value in given.items() if isinstance(own.get(key), dict)}
    return {**own, **given, **both}
