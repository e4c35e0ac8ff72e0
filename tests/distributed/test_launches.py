"""What a launch must not depend on, and must not give away."""

import importlib.util
import json
import os
import socket
import sys

import pytest
from helpers.faults import SERVICE, remains, write_short_run
from helpers.launches import start, start_command

SECRET = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture(scope="module")
def scattered(config, tmp_path_factory):
    """(folder, output) of the short run whose ranks hash texts differently, with secrets in their environment."""
    folder = tmp_path_factory.mktemp("scattered")
    short = write_short_run(config, "parallel.tensor=2")
    script = folder / "rank.sh"
    script.write_text(f'PYTHONHASHSEED=$((RANK + 1)) exec {sys.executable} -m rlpt.train "$@"\n')
    command = [sys.executable, "-m", "rlpt.launcher", "--standalone", "--nproc-per-node=2", "--no-python", "sh"]
    command += [str(script), str(short), f"run_dir={folder / 'run'}", "tracking.wandb=offline"]
    secrets = {"WANDB_API_KEY": SECRET, "HF_TOKEN": f"hf_{SECRET}", "WANDB_DATA_DIR": str(folder / "service")}
    before = set(os.listdir("/dev/shm"))
    launch = start_command(command, folder / "log", secrets)
    assert launch.finish() == 0, launch.output
    assert launch.left_behind() == []
    ours = {f"{os.getuid()}_{launch.process.pid}", f"torch_{launch.process.pid}"}
    assert not [name for name in set(os.listdir("/dev/shm")) - before if any(one in name for one in ours)]
    return folder, launch.output


def test_hash_seeds_of_ranks_change_nothing(scattered, killed):
    assert remains(scattered[0] / "run") == remains(killed[2] / "none")


def test_secrets_of_the_environment_are_written_nowhere(scattered):
    folder, output = scattered
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 15
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert SECRET not in output


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
@pytest.mark.parametrize("point", SERVICE)
def test_whatever_happens_to_wandb_the_run_goes_on_and_its_figures_are_whole(unserved, killed, point):
    name = point.replace(" ", "_")
    log = (unserved / f"{name}.0.log").read_text()
    assert json.loads((unserved / f"{name}.json").read_text())["ends"] == [[0]], log
    found, expected = remains(unserved / name), remains(killed[1] / "none")
    alerts = [row["alert"] for row in found["figures"] if "alert" in row]
    assert alerts == ["wandb failed"] if point == "service killed" else alerts in ([], ["wandb failed"])
    assert log.count("wandb failed") == len(alerts)
    found["figures"] = [row for row in found["figures"] if "alert" not in row]
    assert found == expected


def test_a_port_in_use_is_one_line_and_worth_another_try(config, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        where = ["--master-addr=127.0.0.1", f"--master-port={taken.getsockname()[1]}"]
        ranks = ["-m", "rlpt.launcher", "--nnodes=1", "--node-rank=0", *where, "--nproc-per-node=1"]
        launch = start([*ranks, "-m", "rlpt.train", config], tmp_path / "log")
        assert launch.finish() == 75
    assert "error: the ranks' launchers do not meet" in launch.output
    assert "EADDRINUSE" in launch.output
    assert "Traceback" not in launch.output
    assert launch.left_behind() == []
