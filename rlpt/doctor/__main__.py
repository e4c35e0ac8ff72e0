"""One rank of `rlpt doctor`: `torchrun ... -m rlpt.doctor [CONFIG [KEY=VALUE ...]]`, or without a launcher."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from rlpt.config import Config, check_world, load_config
from rlpt.distributed.device import Device, accelerators, leave, setup_device
from rlpt.doctor import group, host
from rlpt.doctor.findings import Finding, Status, merged, worst
from rlpt.errors import ConfigError
from rlpt.training.memory import FLOAT32, base_parameters

LEAST_FREE = 0.9  # of a GPU's memory
CHECKPOINT_BYTES = 3 * FLOAT32  # of a parameter: weights and moments


def main(arguments: list[str]) -> int:
    """The exit code: 1 where some check failed."""
    config = load_config(Path(arguments[0]), arguments[1:]) if arguments else None
    here = socket.gethostname()
    local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    found: list[Finding] = []
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:  # once a host
        found = host_findings(config, local_ranks)
    device, more = _device(config)
    found += more
    if device is not None:
        found = _with_other_ranks(config, device, found, here)
        rank = device.rank
        leave()
        if rank != 0:
            return 0
    _print(found)
    return int(worst(found) is Status.FAIL)


def host_findings(config: Config | None, local_ranks: int) -> list[Finding]:
    """Of this host."""
    cards = accelerators()
    found = [host.versions(), cards_finding(cards, local_ranks), host.triton(bool(cards)), host.compiler(bool(cards))]
    found += [host.threads(os.environ, local_ranks), host.shared_memory(local_ranks), host.port(os.environ)]
    found += host.run_folder(config.directory if config else Path("runs"), checkpoint_bytes(config) if config else 0.0)
    found += [host.tracking(config, os.environ), host.sandbox()]
    return found + ([host.data(config)] if config else [])


def cards_finding(cards: list[tuple[str, int, int]], local_ranks: int) -> Finding:
    """`cards`: (name, bytes in all, bytes free) of the GPUs that torch sees here."""
    if not cards:
        return Finding("GPUs", Status.OK, "none: ranks compute on the CPU")
    gib = [(name, free / host.GIB, total / host.GIB) for name, total, free in cards]
    said = f"{len(cards)} x {gib[0][0]}, {min(free for _, free, _ in gib):.0f} of {gib[0][2]:.0f} GiB free"
    if len(cards) < local_ranks:
        return Finding("GPUs", Status.FAIL, f"{said}, for {local_ranks} ranks here", "start a rank a GPU")
    if any(free < LEAST_FREE * total for _, free, total in gib):
        return Finding("GPUs", Status.WARN, said, "something else holds their memory; nvidia-smi says what")
    return Finding("GPUs", Status.OK, said)


def checkpoint_bytes(config: Config) -> float:
    """That a run's checkpoints take at most, with one that is being written; the embedding counts once known."""
    kept = config.checkpoint.keep_last + bool(config.checkpoint.keep_best) + 1
    return float(base_parameters(config, config.model.padded_vocabulary(1)) * CHECKPOINT_BYTES * kept)


def _device(config: Config | None) -> tuple[Device | None, list[Finding]]:
    from rlpt.config import DeviceConfig

    try:
        device = setup_device(config.device if config else DeviceConfig())
    except (ConfigError, RuntimeError) as error:
        return None, [Finding("process group", Status.FAIL, str(error), "see the launcher's address, port and network")]
    return device, []


def _with_other_ranks(config: Config | None, device: Device, found: list[Finding], here: str) -> list[Finding]:
    from rlpt.distributed.mesh import init_mesh, world_axis

    world = world_axis(device)
    together: list[Finding] = []
    groups = {"world": world}
    if config is not None:
        try:
            check_world(config, device.world_size)
            groups = group.axes(init_mesh(config, device))
        except ConfigError as error:
            together.append(Finding("layout", Status.FAIL, str(error), "parallel.* or the number of ranks"))
    together += group.all_reduces(device, groups, world)
    together.append(group.clocks(world, here))
    pairs = [(name, one) for name, ones in world.gather_objects((here, found)) for one in ones]
    return merged(pairs) + together


def _print(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("check", "", "what was found", "what to do", title="rlpt doctor", title_justify="left")
    colours = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red"}
    for one in findings:
        status = Text(one.status.name.lower(), style=colours[one.status])
        table.add_row(Text(one.what), status, Text(one.said), Text(one.remedy))
    Console().print(table)


if __name__ == "__main__":
    code = 1
    try:
        code = main(sys.argv[1:])
    except ConfigError as error:
        code = error.exit_code
        print(f"error: {error}", file=sys.stderr)
    sys.exit(code)
