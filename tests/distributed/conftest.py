"""The tiny run that the resume and bad-run tests share: written once, run through once."""

from pathlib import Path

import pytest
from helpers.faults import ALONE, TOGETHER, write_short_run
from helpers.launches import start
from helpers.runs import write_run


@pytest.fixture(scope="session")
def config(tmp_path_factory) -> Path:
    """The configuration of the tiny run."""
    return write_run(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def unbroken(config) -> Path:
    """The folder of the run without a break: 14 steps on two tensor ranks, checkpoints of steps 10 and 14 kept."""
    launch = start(["-m", "rlpt", "train", config], config.with_name("unbroken.log"))
    assert launch.finish() == 0, launch.output
    assert launch.left_behind() == []
    return config.parent / "run"


@pytest.fixture(scope="session")
def killed(config) -> dict[int, Path]:
    """Number of ranks -> the folder of the short run's attempts: one for each point at which it is killed, and one
    without a break ("none")."""
    folders = {}
    for ranks, overrides, points in ((1, [], ALONE), (2, ["parallel.tensor=2"], TOGETHER)):
        short, out = write_short_run(config, *overrides), config.parent / f"killed-{ranks}"
        out.mkdir()
        launch = start([Path(__file__).with_name("faulty.py"), short, out, str(ranks), "none", *points], out / "log")
        assert launch.finish() == 0, launch.output
        assert launch.left_behind() == []
        folders[ranks] = out
    return folders
