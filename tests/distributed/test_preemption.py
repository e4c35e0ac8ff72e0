"""Told to stop by signals of every kind, a run saves and leaves; started again each time, it is the unbroken run."""

import json
import signal
import time

import psutil
import pytest
from helpers.launches import start
from helpers.runs import STEPS, metric_rows, steps

from rlpt.errors import PREEMPTED_EXIT_CODE
from rlpt.training.checkpoint import find_latest


def part(launch, word):
    """The processes of a launch with `word` in their command line, oldest first."""
    found = [one for one in launch.alive() if word in one.cmdline()]
    return sorted(found, key=lambda one: one.create_time())


def ranks_of(launch):
    return [one for one in part(launch, "rlpt.train") if "RANK" in one.environ()]


def term_twice(launch):
    """SIGTERM to what the user started, and more of it while the ranks save."""
    launch.process.send_signal(signal.SIGTERM)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        time.sleep(0.1)
        for process in part(launch, "rlpt.launcher"):
            process.send_signal(number)


def usr1_to_one_rank(launch):
    ranks_of(launch)[1].send_signal(signal.SIGUSR1)


def kill_the_launcher(launch):
    """SIGKILL: nothing that it could hand on."""
    launch.process.kill()
    for process in part(launch, "rlpt.launcher")[:1]:
        process.kill()


EVENTS = {"SIGTERM": term_twice, "SIGUSR1": usr1_to_one_rank, "killed": kill_the_launcher}


def rows_so_far(run):
    try:
        return len(steps(metric_rows(run)))
    except ValueError:  # a line that is being written
        return 0


@pytest.fixture(scope="module")
def stopped(config, unbroken):
    """(the folder of a run that was told to stop once by each event, event -> (exit code, marker, output))"""
    run = config.parent / "stopped"
    arguments = ["-m", "rlpt", "train", config, f"run_dir={run}"]
    seen = {}
    for name, event in EVENTS.items():
        before = rows_so_far(run)
        launch = start(arguments, config.with_name(f"stopped-{name}.log"))
        while rows_so_far(run) < before + 2:
            assert launch.process.poll() is None, launch.output
            time.sleep(0.01)
        assert not (run / "PREEMPTED").exists(), "the marker of the last attempt is still there"
        event(launch)
        code = launch.finish()
        assert psutil.wait_procs(launch.alive(), timeout=60)[1] == [], launch.output
        marker = json.loads((run / "PREEMPTED").read_text())
        seen[name] = (code, marker, launch.output, find_latest(run).name)
    launch = start(arguments, config.with_name("stopped-last.log"))
    assert launch.finish() == 0, launch.output
    assert launch.left_behind() == []
    return run, seen


@pytest.mark.parametrize("event", EVENTS)
def test_a_run_that_is_told_to_stop_saves_and_leaves_a_marker(stopped, event):
    code, marker, output, latest = stopped[1][event]
    assert code == (-signal.SIGKILL if event == "killed" else PREEMPTED_EXIT_CODE), output
    assert marker.keys() == {"step", "signal", "time"}
    assert marker["signal"] == ("SIGTERM" if event == "killed" else event)
    assert latest == f"step-{marker['step']:08d}"
    assert 0 < marker["step"] < STEPS
    assert "Traceback" not in output


def test_stopped_and_resumed_it_is_the_run_without_a_break(stopped, unbroken):
    run = stopped[0]
    assert [marker["step"] for _, marker, _, _ in stopped[1].values()] == sorted(
        {marker["step"] for _, marker, _, _ in stopped[1].values()}
    )
    assert not (run / "PREEMPTED").exists()
    assert metric_rows(run) == metric_rows(unbroken)
    ours, theirs = (
        {path.name: path.read_bytes() for path in (one / "checkpoints" / f"step-{STEPS:08d}" / "weights").glob("__*")}
        for one in (run, unbroken)
    )
    assert ours == theirs
