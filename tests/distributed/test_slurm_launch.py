"""`rlpt launch slurm` on a local Slurm: two nodes of two ranks, broken off, requeued, resumed and completed."""

import sys

import pytest
from helpers.launches import ROOT
from helpers.runs import SMALL, metric_rows, steps, write_run

from rlpt.errors import PREEMPTED_EXIT_CODE

slurm = pytest.importorskip("helpers.slurm")
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(bool(slurm.MISSING), reason=slurm.REASON)]
STEPS, INTERVAL = 240, 60
TEXT_ONLY = [
    *(override for override in SMALL if ".play." not in override and "parallel.tensor" not in override),
    *("parallel.tensor=2", "objectives.play=null", "model.adapter=null"),
    *(f"schedule.steps={STEPS}", f"checkpoint.interval={INTERVAL}"),
]


def kill_a_rank(cluster, job):
    """SIGKILL to a rank of the second node."""
    ranks = [one for one in cluster.processes("n1") if "rlpt.train" in one.cmdline() and "RANK" in one.environ()]
    ranks[0].kill()


def preempt(cluster, job):
    """What Slurm does before a time limit."""
    cluster.run("scancel", "--signal=USR1", "--batch", job)


@pytest.mark.parametrize(("event", "said"), [(kill_a_rank, "it is sent again"), (preempt, "preempted, and saved")])
def test_a_job_that_is_broken_off_comes_back_and_completes(tmp_path, event, said):
    config, run = write_run(tmp_path), tmp_path / "run"
    options = ["--nodes", "2", "-g", "2", "--grace", "60", "-o", "cpus=2"]
    with slurm.local_slurm() as cluster:
        cluster.run(sys.executable, "-m", "rlpt", "launch", "slurm", config, *TEXT_ONLY, *options, cwd=ROOT)
        (job,) = cluster.tasks()
        latest = run / "checkpoints" / "latest"
        cluster.until(lambda: latest.exists() or cluster.tasks()[job].state in slurm.ENDED, "a checkpoint", 240)
        event(cluster, job)
        ended = cluster.wait(job, timeout=420)[job]  # Slurm holds a requeued job for two minutes
        log = (run / "launch" / "slurm" / f"slurm-{job}.log").read_text()
        assert (ended.state, ended.exit_code, ended.restarts) == ("COMPLETED", 0, 1), log
    assert said in log
    assert sorted(steps(metric_rows(run))) == list(range(1, STEPS + 1))
    logs = run / "logs" / f"job-{job}"
    assert len(list(logs.glob("attempt-*"))) == 2
    assert not (run / "PREEMPTED").exists()
    if event is preempt:
        assert [path.read_text() for path in logs.glob("attempt-0/node-*.code")] == [f"{PREEMPTED_EXIT_CODE}\n"] * 2
