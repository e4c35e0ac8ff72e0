"""A Slurm cluster on this host for tests that submit jobs: munged, slurmctld and some slurmd, all below one folder.

    with local_slurm() as slurm:
        job = slurm.sbatch("--nodes=2", "--wrap=srun hostname")
        assert slurm.wait(job) == {job: Task("COMPLETED", 0)}

Needs the Debian packages slurm-wlm and munge, and no rights but the user's own. Ports are free ones, so that several
clusters may run at once; nothing outlives the `with`.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil
from helpers.launches import ROOT

Value = TypeVar("Value")

TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
SYSTEM = "/usr/sbin:/sbin"  # the daemons' place, which is not on every user's path
MISSING = [tool for tool in TOOLS if shutil.which(tool, path=os.environ["PATH"] + ":" + SYSTEM) is None]
REASON = f"no {', '.join(MISSING)} here: apt-get install slurm-wlm munge"  # for pytest.mark.skipif(bool(MISSING))
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"}

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
SlurmdParameters=config_overrides
SlurmdTimeout={node_timeout}
KillWait=5
CompleteWait=0
ReturnToService=2
MinJobAge=86400
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory={memory} State=UNKNOWN\n"
)


@dataclass(frozen=True)
class Task:
    """How a job, or one task of an array, stands."""

    state: str  # Slurm's word, e.g. RUNNING
    exit_code: int  # of the batch script, 0 until it ends
    signal: int = 0  # that ended it
    node: str = ""
    restarts: int = field(default=0, compare=False)
    reason: str = field(default="", compare=False)  # why it does not run


@dataclass
class Slurm:
    """A running cluster. `environment` is what a command needs to speak to it: pass it on to any subprocess."""

    folder: Path
    environment: Mapping[str, str]
    nodes: Sequence[str]
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def run(
        self,
        *command: str | Path,
        cwd: Path = ROOT,
        environment: Mapping[str, str] | None = None,
        timeout: float = 120,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Any command, with the cluster's environment. `check`: AssertionError with its output when it fails."""
        done = subprocess.run(
            [str(word) for word in command],
            cwd=cwd,
            env={**self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode:
            raise AssertionError(f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}\n{self.logs()}")
        return done

    def sbatch(self, *arguments: str | Path, cwd: Path = ROOT, environment: Mapping[str, str] | None = None) -> str:
        """Submits a job and returns its id."""
        return self.run("sbatch", "--parsable", *arguments, cwd=cwd, environment=environment).stdout.strip()

    def tasks(self, job: str = "") -> dict[str, Task]:
        """What has ended, runs or waits: job id, or `id_index` for a task of an array. `job`: of this one alone."""
        shown = self.run("scontrol", "--oneliner", "show", "job", *([job] if job else [])).stdout
        found = {}
        for line in shown.splitlines():
            values = dict(word.split("=", 1) for word in line.split() if "=" in word)
            if "JobId" not in values:
                continue
            name = values["JobId"]
            if "ArrayJobId" in values:
                name = f"{values['ArrayJobId']}_{values['ArrayTaskId']}"
            code, _, number = values["ExitCode"].partition(":")
            node, restarts = values.get("NodeList", ""), int(values["Restarts"])
            node = "" if node == "(null)" else node
            found[name] = Task(values["JobState"], int(code), int(number), node, restarts, values["Reason"])
        return dict(sorted(found.items()))

    def wait(self, *jobs: str, timeout: float = 300) -> dict[str, Task]:
        """Until these jobs have ended (none named: all of them); how each of their tasks did."""

        def ended() -> dict[str, Task]:
            found = {name: task for job in jobs or [""] for name, task in self.tasks(job).items()}
            return found if all(task.state in ENDED for task in found.values()) else {}

        return self.until(ended, f"jobs {jobs or 'all'} have ended", timeout)

    def until(self, condition: Callable[[], Value], what: str, timeout: float = 60) -> Value:
        """Waits until `condition` holds and returns its value; AssertionError with the queue and the logs otherwise."""
        end = time.monotonic() + timeout
        while not (value := condition()):
            if time.monotonic() > end:
                raise AssertionError(f"not within {timeout} s: {what}\n{self.logs()}")
            time.sleep(0.1)
        return value

    def output(self, pattern: str = "slurm-*.out") -> str:
        """The text of all files of the folder that match, with their names."""
        found = sorted(self.folder.rglob(pattern))
        return "\n".join(f"== {path}\n{path.read_text(errors='replace')}" for path in found)

    def logs(self, lines: int = 30) -> str:
        """The queue, the nodes and the ends of the daemons' logs: what to read when a test fails."""
        shown = []
        for command in (["squeue", "--states=all", "--format=%i %j %T %r %N %S %e"], ["sinfo", "--long", "--Node"]):
            done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
            shown.append(f"== {' '.join(command)}\n{done.stdout}{done.stderr}")
        for path in sorted(self.folder.glob("*.log")):
            tail = path.read_text(errors="replace").splitlines()[-lines:]
            shown.append("\n".join([f"== {path.name}", *tail]))
        return "\n".join(shown)

    def start_node(self, name: str) -> None:
        """Starts a node that is not up, and waits until jobs may run on it."""
        (self.folder / name).mkdir(exist_ok=True)
        self.start_daemon(name, self.folder / name, "slurmd", "-D", "-N", name)
        self.until(lambda: self._node(name) in ("idle", "mixed", "allocated"), f"node {name} is up")

    def begin_now(self, job: str) -> None:
        """A job that was requeued is held for two minutes by Slurm; this one is not."""
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now")

    def kill_node(self, name: str) -> None:
        """What a lost machine looks like: SIGKILL to its slurmd and to everything that runs there. Slurm notices some
        20 seconds after `node_timeout`, and requeues the jobs that want it."""
        _kill(lambda: self.processes(name))
        self.daemons.pop(name).wait()

    def processes(self, node: str = "") -> list[psutil.Process]:
        """Those of the cluster, its jobs' included, or those on one node; zombies left out.

        All but Slurm's step daemons carry the cluster's configuration in their environment; these have no environment
        that can be read, and are where their slurmd is."""
        found, folder = [], self.folder / node
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                environment = process.environ()
                ours = environment.get("SLURM_CONF") == self.environment["SLURM_CONF"]
                there = ours and node in ("", environment.get("SLURMD_NODENAME"))
                if there or Path(process.cwd()).is_relative_to(folder):
                    found.append(process)
        return found

    def _node(self, name: str) -> str:
        return self.run("sinfo", "--noheader", "--Node", "--nodes", name, "--format=%T").stdout.strip()

    def start_daemon(self, name: str, cwd: Path, *command: str | Path) -> None:
        """A process of the cluster, whose output goes to NAME.log."""
        with open(self.folder / f"{name}.log", "ab") as log:
            self.daemons[name] = subprocess.Popen(
                [str(word) for word in command],
                cwd=cwd,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


@contextlib.contextmanager
def local_slurm(nodes: int = 2, cpus: int = 2, memory: int = 8192, node_timeout: int = 10) -> Iterator[Slurm]:
    """A cluster of `nodes` nodes n0, n1, ... of `cpus` processors and `memory` MiB each, whatever this host has.

    It sees a lost node after `node_timeout` seconds. On the way out all jobs are cancelled and every process is ended:
    one that outlives that is an AssertionError. The folder, with all logs, stays when the body fails."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # a short path: a socket's may have 107 characters
    names = [f"n{index}" for index in range(nodes)]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH", "SRUN"))}
    own = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{clean['PATH']}:{SYSTEM}"}
    slurm = Slurm(folder, clean | own, names)
    try:
        _configure(slurm, cpus, memory, node_timeout)
        paths = {name: folder / f"munge.{name}" for name in ("socket", "key", "pid", "seed")}
        files = [f"--{name}{'' if name == 'socket' else '-file'}={path}" for name, path in paths.items()]
        slurm.start_daemon(
            "munged", folder, "munged", "--foreground", "--force", f"--log-file={folder}/munge.log", *files
        )
        slurm.until(paths["socket"].exists, "munged is up")
        slurm.start_daemon("slurmctld", folder, "slurmctld", "-D")
        slurm.until(lambda: not slurm.run("scontrol", "ping", check=False).returncode, "slurmctld is up")
        for name in names:
            slurm.start_node(name)
        yield slurm
    finally:
        _stop(slurm)
    shutil.rmtree(folder)


def _configure(slurm: Slurm, cpus: int, memory: int, node_timeout: int) -> None:
    host, user = socket.gethostname(), getpass.getuser()
    controller, *ports = _free_ports(1 + len(slurm.nodes))
    lines = CONFIGURATION.format(host=host, user=user, port=controller, folder=slurm.folder, node_timeout=node_timeout)
    for name, port in zip(slurm.nodes, ports, strict=True):
        lines += NODE.format(name=name, host=host, port=port, cpus=cpus, memory=memory)
    (slurm.folder / "slurm.conf").write_text(lines)
    (slurm.folder / "state").mkdir()
    key = slurm.folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _stop(slurm: Slurm) -> None:
    """Jobs first, while there is someone to end them."""
    if "slurmctld" in slurm.daemons:
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):  # what is left is killed below
            slurm.run("scancel", "--user", getpass.getuser())
            slurm.run("scancel", "--user", getpass.getuser(), "--signal=KILL", "--full")
            slurm.until(lambda: not slurm.run("squeue", "--noheader").stdout, "the queue is empty", 10)
    for process in reversed(slurm.daemons.values()):
        process.send_signal(signal.SIGTERM)
    for process in slurm.daemons.values():
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
    _kill(slurm.processes)
    for process in slurm.daemons.values():
        process.wait(10)
    left = slurm.processes()
    assert not left, f"processes of the cluster are left: {left}"


def _kill(processes: Callable[[], list[psutil.Process]]) -> None:
    """SIGKILL to all of them, until there is none: one may have been starting another."""
    while alive := processes():
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=30)
