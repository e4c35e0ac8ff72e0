"""Trains a recipe: `torchrun --nproc-per-node N -m rlpt.train CONFIG [KEY=VALUE ...] [--resume | --no-resume]`.

On one host `rlpt train CONFIG` starts the ranks by itself.
"""

from __future__ import annotations

from pathlib import Path

from rlpt.errors import ConfigError
from rlpt.training.preemption import StopRequest, ignore_signals

STOP = StopRequest()


def main(arguments: list[str]) -> None:
    """One rank of a run. Raises SystemExit(85) when the run was told to stop and has saved."""
    from rlpt.config import load_config
    from rlpt.distributed.device import leave
    from rlpt.training.loop import Trainer
    from rlpt.training.runtime import build_runtime

    flags = {"--resume": True, "--no-resume": False}
    resume = next((flags[argument] for argument in reversed(arguments) if argument in flags), None)
    rest = [argument for argument in arguments if argument not in flags]
    if not rest or rest[0].startswith("-"):
        raise ConfigError("usage: python -m rlpt.train CONFIG [KEY=VALUE ...] [--resume | --no-resume]")
    STOP.install()
    code = Trainer(build_runtime(load_config(Path(rest[0]), rest[1:])), resume, STOP).fit()
    ignore_signals()
    leave()
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    STOP.install()  # a signal during the imports below counts as well
    from rlpt.training.runtime import run_entry

    run_entry(main)
