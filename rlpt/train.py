"""Trains a recipe: `torchrun --nproc-per-node N -m rlpt.train CONFIG [KEY=VALUE ...] [--resume | --no-resume]`.

On one host `rlpt train CONFIG` starts the ranks by itself.
"""

from __future__ import annotations

from pathlib import Path

from rlpt.errors import ConfigError


def main(arguments: list[str]) -> None:
    """One rank of a run."""
    from rlpt.config import load_config
    from rlpt.distributed.device import leave
    from rlpt.training.loop import Trainer
    from rlpt.training.runtime import build_runtime

    flags = {"--resume": True, "--no-resume": False}
    resume = next((flags[argument] for argument in reversed(arguments) if argument in flags), None)
    rest = [argument for argument in arguments if argument not in flags]
    if not rest or rest[0].startswith("-"):
        raise ConfigError("usage: python -m rlpt.train CONFIG [KEY=VALUE ...] [--resume | --no-resume]")
    Trainer(build_runtime(load_config(Path(rest[0]), rest[1:])), resume).fit()
    leave()


if __name__ == "__main__":
    from rlpt.training.runtime import run_entry

    run_entry(main)
