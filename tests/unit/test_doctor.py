"""Each check of a host fails by its real cause, names the remedy, and leaves nothing behind."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.tiny_model import tiny_config

from rlpt.config import Config
from rlpt.doctor import host
from rlpt.doctor.__main__ import cards_finding
from rlpt.doctor.findings import Finding, Status, merged, worst
from rlpt.doctor.group import judge_clocks

ROOT = Path(__file__).parents[2]
GB = 10**9


def with_tracking(mode: str) -> Config:
    config = tiny_config()
    return config.model_copy(update={"tracking": config.tracking.model_copy(update={"wandb": mode})})


def test_a_run_folder_below_a_file_fails(tmp_path):
    (tmp_path / "file").write_text("")
    (found,) = host.run_folder(tmp_path / "file" / "run", 0)
    assert found.status is Status.FAIL
    assert "run_dir" in found.remedy


def test_a_folder_that_takes_no_files_fails():
    """Whoever asks, root included: the kernel's own files take none."""
    (found,) = host.run_folder(Path("/proc/self/run"), 0)
    assert found.status is Status.FAIL
    assert "can't be written" in found.said


def test_checkpoints_that_do_not_fit_fail_and_nothing_is_left_behind(tmp_path):
    speed, disk = host.run_folder(tmp_path / "run" / "deep", 10.0**18)
    assert speed.status is not Status.FAIL
    assert disk.status is Status.FAIL
    assert "checkpoint.keep_last" in disk.remedy
    assert host.run_folder(tmp_path, 1)[1].status is Status.OK
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_something_listens_at_fails():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert host.port({"MASTER_PORT": port}).status is Status.FAIL
        assert host.port({"MASTER_PORT": port, "RANK": "0"}).status is Status.OK  # the launcher's own
    assert host.port({"MASTER_PORT": "eleven"}).status is Status.FAIL


@pytest.mark.parametrize(
    ("mode", "environment", "status"),
    [
        ("online", {}, Status.FAIL),
        ("online", {"WANDB_API_KEY": "k"}, Status.OK),
        ("auto", {}, Status.OK),
        ("auto", {"WANDB_MODE": "sometimes"}, Status.FAIL),
        ("offline", {"WANDB_MODE": "online"}, Status.WARN),
    ],
)
def test_tracking_that_can_not_be_is_found(mode, environment, status, tmp_path):
    nobody = {"NETRC": str(tmp_path / "none")}
    assert host.tracking(with_tracking(mode), nobody | environment).status is status


def test_a_login_in_the_netrc_file_counts(tmp_path):
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    found = host.tracking(with_tracking("online"), {"NETRC": str(tmp_path / "netrc")})
    assert found.status is Status.OK
    assert "secret" not in found.said


def test_more_threads_than_cores_are_found():
    assert host.threads({"OMP_NUM_THREADS": "many"}, 1).status is Status.FAIL
    assert host.threads({"OMP_NUM_THREADS": "100000"}, 1).status is Status.WARN
    assert host.threads({}, 2).status is Status.WARN
    assert host.threads({"OMP_NUM_THREADS": "1"}, 1).status is Status.OK


def test_little_shared_memory_is_found(tmp_path):
    assert host.shared_memory(10**9, tmp_path).status is Status.WARN
    assert host.shared_memory(1, Path("/proc")).status is Status.FAIL  # has no bytes free
    assert host.shared_memory(1, tmp_path / "none").status is Status.WARN


def test_missing_data_fails_and_names_the_first_file():
    found = host.data(tiny_config())
    assert found.status is Status.FAIL
    assert "data_prep" in found.remedy


def test_fewer_cards_than_ranks_fail_and_full_ones_are_named():
    card = ("card", 80 * GB, 79 * GB)
    assert cards_finding([], 4).status is Status.OK
    assert cards_finding([card], 2).status is Status.FAIL
    assert cards_finding([card, ("card", 80 * GB, 20 * GB)], 2).status is Status.WARN
    assert cards_finding([card, card], 2).status is Status.OK


def test_a_clock_that_is_ahead_names_both_hosts():
    found = judge_clocks([("a", 100.0), ("b", 100.1), ("c", 3700.0)])
    assert found.status is Status.WARN
    assert "a and c" in found.said
    assert judge_clocks([("a", 100.0), ("b", 100.5)]).status is Status.OK


def test_a_finding_of_one_host_names_it_and_a_shared_one_is_said_once():
    everywhere, one = Finding("x", Status.OK, "same"), Finding("y", Status.FAIL, "broken", "mend it")
    found = merged([("a", everywhere), ("b", everywhere), ("b", one)])
    assert [each.said for each in found] == ["same", "broken (b)"]
    assert worst(found) is Status.FAIL


def test_without_a_launcher_a_fail_is_exit_code_1_and_its_remedy_is_printed(tmp_path):
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-m", "rlpt", "doctor", "configs/quickstart.yaml", f"run_dir={tmp_path / 'file'}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    override = ["parallel.tensor=1", f"tokenizer={tmp_path}"]
    done = subprocess.run(
        [*command, *override], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "set run_dir to a folder" in done.stdout
    assert "world axis" in done.stdout
    assert "Traceback" not in done.stderr
