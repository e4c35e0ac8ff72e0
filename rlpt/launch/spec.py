"""What is to be started: the one description of a job that every target's files are written from."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Protocol

import yaml

from rlpt.config import Config, check_world, dump_config
from rlpt.errors import FATAL_EXIT_CODES, ConfigError

RENDEZVOUS_SECONDS = 900  # nodes of a job start minutes apart: images are pulled, caches are cold
SECRETS = ("WANDB_API_KEY", "HF_TOKEN")  # handed on by name, where the cluster has them; their values are never written
PASSED_ON = ("WANDB_MODE",)  # handed on with the value that they have where the files are written
_SECRET = re.compile(r"(^|_)(API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_|$)", re.IGNORECASE)
_DURATION = re.compile(r"(?:(?P<d>\d+)-)?(?P<h>\d+):(?P<m>\d\d):(?P<s>\d\d)")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class LaunchSpec:
    """A job: the same ranks on each of some nodes, all training one recipe. Times are in seconds."""

    name: str  # a DNS label
    nodes: int
    processes: int  # ranks a node
    gpus: int  # GPUs a node; 0: the ranks compute on CPUs
    recipe: str  # the whole configuration, as YAML
    run_dir: str  # as the recipe has it; relative: to the working directory
    environment: tuple[tuple[str, str], ...]
    image: str = ""  # container image; "": the node's own installation
    time_limit: int = 0  # 0: none
    grace: int = 120  # from the signal to the end: what saving a checkpoint may take
    restarts: int = 20  # after failures; the next failure is the last
    fatal_codes: tuple[int, ...] = FATAL_EXIT_CODES  # exit codes after which starting again would fail again
    port: int = 29500  # on node 0, for the rendezvous

    @property
    def world_size(self) -> int:
        return self.nodes * self.processes

    def ranks(self, rendezvous: Iterable[str], recipe: str, restarts: int = 0) -> list[str]:
        """Arguments of python that start one node's ranks. `rendezvous`: how they find the other nodes'; `recipe`: the
        configuration's path; `restarts`: of the whole group by the launcher itself.

        USR1 is among the signals that are handed on: unhandled it kills the launcher and orphans its ranks.
        """
        return [
            *("-m", "rlpt.launcher"),
            *rendezvous,
            f"--nproc-per-node={self.processes}",
            f"--max-restarts={restarts}",
            "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
            f"--shutdown-timeout={self.grace}",
            *("-m", "rlpt.train", recipe),
        ]

    def static_rendezvous(self, rank: str, address: str, port: str) -> list[str]:
        """All nodes start together and none is replaced while the others run."""
        where = [f"--node-rank={rank}", f"--master-addr={address}", f"--master-port={port}"]
        return [f"--nnodes={self.nodes}", *where, f"--rdzv-conf=timeout={RENDEZVOUS_SECONDS}"]

    def elastic_rendezvous(self, address: str, port: str) -> list[str]:
        """A node that was replaced joins those that are still there, which start their ranks anew at once; statically
        they would go on until a collective does not finish in time. `hosting` must be in the environment as well."""
        where = ["--rdzv-backend=c10d", f"--rdzv-id={self.name}", f"--rdzv-endpoint={address}:{port}"]
        return [f"--nnodes={self.nodes}", *where]

    def hosting(self, is_host: str) -> str:
        """An assignment for the environment of an elastic rendezvous. `is_host`: 1 on node 0, which keeps the store,
        else 0; left to itself, a node whose name resolves to 127.0.0.1 does not know."""
        return f'PET_RDZV_CONF="timeout={RENDEZVOUS_SECONDS},is_host={is_host}"'


class Target(Protocol):
    """A kind of cluster. Its fields are the options that only it has."""

    def render(self, spec: LaunchSpec, folder: str) -> dict[str, str]:
        """File name -> text, of files that will stand in `folder`."""

    def next_steps(self, spec: LaunchSpec, folder: str) -> list[str]:
        """Command lines for a person, comments after #."""

    def start(self, spec: LaunchSpec, folder: str) -> int | None:
        """Starts the job from its files; an exit code, or None where that is a person's business."""


