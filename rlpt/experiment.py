"""Experiments: arms by seeds over one recipe, and claims about their figures. `rlpt experiment NAME` runs one.

`configs/experiments/NAME.yaml` describes it. Each arm at each seed is an ordinary run in
`runs/experiments/NAME/ARM-seedS`; `runs/experiments/NAME/summary.json` holds all figures and the judged claims.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from rlpt.claims import Claim, judge, training_figures_of
from rlpt.config import Config, load_config
from rlpt.config_files import load_yaml
from rlpt.config_objectives import Section
from rlpt.errors import ConfigError, DataError, UserError
from rlpt.evaluation.summary import write_json
from rlpt.launch.spec import default_environment
from rlpt.launcher import Job, launch_all, shell_code
from rlpt.plan import check_components, data_manifests, default_ranks, make_plan
from rlpt.registry import describe, suggest
from rlpt.training.throughput import duration

FOLDER = Path("configs/experiments")
RUNS = Path("runs/experiments")


class Arm(Section):
    """One variant of the recipe."""

    description: str = ""
    overrides: list[str] = Field(default_factory=list, description="dotted overrides laid on the recipe")


class Experiment(Section):
    """An experiment's file. `recipe` and `data` are relative to the file's folder."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", description="names the folder under runs/experiments")
    description: str = ""
    recipe: Path = Field(description="the training recipe that all arms share")
    data: Path | None = Field(
        None, description="data configuration to prepare first; what is up to date is left as it is"
    )
    nproc: int | None = Field(None, ge=1, description="ranks; default: what the recipe's mesh asks for")
    seeds: list[int] = Field(default_factory=lambda: [1], min_length=1)
    arms: dict[str, Arm] = Field(min_length=1)
    claims: list[Claim] = Field(default_factory=list)

    @model_validator(mode="after")
    def _references_exist(self) -> Experiment:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds={self.seeds}: a seed is given twice")
        for index, claim in enumerate(self.claims):
            for reference in claim.value.references:
                arm = reference.partition(":")[0]
                if arm not in self.arms:
                    raise ValueError(
                        f"claims.{index}.value.{claim.value.form}: '{reference}' names no arm"
                        f"{suggest(arm, sorted(self.arms))}"
                    )
        return self

    @property
    def directory(self) -> Path:
        """Where its runs and its summary are."""
        return RUNS / self.name

    def run_directory(self, arm: str, seed: int) -> Path:
        """The run's folder of one arm at one seed."""
        return self.directory / f"{arm}-seed{seed}"

    def overrides(self, arm: str, seed: int) -> list[str]:
        """The arm's overrides and those that give its run a name, a folder and a seed."""
        own = [f"name={self.name}-{arm}-seed{seed}", f"run_dir={self.run_directory(arm, seed)}", f"seed={seed}"]
        return [*self.arms[arm].overrides, *own]

    def configs(self) -> dict[tuple[str, int], Config]:
        """Every arm at every seed, resolved. Raises ConfigError that names the arm."""
        configs = {}
        for arm in self.arms:
            for seed in self.seeds:
                try:
                    configs[arm, seed] = load_config(self.recipe, self.overrides(arm, seed))
                except ConfigError as error:
                    raise ConfigError(f"arms.{arm}: {error}") from None
        return configs


def load_experiment(path: Path) -> Experiment:
    """Reads an experiment's file. Raises ConfigError that names every wrong key, and near names."""
    values = load_yaml(path)
    fields = list(Experiment.model_fields)
    for key in values:
        if key not in fields:
            raise ConfigError(f"{path}: {key}: unknown key{suggest(key, fields)}")
    try:
        experiment = Experiment.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}:\n{describe(error)}") from None
    files = {key: getattr(experiment, key) for key in ("recipe", "data")}
    beside = {key: Path(os.path.normpath(path.parent / file)) for key, file in files.items() if file is not None}
    return experiment.model_copy(update=beside)


def find_experiment(name: str) -> Experiment:
    """By name in `configs/experiments`, or by path. Raises ConfigError with the near name."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = FOLDER / f"{name}.yaml"
        if not path.is_file():
            known = sorted(file.stem for file in FOLDER.glob("*.yaml"))
            raise ConfigError(f"unknown experiment '{name}' in {FOLDER}{suggest(name, known)}")
    return load_experiment(path)


def list_experiments() -> list[tuple[str, str]]:
    """(name, description and how far it is) of every file in `configs/experiments`."""
    rows = []
    for path in sorted(FOLDER.glob("*.yaml")):
        experiment = load_experiment(path)
        done = sum(_summary_path(experiment, arm, s).exists() for arm in experiment.arms for s in experiment.seeds)
        runs = len(experiment.arms) * len(experiment.seeds)
        rows.append((path.stem, f"{experiment.description.strip()} [{done} of {runs} runs done]"))
    return rows


def run_experiment(experiment: Experiment, jobs: int = 1) -> dict[str, Any]:
    """Runs what is not finished, `jobs` arms at a time, judges the claims, writes `summary.json` and `learning.png`.

    With several jobs each arm's output goes to `log.txt` in its folder. Returns the summary. Raises ConfigError before
    anything starts where an arm does not resolve or fit its ranks, or where a run's folder belongs to another
    configuration; UserError with the run's exit code where one fails.
    """
    configs = experiment.configs()
    ranks = {key: experiment.nproc or default_ranks(config) for key, config in configs.items()}
    for (arm, seed), config in configs.items():
        make_plan(config, ranks[arm, seed])
        check_components(config)
        _check_folder(experiment.run_directory(arm, seed), config)
    if experiment.data is not None and not all(_summary_path(experiment, *key).exists() for key in configs):
        _prepare_data(experiment.data)
    _check_data(experiment, configs.values())
    _run_arms(experiment, ranks, jobs)
    return summarise_experiment(experiment)


def summarise_experiment(experiment: Experiment) -> dict[str, Any]:
    """Collects the runs' summaries, judges the claims, draws the plot, writes and returns `summary.json`."""
    arms = {
        arm: {str(seed): _read_json(_summary_path(experiment, arm, seed)) for seed in experiment.seeds}
        for arm in experiment.arms
    }
    seeds = [str(seed) for seed in experiment.seeds]
    claims = [judge(claim, arms, seeds) for claim in experiment.claims]
    summary = {"name": experiment.name, "arms": arms, "claims": claims}
    write_json(experiment.directory / "summary.json", summary)

    from rlpt.report.arms import plot_arms

    runs = {arm: [experiment.run_directory(arm, seed) for seed in experiment.seeds] for arm in experiment.arms}
    figures = [figure for claim in experiment.claims for figure in training_figures_of(claim)]
    plot_arms(experiment.name, runs, experiment.directory / "learning.png", list(dict.fromkeys(figures)))
    return summary


