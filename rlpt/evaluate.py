"""Evaluates a run's newest checkpoint: `torchrun --nproc-per-node N -m rlpt.evaluate RUN`.

On one host `rlpt evaluate RUN` starts the ranks by itself. Any number of ranks that fits the tensor size will do.
"""

from __future__ import annotations

from pathlib import Path

from rlpt.errors import ConfigError


def main(arguments: list[str]) -> None:
    """One rank of an evaluation."""
    from rlpt.config import load_config
    from rlpt.distributed.device import leave
    from rlpt.training.loop import Trainer
    from rlpt.training.runtime import build_runtime

    if len(arguments) != 1:
        raise ConfigError("usage: python -m rlpt.evaluate RUN")
    config = load_config(Path(arguments[0]) / "config.yaml")
    Trainer(build_runtime(config), resume=True).evaluate()
    leave()


if __name__ == "__main__":
    from rlpt.training.runtime import run_entry

    run_entry(main)