def make_spec(
    config: Config,
    nodes: int,
    processes: int | None = None,
    *,
    image: str = "",
    time_limit: int = 0,
    grace: int = 120,
    restarts: int = 20,
    port: int = 29500,
    extra: Iterable[str] = (),
    environ: Mapping[str, str] | None = None,
) -> LaunchSpec:
    """The job that trains `config` on `nodes` nodes of `processes` ranks (default: what parallel.* leaves for each).

    `extra`: NAME=VALUE of the ranks' environment; `environ`: where PASSED_ON is looked up. Raises ConfigError where the
    ranks do not fit the mesh, or a value would be a secret.
    """
    processes = _processes(config, nodes, processes)
    gpus = 0 if config.device.kind == "cpu" else processes
    environment = _environment(config, gpus)
    environment |= {name: (environ or {})[name] for name in PASSED_ON if name in (environ or {})}
    for assignment in extra:
        name, equals, value = assignment.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ConfigError(f"--env '{assignment}': write NAME=VALUE, e.g. --env OMP_NUM_THREADS=8")
        if _SECRET.search(name):
            raise ConfigError(
                f"--env {name}: a secret's value is not written into files; {' and '.join(SECRETS)} are handed on by "
                "name, from your environment (torchrun, slurm), a Secret (Kubernetes) or --secret (SkyPilot)"
            )
        environment[name] = value
    return LaunchSpec(
        name=job_name(config.name),
        nodes=nodes,
        processes=processes,
        gpus=gpus,
        recipe=dump_config(config),
        run_dir=config.directory.as_posix(),
        environment=tuple(environment.items()),
        image=image,
        time_limit=time_limit,
        grace=grace,
        restarts=restarts,
        port=port,
    )


def job_name(name: str) -> str:
    """A run's name as a DNS label with room for what clusters add to it; names starting with a digit get a letter."""
    label = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")
    return label if label[:1].isalpha() else f"run-{label}".strip("-")


def seconds(text: str) -> int:
    """`90s`, `30m`, `12h`, `7d`, `HH:MM:SS` or `D-HH:MM:SS` -> seconds. Raises ConfigError."""
    if found := _DURATION.fullmatch(text):
        days, hours, minutes, rest = (int(found[unit] or 0) for unit in "dhms")
        return days * 86400 + hours * 3600 + minutes * 60 + rest
    if re.fullmatch(r"\d+[smhd]", text):
        return int(text[:-1]) * _UNITS[text[-1]]
    raise ConfigError(f"--time '{text}': write e.g. 90m, 12h, 7d, 23:30:00 or 1-12:00:00")


def _processes(config: Config, nodes: int, processes: int | None) -> int:
    """Ranks a node. Raises ConfigError, naming key and remedy, where nodes x ranks is not what the mesh asks for."""
    parallel = config.parallel
    axes = [name for name in ("tensor", "pipeline", "context") if name in type(parallel).model_fields]
    replica = math.prod(getattr(parallel, name) for name in axes)
    wanted = replica * (parallel.data or 1)
    if processes is None:
        if parallel.data is None:
            raise ConfigError("--gpus-per-node is missing: parallel.data is not set, so the recipe does not say it")
        if wanted % nodes:
            raise ConfigError(f"--nodes {nodes} does not divide the {wanted} ranks of parallel.*; give --gpus-per-node")
        processes = wanted // nodes
    world = nodes * processes
    if world % replica or parallel.data not in (None, world // replica):
        sizes = " x ".join(f"{name} {getattr(parallel, name)}" for name in [*axes, "data"] if getattr(parallel, name))
        remedies = []
        if parallel.data and world % replica == 0:
            remedies.append(f"set parallel.data={world // replica}")
        if wanted % processes == 0:
            remedies.append(f"--nodes {wanted // processes}")
        elif wanted % nodes == 0:
            remedies.append(f"--gpus-per-node {wanted // nodes}")
        remedies.append("change parallel.*")
        kind = "" if parallel.data else "a multiple of "
        raise ConfigError(
            f"{nodes} nodes x {processes} ranks = {world}, but parallel.* ({sizes}) asks for {kind}{wanted}: "
            f"{', or '.join(remedies)}"
        )
    check_world(config, world)
    return processes


def _environment(config: Config, gpus: int) -> dict[str, str]:
    groups = default_environment()
    chosen = dict(groups["all"])
    if gpus:
        chosen |= groups["gpu"]
        if max(config.parallel.tensor, getattr(config.parallel, "context", 1)) > 1:
            chosen |= groups["gpu_and_split_layers"]
    values = {"run_dir": config.directory.as_posix(), "timeout": config.device.timeout_seconds}
    return {name: value.format(**values) for name, value in chosen.items()}


def default_environment() -> dict[str, dict[str, str]]:
    """Group -> the variables of environment.yaml."""
    text = resources.files("rlpt.launch").joinpath("environment.yaml").read_text(encoding="utf-8")
    groups: dict[str, Any] = yaml.safe_load(text)
    return groups