def print_claims(summary: dict[str, Any]) -> None:
    """The claims as a table on the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{summary['name']}: claims", title_justify="left")
    for heading, side in (("claim", "left"), ("value", "right"), ("95 % interval", "right"), ("bound", "right")):
        table.add_column(heading, justify="right" if side == "right" else "left")
    table.add_column("holds")
    for claim in summary["claims"]:
        interval = "" if claim["interval"] is None else "{:.3f} to {:.3f}".format(*claim["interval"])
        (side, limit), *_ = claim["bound"].items()
        verdict = Text("yes", style="green") if claim["holds"] else Text("NO", style="bold red")
        bound = f"{'<=' if side == 'at_most' else '>='} {limit:g}"
        table.add_row(Text(claim["text"]), f"{claim['value']:.3f}", interval, bound, verdict)
    Console().print(table)


def _run_arms(experiment: Experiment, ranks: dict[tuple[str, int], int], jobs: int) -> None:
    """Runs every arm at every seed that has no summary yet. Raises UserError with the first failure's exit code."""
    todo: dict[Job, str] = {}
    for (arm, seed), nproc in ranks.items():
        directory = experiment.run_directory(arm, seed)
        if _summary_path(experiment, arm, seed).exists():
            print(f"{arm}, seed {seed}: finished before, kept ({directory})", flush=True)
            continue
        arguments = (str(experiment.recipe), *experiment.overrides(arm, seed))
        job = Job("rlpt.train", arguments, nproc, directory / "log.txt" if jobs > 1 else None)
        todo[job] = f"{arm}, seed {seed}"
        print(f"{todo[job]}: {nproc} rank(s), in {directory}", flush=True)
    started = time.monotonic()
    for done, (job, code) in enumerate(launch_all(list(todo), jobs), 1):
        if code:
            said = f" (see {job.log})" if job.log else ""
            raise _failure(
                f"arm {todo[job]} ended with exit code {code}{said}; mend it and run this again to go on", code
            )
        seconds = time.monotonic() - started
        left = duration(seconds / done * (len(todo) - done))
        print(f"{todo[job]}: done, {done} of {len(todo)} in {duration(seconds)}, about {left} to go", flush=True)
    for arm, seed in ranks:
        if not _summary_path(experiment, arm, seed).exists():
            raise UserError(f"{experiment.run_directory(arm, seed)}: the run ended without a summary.json")


def _check_folder(directory: Path, config: Config) -> None:
    """A run that was made (or begun) with another configuration must not pass as this arm's."""
    path = directory / "config.yaml"
    if not path.exists():
        return
    before, now = (_flat(one.model_dump(mode="json", exclude={"tracking"})) for one in (load_config(path), config))
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if changed:
        shown = ", ".join(changed[:5]) + (", ..." if len(changed) > 5 else "")
        raise ConfigError(
            f"{directory}: belongs to another configuration (different: {shown}); "
            "delete that folder, or give the experiment another name"
        )


def _check_data(experiment: Experiment, configs: Iterable[Config]) -> None:
    """All runs of an experiment must have read the same data; what they read is noted in `data.json`."""
    path = experiment.directory / "data.json"
    now: dict[str, str] = {}
    for config in configs:
        now |= data_manifests(config)
    before = _read_json(path) if path.exists() else {}
    changed = sorted(manifest for manifest in before.keys() & now.keys() if before[manifest] != now[manifest])
    if changed:
        raise ConfigError(
            f"{experiment.directory}: its runs were begun on other data (different now: {', '.join(changed)}); "
            "delete that folder, or give the experiment another name"
        )
    experiment.directory.mkdir(parents=True, exist_ok=True)
    write_json(path, before | now)


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict) or not node:
        return {prefix.rstrip("."): node}
    return {key: value for name, inner in node.items() for key, value in _flat(inner, f"{prefix}{name}.").items()}


def _prepare_data(config: Path) -> None:
    print(f"preparing data: {config}", flush=True)
    command = [sys.executable, "-m", "data_prep", "all", str(config)]
    environment = {**default_environment()["all"], **os.environ}
    code = shell_code(subprocess.run(command, env=environment, check=False).returncode)
    if code:
        raise _failure(f"{config}: preparing the data ended with exit code {code}", code)


def _failure(message: str, code: int) -> UserError:
    error = UserError(message)
    error.exit_code = code
    return error


def _summary_path(experiment: Experiment, arm: str, seed: int) -> Path:
    return experiment.run_directory(arm, seed) / "summary.json"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: can't be read ({error}); delete that run's folder and run the experiment again"
        ) from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: must be a JSON object; delete that run's folder and run the experiment again")
    return value
