"""Worker of the bad-run tests: on every rank, one run after the other that must end with an error, or well.

Started by a launcher as `bad_runs.py CONFIG CASES OUT`; CASES is a JSON list of {"name", "arguments", "full_disk",
"ends_well"}, where `full_disk` is the rank whose files may not grow beyond 100 kB. Rank r writes OUT.r: {name: [exit
code, message]}.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
from pathlib import Path

from rlpt.config import load_config
from rlpt.distributed.device import leave
from rlpt.errors import UserError
from rlpt.train import main
from rlpt.training.loop import Trainer
from rlpt.training.runtime import build_runtime

SMALL = 100_000  # bytes: metrics fit, a shard of the tiny model's weights does not


def outcome(config: str, arguments: list[str], ends_well: bool) -> tuple[int, str]:
    """(exit code, message) of one run."""
    try:
        if ends_well:  # `main` would leave the process group at the end, which the next run needs
            Trainer(build_runtime(load_config(Path(config), arguments))).fit()
        else:
            main([config, *arguments])
    except UserError as error:
        return error.exit_code, str(error)
    return 0, ""


def run_all() -> None:
    config, cases, out = sys.argv[1:]
    rank = int(os.environ["RANK"])
    seen = {}
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    for case in json.loads(Path(cases).read_text()):
        if case.get("full_disk") == rank:
            resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, most))
        signal.alarm(120)  # a rank that hangs dies, and the launcher ends the job
        seen[case["name"]] = outcome(config, case["arguments"], case["ends_well"])
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        gc.collect()  # a run lets its folder go
    Path(f"{out}.{rank}").write_text(json.dumps(seen))
    leave()


if __name__ == "__main__":
    run_all()
