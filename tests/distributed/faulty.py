"""Worker of the fault tests: runs of `rlpt train` that kill themselves at a named point, then go on.

Started as `faulty.py CONFIG OUT RANKS [POINT ...]`. Every run is a fork of this process, a group of ranks at a time, in
the folder OUT/POINT: first with the fault, then (as often as it takes) without, to its end. OUT/POINT.json says how
the ranks ended. "none" is the run without a break.

What is imported at the top stays light: Megatron's writer of checkpoints starts this file once more.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEP = 3  # the step (from 1) that is broken off; checkpoints are of steps 2, 4 and 6
LIMIT = 100  # seconds of a group


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, is_due: Callable[[], bool] = lambda: True) -> None:
    """The process dies when `owner.name` is called."""
    original = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        if is_due():
            die()
        return original(*args, **kwargs)

    setattr(owner, name, call)


def after(owner: Any, name: str, is_due: Callable[[], bool] = lambda: True) -> None:
    """The process dies when `owner.name` has done its work."""
    original = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if is_due():
            die()
        return result

    setattr(owner, name, call)


def arm(point: str, trainer: Any) -> None:
    """Puts the fault of `point` into this process."""

    from rlpt.data.corpus import ShardStream
    from rlpt.rollout.generator import PolicyGenerator
    from rlpt.training import checkpoint, loop, tracking
    from rlpt.training.optimizer import Optimizer

    state, store = trainer.state, checkpoint.CheckpointStore

    def in_step() -> bool:
        return bool(state.step == STEP - 1)

    if point == "rollout":
        after(PolicyGenerator, "__call__", in_step)
    elif point == "after backward":
        before(Optimizer, "gradient_norm", in_step)
    elif point == "after update":
        after(Optimizer, "step", in_step)
    elif point == "half a row":
        half_a_row(tracking)
    elif point == "half a save":
        if trainer.runtime.device.rank == 1:
            after_the_first_shard(trainer)
    elif point == "before manifest":
        before(checkpoint, "write_manifest", lambda: state.step == 4)
    elif point == "before latest":
        before(store, "_point_to", lambda: state.step == 4)
    elif point == "while pruning":
        half_pruned(checkpoint)
    elif point == "evaluation":
        before(loop, "add_evaluation", lambda: state.step == STEP)
    elif point == "epoch":
        before(ShardStream, "_permutation", lambda: state.step > 0)
    elif point == "after resume":
        after(loop.Trainer, "_take", lambda: trainer.resumed_step == 4)
        before(Optimizer, "step", lambda: trainer.resumed_step is None and state.step == 4)
    elif point == "before summary":
        before(loop, "write_summary")
    elif point == "flipped bit" and trainer.runtime.device.rank == 1:
        flip(trainer, Optimizer, "step", lambda: state.step == 2)
    elif point == "flipped bit while it plays" and trainer.runtime.device.rank == 1:
        flip(trainer, loop.Trainer, "_take", lambda: state.step == 3)
    elif point in ("service killed", "service without disk"):
        break_service(loop, point == "service killed")
    else:
        assert point == "none" or point.startswith("flipped"), point


def flip(trainer: Any, owner: Any, name: str, is_due: Callable[[], bool]) -> None:
    """The lowest bit of one weight changes when `owner.name` has done its work."""
    import torch

    original = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if is_due():
            weight = dict(trainer.runtime.policy.gpt.named_parameters())["decoder.final_layernorm.weight"]
            weight.data.view(torch.int32)[3] ^= 1
        return result

    setattr(owner, name, call)


def break_service(loop: Any, is_killed: bool) -> None:
    """After the third row: the processes of wandb below this one are killed, or no file of theirs may grow any more."""
    import psutil

    log, rows = loop.Trainer._log, []

    def count(trainer: Any, row: Any) -> None:
        log(trainer, row)
        rows.append(row)
        if len(rows) == 3:
            found = [
                one for one in psutil.Process().children(recursive=True) if "wandb-core" in " ".join(one.cmdline())
            ]
            assert found
            for one in found:
                one.kill() if is_killed else one.rlimit(psutil.RLIMIT_FSIZE, (1, 1))

    loop.Trainer._log = count


def half_a_row(tracking: Any) -> None:
    class Torn:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        @staticmethod
        def write(file: int, data: bytes) -> int:
            if b'"step": 3' in data and b'"lr"' in data:
                os.write(file, data[: len(data) // 2])
                die()
            return os.write(file, data)

    tracking.os = Torn()


def after_the_first_shard(trainer: Any) -> None:
    """On the second rank: dies as soon as the first rank's shard of step 4 is there."""
    from rlpt.training.checkpoint_weights import _MegatronWriting

    original = _MegatronWriting.write

    def write(self: Any) -> Any:
        folder = trainer.folder.path / "checkpoints" / "step-00000004.tmp" / "weights"
        while folder.exists():
            if any(path.stat().st_size for path in folder.glob("__0_*")):
                die()
            time.sleep(0.01)
        return original(self)

    _MegatronWriting.write = write


def half_pruned(checkpoint: Any) -> None:
    class Half:
        def __getattr__(self, name: str) -> Any:
            import shutil

            return getattr(shutil, name)

        @staticmethod
        def rmtree(path: Path, **options: Any) -> None:
            import shutil

            for folder in path.glob("step-*"):
                (folder / "manifest.json").unlink()
                die()
            shutil.rmtree(path, **options)

    checkpoint.shutil = Half()


def train(config: str, arguments: list[str], point: str) -> None:
    from rlpt.config import load_config
    from rlpt.distributed.device import leave
    from rlpt.training.loop import Trainer
    from rlpt.training.runtime import build_runtime

    trainer = Trainer(build_runtime(load_config(Path(config), arguments)))
    arm(point, trainer)
    trainer.fit()
    leave()


def group(config: str, out: Path, ranks: int, name: str, point: str) -> list[int]:
    """Exit codes of the ranks of one run; as soon as one is killed, so are the others, as a launcher does it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    processes = {}
    for rank in range(ranks):
        process = os.fork()
        if process == 0:
            os.setpgid(0, 0)
            log = os.open(out / f"{name}.{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1), os.dup2(log, 2)
            if ranks > 1:
                os.environ.update(meeting, RANK=str(rank), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(ranks))
            signal.alarm(LIMIT)
            from rlpt.training.runtime import run_entry

            sys.argv = ["faulty.py"]
            run_entry(lambda _: train(config, [f"run_dir={out / name}"], point))
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(0)
        processes[process] = rank
    codes = [0] * ranks
    waiting = dict(processes)
    while waiting:
        process, status = os.wait()
        if process in waiting:
            code = os.waitstatus_to_exitcode(status)
            codes[waiting.pop(process)] = code
            if code:
                for other in (process, *waiting):
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(other, signal.SIGKILL)
    return codes


def main() -> None:
    config, out, ranks = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    import rlpt.training.loop  # noqa: F401 (what all runs import)
    from rlpt.distributed.device import import_megatron_quietly

    import_megatron_quietly()
    for point in sys.argv[4:]:
        name, ends = point.replace(" ", "_"), []
        began = time.monotonic()
        while not ends or (any(ends[-1]) and len(ends) < 4):
            repeated = point == "after resume" and len(ends) < 2
            ends.append(group(config, out, ranks, name, point if not ends or repeated else "none"))
        (out / f"{name}.json").write_text(json.dumps({"ends": ends, "seconds": time.monotonic() - began}))


if __name__ == "__main__":
    main()
