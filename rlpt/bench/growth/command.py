"""`rlpt bench growth`: time and memory against the sizes that make a run dear, with the laws of both beside them.

Time's law counts operations and is scaled to what was measured at the first size. Memory's counts the bytes that must
be held, and is not scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rlpt.bench.generation import Shape, build_policy, model_config
from rlpt.bench.growth.curves import Axis, Growth, growth, peaks, rows_of, times
from rlpt.bench.growth.rollouts import Rollouts, Sizes, group, response, turns
from rlpt.bench.growth.tensor import Steps, tensor
from rlpt.bench.growth.vocabulary import Heads, vocabulary
from rlpt.bench.head_problem import Shape as HeadShape
from rlpt.bench.memory import nothing_kept
from rlpt.bench.paired import machine, print_table, write_figures
from rlpt.distributed.device import setup_device
from rlpt.errors import UserError

_TENSOR = "tensor"  # is measured in processes of its own
AXES = ("group", "response", "turns", "vocabulary", _TENSOR)
_HEADER = ("seconds", "x first", "law", "x first row", "law", "MiB", "law")
_NOTES = ("x first: over the first size, within the rounds. x first row: over the first way at that size.",)


@dataclass(frozen=True)
class Workload:
    """What is measured on all axes."""

    shape: Shape = field(default_factory=lambda: Shape(sequence_length=2048))  # of the policy that plays
    sizes: Sizes = field(default_factory=Sizes)
    head_rows: int = 1024
    head_hidden: int = 256
    vocabularies: Sequence[int] = (1024, 4096, 16384, 65536)
    step_shape: Shape = field(default_factory=lambda: Shape(sequence_length=128))  # of the model that is split
    step_rows: int = 4
    ranks: Sequence[int] = (1, 2, 4)


class Bench:
    """Makes the axes' figures on one device."""

    def __init__(self, workload: Workload, device_kind: str, threads: int) -> None:
        config = model_config(workload.shape, device_kind, threads)
        self.workload, self.device = workload, setup_device(config.device)
        play = Rollouts(build_policy(config, workload.shape.vocab_size, self.device), workload.shape, workload.sizes)
        dtype, device = str(self.device.dtype).removeprefix("torch."), str(self.device.torch_device)
        head = HeadShape(workload.head_rows, workload.head_hidden, workload.vocabularies[0], 1.0, dtype, device)
        self.here: dict[str, Callable[[], Axis]] = {
            "group": lambda: group(play),
            "response": lambda: response(play),
            "turns": lambda: turns(play),
            "vocabulary": lambda: vocabulary(Heads(head, workload.vocabularies)),
        }

    def measure(self, names: Sequence[str], pairs: int) -> list[Growth]:
        """Memory of all axes in this process comes first: blocks that glibc keeps for speed would hide some of it."""
        axes = {name: self.here[name]() for name in names if name != _TENSOR}
        with nothing_kept():
            memory = {name: peaks(axis, self.device.torch_device) for name, axis in axes.items()}
        given = self.workload
        steps = Steps(given.step_shape, given.step_rows, pairs, self.device.kind, given.ranks)
        return [
            tensor(steps) if name == _TENSOR else growth(axes[name], times(axes[name], pairs), memory[name])
            for name in names
        ]


def main(
    axes: Sequence[str],
    pairs: int,
    device_kind: str,
    threads: int,
    json_file: Path | None,
    plot_file: Path | None,
    workload: Workload | None = None,
) -> list[Growth]:
    """Measures the axes (none: all), prints their tables, writes the figures and the picture, and returns them."""
    unknown = [axis for axis in axes if axis not in AXES]
    if unknown:
        raise UserError(f"--axis {unknown[0]}: known are {', '.join(AXES)}")
    with nothing_kept():
        bench = Bench(workload or Workload(), device_kind, threads)
    found = bench.measure(list(dict.fromkeys(axes)) or AXES, pairs)
    for one in found:
        title = f"{one.title}: {one.subject}; {pairs} paired runs, median (range)"
        print_table(title, ["way", one.unit, *_HEADER], list(rows_of(one)), (*one.notes, *_NOTES))
    if json_file is not None:
        figures: dict[str, Any] = {"machine": machine(), "torch": torch.__version__, "pairs": pairs}
        write_figures(json_file, figures | {"threads": torch.get_num_threads(), "axes": found})
    if plot_file is not None:
        from rlpt.bench.growth.figure import plot_growth

        plot_growth(found, plot_file)
    return found
