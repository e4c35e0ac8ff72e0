"""`rlpt proposals RUN FILE`: the buffer of proposals in a run's newest checkpoint, as JSON lines.

`selfplay: {name: propose, initial: FILE}` starts another run's buffer with them.
"""

from __future__ import annotations

import json
from pathlib import Path

from rlpt.errors import CheckpointError, ConfigError
from rlpt.registry import suggest
from rlpt.selfplay.proposals import Proposals
from rlpt.training.checkpoint import STATE, find_latest


def main(run: Path, file: Path, objective: str = "") -> int:
    """Writes the file; returns how many proposals it holds. `objective` may be left out where only one proposes. Raises
    CheckpointError without a checkpoint, ConfigError where no such objective keeps a buffer, or several do."""
    latest = find_latest(run)
    if latest is None:
        raise CheckpointError(f"{run} has no checkpoint with a buffer; train it first")
    sources = json.loads((latest / STATE).read_text(encoding="utf-8"))["sources"]
    buffers = {name: state["memory"] for name, state in sources.items() if "triplets" in state.get("memory", {})}
    if not objective and len(buffers) == 1:
        (objective,) = buffers
    if objective not in buffers:
        raise ConfigError(f"--objective: '{objective}' keeps no buffer in {run}{suggest(objective, sorted(buffers))}")
    proposals = Proposals()
    proposals.load_state_dict(buffers[objective])
    count = proposals.export_file(file)
    print(f"{latest}: {count} proposals of '{objective}' -> {file}")
    return count
