"""The tiny run that the resume and bad-run tests share: written once, run through once."""

from pathlib import Path

import pytest
from helpers.faults import ALONE, FLIPS, SERVICE, TOGETHER, write_short_run
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
    return {
        ranks: _fork_runs(config, ranks, ["none", *points], [f"parallel.tensor={ranks}"], f"killed-{ranks}")
        for ranks, points in ((1, ALONE), (2, TOGETHER))
    }


@pytest.fixture(scope="session")
def flipped(config) -> dict[str, Path]:
    """Point -> the folder of the short run's attempts on two replicas, as it is and with a bit that changes there."""
    return {
        point: _fork_runs(
            config,
            2,
            ["none", point],
            [
                *("parallel.data=2", f"parallel.distributed_optimizer={str(distributed).lower()}"),
                *("parallel.check_replicas_every=2", "checkpoint.interval=3"),
            ],
            point.replace(" ", "-"),
        )
        for point, distributed in FLIPS.items()
    }


@pytest.fixture(scope="session")
def unserved(config) -> Path:
    """The folder of the short run's attempts while Weights & Biases breaks."""
    return _fork_runs(config, 1, list(SERVICE), ["tracking.wandb=offline"], "unserved")


def _fork_runs(config: Path, ranks: int, points: list[str], overrides: list[str], name: str) -> Path:
    """The folder in which tests/distributed/faulty.py ran `points`."""
    short, out = write_short_run(config, *overrides), config.parent / name
    out.mkdir()
    launch = start([Path(__file__).with_name("faulty.py"), short, out, str(ranks), *points], out / "log")
    assert launch.finish() == 0, launch.output
    assert launch.left_behind() == []
    return out
