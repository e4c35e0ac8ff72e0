"""A rank that dies or is stopped is named in time; the group goes on from the newest checkpoint, to the same end."""

import os
import re
import signal
import time

import pytest
from helpers.faults import remains, write_short_run
from helpers.launches import start
from helpers.runs import metric_rows

TIMEOUT = 8  # seconds of a collective
LAUNCHER = ["-m", "rlpt.launcher", "--standalone", "--nproc-per-node", "2", "--max-restarts", "3"]
LAUNCHER += ["--shutdown-timeout", "3", "-m", "rlpt.train"]


@pytest.fixture(scope="module")
def lost(config):
    """(folder, output, seconds from the stop to the error) of a run whose second rank is killed after its third step,
    and its successor stopped after the fifth."""
    short = write_short_run(config, "parallel.tensor=2", f"device.timeout_seconds={TIMEOUT}")
    run = config.parent / "lost"
    launch = start([*LAUNCHER, short, f"run_dir={run}"], config.with_name("lost.log"))
    signal_second_rank(launch, run, 3, signal.SIGKILL)
    before = launch.output.count("resumed from")
    wait(lambda: launch.output.count("resumed from") > before, launch)
    signal_second_rank(launch, run, 5, signal.SIGSTOP)
    began = time.monotonic()
    wait(lambda: "missing: " in launch.output, launch)
    seconds = time.monotonic() - began
    assert launch.finish() == 0, launch.output
    assert launch.left_behind() == []
    return run, launch.output, seconds


def signal_second_rank(launch, run, step, number):
    wait(lambda: any(row["step"] >= step for row in whole_rows(run)), launch)
    ranks = [one for one in launch.alive() if one.parent() is not None and one.parent().pid == launch.process.pid]
    (second,) = [one for one in ranks if one.environ().get("RANK") == "1"]
    second.send_signal(number)


def wait(is_done, launch):
    while not is_done():
        assert launch.process.poll() is None, launch.output
        time.sleep(0.005)


def whole_rows(run):
    try:
        return metric_rows(run)
    except ValueError:  # a line that is being written
        return []


def test_a_stopped_rank_is_named_within_the_time_of_a_collective(lost):
    run, output, seconds = lost
    assert seconds < TIMEOUT + 4
    host = re.escape(os.uname().nodename)
    found = re.search(rf"error: step (\d), (\w+) for \d+ s: .*missing: rank 1 on {host}: step (\d), (\w+) for", output)
    assert found, output
    assert abs(int(found[1]) - int(found[3])) <= 1
    assert "its process is stopped" in output
    assert "in fit" in (run / "stacks-rank-0.txt").read_text()


def test_the_group_goes_on_twice_and_ends_as_if_nothing_had_been(lost, killed):
    run, output, _ = lost
    assert "at step 2" in output
    assert "at step 4" in output
    assert remains(run) == remains(killed[2] / "none")
