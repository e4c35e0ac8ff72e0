"""Signs of life, what is made of them, and the thread that writes them."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch.distributed as dist

from rlpt.distributed.device import peers_lost
from rlpt.errors import TryAgainError
from rlpt.training.heartbeats import Heartbeat, describe, read_heartbeats, suspects, write_heartbeat
from rlpt.training.watchdog import Watchdog

BEAT = Heartbeat(0, "here", "", os.getpid(), 12, "step", 40, 3.0, "rlpt/training/step.py:9 f", True)


@pytest.fixture
def ended():
    """A process that is no more, and no zombie either."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_signs_are_read_with_their_age(tmp_path):
    for rank in range(3):
        write_heartbeat(tmp_path, replace(BEAT, rank=rank))
    old = (tmp_path / "rank-0.json").stat().st_mtime - 40
    os.utime(tmp_path / "rank-1.json", (old, old))
    (tmp_path / "rank-2.json").write_text("{torn")
    beats = read_heartbeats(tmp_path, range(4), own=0)
    assert sorted(beats) == [0, 1]
    assert beats[0].silent == 0
    assert beats[1].silent == pytest.approx(40, abs=1)


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    write_heartbeat(tmp_path / "file" / "below", BEAT)


def test_a_stopped_process_is_named():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        os.kill(process.pid, signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        beats = {0: BEAT, 1: replace(BEAT, rank=1, pid=process.pid, phase="rollout", silent=7.0)}
        assert suspects(beats, 2, 0, interval=1.0) == [
            "rank 1 on here: step 12, rollout for 10 s at rlpt/training/step.py:9 f, no sign for 7 s, "
            "its process is stopped"
        ]
    finally:
        process.kill()
        process.wait()


def test_a_process_that_is_gone_is_named_at_once(ended):
    beats = {0: BEAT, 1: replace(BEAT, rank=1, pid=ended)}
    (line,) = suspects(beats, 2, 0, interval=30.0)
    assert line.startswith("rank 1 on here: ")
    assert line.endswith("its process is gone")


def test_a_rank_of_another_host_is_named_by_its_silence():
    beats = {0: BEAT, 1: replace(BEAT, rank=1, host="there", pid=1, silent=100.0), 2: replace(BEAT, rank=2, silent=20)}
    (line,) = suspects(beats, 3, 0, interval=30.0)
    assert line.startswith("rank 1 on there: ")
    assert "no sign for 100 s" in line


def test_a_rank_that_does_not_wait_while_others_do_is_behind():
    beats = {0: BEAT, 1: replace(BEAT, rank=1, waiting=False, phase="rollout"), 2: replace(BEAT, rank=2)}
    assert suspects(beats, 3, 0, 30.0) == [describe(beats[1])]
    assert suspects({rank: replace(beat, waiting=True) for rank, beat in beats.items()}, 3, 0, 30.0) == []


def test_where_waiting_does_not_show_the_fewest_phases_do():
    beats = {rank: replace(BEAT, rank=rank, waiting=False, marks=40 + rank) for rank in range(3)}
    assert [line.partition(" on ")[0] for line in suspects(beats, 3, 2, 30.0)] == ["rank 0", "rank 1"]


def test_a_rank_without_a_sign_is_named_and_long_lists_are_cut():
    lines = suspects({0: BEAT}, 12, 0, 30.0)
    assert lines[0] == "rank 1: has left no sign in this run's folder"
    assert lines[-1] == "and 3 more ranks"


def test_a_host_that_does_not_answer_comes_before_its_ranks():
    """No connection can be made to that address. Our own one answers, by refusing."""
    mine = replace(BEAT, address="127.0.0.1")
    beats = {0: mine, 1: replace(mine, rank=1, host="there", address="255.255.255.255", silent=99.0)}
    assert suspects(beats, 2, 0, 1.0) == ["host there (255.255.255.255) does not answer: ranks 1"]
    beats[1] = replace(mine, rank=1, host="there", address="127.0.0.2", silent=99.0)
    (line,) = suspects(beats, 2, 0, 1.0)
    assert line.startswith("rank 1 on there")


def test_errors_of_lost_peers_are_told_from_others():
    timed_out = "[.../gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 10000ms for recv operation to complete"
    assert peers_lost(RuntimeError(timed_out))
    assert peers_lost(RuntimeError("Application timeout caused pair closure"))
    assert peers_lost(RuntimeError("Gloo connectFullMesh failed with ..."))
    assert peers_lost(dist.DistBackendError("anything"))
    assert not peers_lost(RuntimeError("shape mismatch"))
    assert not peers_lost(ValueError("Connection closed by peer"))


def test_a_phase_that_takes_too_long_is_warned_of_and_then_ends_the_process(tmp_path, capfd):
    codes = []
    dog = Watchdog(tmp_path, 0, 1, timeout=0.4, limit=1.0, end=codes.append)
    with dog.guard():
        dog.enter("rollout", 7)
        began = time.monotonic()
        while not codes and time.monotonic() - began < 20:
            time.sleep(0.05)
        time.sleep(0.2)
        stacks = (tmp_path / "stacks-rank-0.txt").read_text()
        beat = json.loads((tmp_path / "heartbeats" / "rank-0.json").read_text())
    assert codes == [75]
    assert "test_a_phase_that_takes_too_long" in stacks
    assert (beat["step"], beat["phase"], beat["rank"]) == (7, "rollout", 0)
    printed = capfd.readouterr().err
    assert printed.count("warning of rank 0: step 7, rollout") == 1
    assert printed.count("error on rank 0: step 7, rollout") == 1
    assert "device.phase_seconds=1 is over" in printed


def test_phases_that_go_on_are_left_alone(tmp_path, capfd):
    codes = []
    dog = Watchdog(tmp_path, 0, 1, timeout=1.0, limit=1.0, end=codes.append)
    with dog.guard():
        for step in range(15):
            dog.enter("step", step)
            time.sleep(0.1)
    assert codes == []
    assert capfd.readouterr().err == ""
    assert not (tmp_path / "stacks-rank-0.txt").exists()


def test_a_failed_collective_is_an_error_that_names_who_is_missing(tmp_path, ended):
    dog = Watchdog(tmp_path, 0, 2, timeout=60)
    write_heartbeat(tmp_path / "heartbeats", replace(BEAT, rank=1, host=dog._host, pid=ended))

    def lose():
        with dog.guard():
            dog.enter("step", 3)
            raise dist.DistBackendError("Connection closed by peer [10.0.0.7]:4000")

    with pytest.raises(TryAgainError, match=r"step 3, step .*closed by peer.* missing: rank 1 on .*process is gone"):
        lose()


def test_other_errors_pass(tmp_path):
    dog = Watchdog(tmp_path, 0, 1, timeout=60)
    with pytest.raises(ZeroDivisionError), dog.guard():
        raise ZeroDivisionError
    assert not (tmp_path / "stacks-rank-0.txt").exists()
