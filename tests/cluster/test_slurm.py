"""The cluster that other tests submit to: jobs, exit codes, a node that is lost, and nothing left of it."""

import pytest
from helpers.slurm import MISSING, REASON, Task, local_slurm

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(bool(MISSING), reason=REASON)]


def test_jobs_run_fail_and_are_put_back_when_their_node_is_lost():
    with local_slurm(node_timeout=5) as slurm:
        output = f"--output={slurm.folder}/slurm-%A_%a.out"
        both = slurm.sbatch("--nodes=2", output, "--wrap=srun --label hostname; srun --label printenv SLURMD_NODENAME")
        assert slurm.wait(both) == {both: Task("COMPLETED", 0, node="n[0-1]")}
        assert {"0: n0", "1: n1"} <= set(slurm.output().splitlines())
        codes = slurm.sbatch("--array=0-1", output, "--wrap=exit $SLURM_ARRAY_TASK_ID")
        assert [task.exit_code for task in slurm.wait(codes).values()] == [0, 1]
        waits = slurm.sbatch(f"--dependency=afterok:{codes}", "--kill-on-invalid-dep=yes", output, "--wrap=true")
        assert slurm.wait(waits)[waits].state == "CANCELLED"

        lost = slurm.sbatch("--requeue", "--nodelist=n1", output, "--wrap=[ $SLURM_RESTART_COUNT ] || exec sleep 1000")
        slurm.until(lambda: slurm.tasks(lost)[lost].state == "RUNNING", "the job runs")
        slurm.kill_node("n1")
        assert not slurm.processes("n1")
        slurm.until(lambda: slurm.tasks(lost)[lost].restarts == 1, "the job is put back", 120)
        slurm.start_node("n1")
        slurm.begin_now(lost)
        assert slurm.wait(lost)[lost].state == "COMPLETED"

        slurm.sbatch("--export=NONE", output, "--wrap=trap '' TERM; exec sleep 1000")
        slurm.until(lambda: any(one.name() == "sleep" for one in slurm.processes()), "the job runs")
    assert slurm.processes() == []
    assert not slurm.folder.exists()
