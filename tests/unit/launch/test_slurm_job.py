"""What becomes of a Slurm job after an attempt: the batch script itself, with Slurm's commands played by scripts."""

import os
import signal
import subprocess
import time

import pytest
from helpers.launch_specs import FOLDER, job

from rlpt.launch.slurm import Slurm

JOB = "4711"
SCONTROL = """#!/usr/bin/env bash
case "$1" in
  show) case "$2" in
    hostnames) printf 'node-a\\nnode-b\\n' ;;
    node) printf 'NodeName=%s Arch=x86_64\\n   NodeAddr=10.0.0.7 NodeHostName=%s Version=22\\n' "$3" "$3" ;;
  esac ;;
  requeue) [ ! -e "$HERE/no-requeue" ] && echo "$2" >> "$HERE/requeued" ;;
esac
"""
SRUN = """#!/usr/bin/env bash
printf '%s\\n' "$@" > "$HERE/arguments"
echo "$MASTER_ADDR:$MASTER_PORT" > "$HERE/master"
exec bash "$HERE/step"
"""


@pytest.fixture
def attempt(tmp_path):
    """Runs one attempt: `step` is what srun does. Returns (exit code, whether it was requeued, output)."""
    for name, text in {"scontrol": SCONTROL, "srun": SRUN}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    target = Slurm(python="python", workdir=str(tmp_path))
    text = target.render(job("slurm", 2), FOLDER)["job.sbatch"]
    (tmp_path / "job.sbatch").write_text(text)
    run_dir = tmp_path / "runs" / "big"

    def start(step, number=0):
        (tmp_path / "step").write_text(f"run={run_dir}; logs=$RLPT_LOGS\n{step}\n")
        (tmp_path / "requeued").unlink(missing_ok=True)
        environment = {
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "HERE": str(tmp_path),
            "SLURM_JOB_ID": JOB,
            "SLURM_JOB_NODELIST": "node-[a-b]",
            "SLURM_RESTART_COUNT": str(number),
        }
        return subprocess.Popen(
            ["bash", tmp_path / "job.sbatch"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def finish(process):
        output, _ = process.communicate(timeout=30)
        requeued = tmp_path / "requeued"
        return process.returncode, requeued.exists() and requeued.read_text() == f"{JOB}\n", output

    def run(step, number=0):
        return finish(start(step, number))

    run.start, run.finish, run.folder = start, finish, tmp_path
    return run


def test_a_finished_run_is_done(attempt):
    code, requeued, output = attempt("exit 0")
    assert (code, requeued) == (0, False)
    assert "done" in output
    assert (attempt.folder / "master").read_text() == f"10.0.0.7:{20000 + int(JOB)}\n"
    assert "--kill-on-bad-exit=1" in (attempt.folder / "arguments").read_text().split()


@pytest.mark.parametrize("code", [1, 75, 16, 137, 143])
def test_a_failure_is_sent_again(attempt, code):
    assert attempt(f"exit {code}")[:2] == (0, True)


@pytest.mark.parametrize("code", [2, 3, 4, 78])
def test_an_error_that_would_come_back_is_not_sent_again(attempt, code):
    ended, requeued, output = attempt(f"exit {code}")
    assert (ended, requeued) == (code, False)
    assert f"exit code {code}" in output


def test_the_fatal_code_of_one_node_counts_where_sruns_is_that_of_a_killed_neighbour(attempt):
    step = "echo 137 > $logs/node-0.code; echo 78 > $logs/node-1.code; exit 137"
    assert attempt(step)[:2] == (78, False)


def test_a_preempted_run_comes_back_whatever_its_exit_code(attempt):
    for code in (0, 1, 78, 143):
        assert attempt(f"touch $run/PREEMPTED; exit {code}")[:2] == (0, True)


def test_an_old_marker_is_no_preemption(attempt):
    attempt("touch $run/PREEMPTED; exit 1")
    assert attempt("exit 78", 1)[:2] == (78, False)


def test_failures_are_capped_and_preemptions_are_not_counted(attempt):
    assert attempt("exit 1", 19)[:2] == (0, True)
    code, requeued, output = attempt("exit 1", 20)
    assert (code, requeued) == (1, False)
    assert "20 attempts had failed" in output
    assert attempt("touch $run/PREEMPTED; exit 1", 20)[:2] == (0, True)  # now one of the 20 was none
    assert attempt("exit 1", 20)[:2] == (0, True)
    assert attempt("exit 1", 21)[:2] == (1, False)


def test_each_attempt_has_its_own_logs(attempt):
    attempt("exit 1")
    attempt("exit 0", 1)
    assert {path.name for path in (attempt.folder / "runs" / "big" / "logs" / f"job-{JOB}").iterdir()} == {
        "attempt-0",
        "attempt-1",
    }


def test_a_refused_requeue_is_a_failure_that_says_what_to_do(attempt):
    (attempt.folder / "no-requeue").touch()
    code, requeued, output = attempt("exit 1")
    assert (code, requeued) == (1, False)
    assert f"sbatch {FOLDER}/job.sbatch" in output


STEP = "trap 'touch $run/PREEMPTED; sleep 0.3; exit 85' USR1; touch $HERE/up; while :; do sleep 0.05; done"


def until_up(attempt):
    end = time.monotonic() + 20
    while not (attempt.folder / "up").exists():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_usr1_reaches_the_step_and_the_script_waits_until_it_has_saved(attempt):
    process = attempt.start(STEP)
    until_up(attempt)
    process.send_signal(signal.SIGUSR1)
    code, requeued, output = attempt.finish(process)
    assert (code, requeued) == (0, True), output
    assert "told to save" in output


def test_a_cancelled_job_stays_cancelled_though_it_has_saved(attempt):
    process = attempt.start(STEP.replace("USR1", "TERM"))
    until_up(attempt)
    os.killpg(process.pid, signal.SIGTERM)  # as Slurm does: to all processes of the job
    code, requeued, output = attempt.finish(process)
    assert requeued is False, output
    assert code != 0
