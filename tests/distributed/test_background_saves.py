"""Checkpoints written while training goes on: killed in the middle of one, and run on, it is the unbroken run."""

import json
import logging
import time

import psutil
import pytest
from helpers.launches import start
from helpers.runs import INTERVAL, STEPS, metric_rows

from rlpt.training.checkpoint import find_latest
from rlpt.training.checkpoint_files import fault


def ours(launch):
    """The ranks and what started them: all that a lost machine's user has ordered."""
    return [one for one in launch.alive() if {"rlpt", "rlpt.launcher", "rlpt.train"} & set(one.cmdline())]


@pytest.fixture(scope="module")
def killed(config, unbroken):
    """(the run's folder, what was there after the kill). Killed as soon as tensors of the second save are written."""
    run = config.parent / "background"
    arguments = ["-m", "rlpt", "train", config, f"run_dir={run}", "checkpoint.asynchronous=true"]
    launch = start(arguments, config.with_name("background.log"))
    partial = run / "checkpoints" / f"step-{2 * INTERVAL:08d}.tmp"
    while not any(path.stat().st_size for path in partial.glob("weights/__*")):
        assert launch.process.poll() is None, launch.output
        time.sleep(0.001)
    for process in ours(launch):
        process.kill()
    launch.finish()
    left = launch.left_behind()
    seen = sorted(path.name for path in (run / "checkpoints").iterdir())
    launch = start(arguments, config.with_name("background-resumed.log"))
    assert launch.finish() == 0, launch.output
    assert launch.left_behind() == []
    return run, seen, left, launch.output


def test_a_kill_in_the_middle_leaves_the_older_checkpoint_and_no_process(killed):
    run, seen, left, output = killed
    assert f"step-{INTERVAL:08d}" in seen
    assert f"step-{2 * INTERVAL:08d}.tmp" in seen
    assert [psutil.Process(one.pid).cmdline() for one in left] == []
    assert f"resumed from {run / 'checkpoints' / f'step-{INTERVAL:08d}'}" in output


def test_resumed_it_is_the_run_without_a_break(killed, unbroken, caplog):
    run = killed[0]
    assert metric_rows(run) == metric_rows(unbroken)
    with caplog.at_level(logging.WARNING):
        assert find_latest(run).name == f"step-{STEPS:08d}"
    assert caplog.text == ""
    for step in (2 * INTERVAL, STEPS):  # the first was written in the background, the last was not
        folders = [one / "checkpoints" / f"step-{step:08d}" for one in (run, unbroken)]
        assert fault(folders[0]) is None
        names = {path.name for path in (folders[0] / "weights").glob("__*")}
        assert len(names) == 4
        states = [json.loads((folder / "state.json").read_text()) for folder in folders]
        assert [state.pop("seconds") > 0 and state.pop("wandb_id") for state in states]
        assert states[0] == states[1]
        for name in names:
            assert (folders[0] / "weights" / name).read_bytes() == (folders[1] / "weights" / name).read_bytes()
