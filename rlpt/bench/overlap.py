"""`rlpt bench overlap`: whole mixed steps, next-token passes after a play or beside its longest episodes.

A step samples groups of ragged lengths, trains on random text and on what was sampled, and updates. All is the
training loop's own but the tasks: how long a row gets is drawn beforehand, and so is its advantage. Utilisation is the
step's floating-point operations over its seconds and the measured rate of matrix products.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlpt.algorithms.dapo import DAPO
from rlpt.algorithms.next_token import NextToken
from rlpt.batch import Batch
from rlpt.bench.generation import Shape, build_policy, geometric_lengths, model_config, random_prompts, trajectory
from rlpt.bench.limits import matmul_rate
from rlpt.bench.paired import machine, print_table, ratios, run_paired, summarize, write_figures
from rlpt.bench.step import text_batch
from rlpt.config import Config
from rlpt.config_objectives import ObjectiveConfig
from rlpt.distributed.device import setup_device
from rlpt.rollout.generator import PolicyGenerator
from rlpt.rollout.packing import RowShape, pack
from rlpt.training.optimizer import Optimizer, wrap_data_parallel
from rlpt.training.overlap import Overlap
from rlpt.training.schedule import StepPlan
from rlpt.training.sources import Stream
from rlpt.training.step import TrainStep
from rlpt.types import SamplingParams

AFTER = "after the play"
_TEXT, _PLAY = "text", "play"


@dataclass(frozen=True)
class Workload:
    """Of a step."""

    groups: int = 16
    samples: int = 16
    prompt: int = 64  # longest; the shortest may be half as long
    mean: float = 48.0  # of the geometric lengths
    longest: int = 256
    rows: int = 8  # of a microbatch of text
    microbatches: int = 4  # of text

    @property
    def play_microbatches(self) -> int:
        """Of what was sampled: each about as long as one of text."""
        return max(1, self.microbatches // 2)


class _Fixed:
    """What a source has beside `take`: nothing to resume, nothing to report."""

    def metrics(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def cursor(self) -> dict[str, Any]:
        return {}


class _Texts(_Fixed):
    """The same microbatches of random tokens each time."""

    def __init__(self, workload: Workload, shape: Shape) -> None:
        length = shape.sequence_length
        size = (workload.microbatches, workload.rows, length + 1)
        texts = torch.randint(shape.vocab_size, size, generator=torch.Generator().manual_seed(1))
        self.batches = [text_batch(one) for one in texts]

    def take(self, n: int, step: int = 0, share: float = 1.0) -> list[Batch]:
        return self.batches


class _Play(_Fixed):
    """Groups of samples whose lengths are known beforehand, packed with random advantages."""

    def __init__(self, workload: Workload, shape: Shape, generator: PolicyGenerator) -> None:
        distinct = random_prompts(workload.groups, max(1, workload.prompt // 2), workload.prompt, shape.vocab_size)
        self.prompts = [one for one in distinct for _ in range(workload.samples)]
        self.lengths = geometric_lengths(len(self.prompts), workload.mean, workload.longest)
        self.params = [SamplingParams(max_new_tokens=length) for length in self.lengths]
        self.peers = [row // workload.samples for row in range(len(self.prompts))]
        self.advantages = np.random.default_rng(2).standard_normal(len(self.prompts)).tolist()
        self.generator = generator
        self.shape = RowShape(shape.sequence_length, shape.vocab_size, 0, 8)

    def take(self, n: int, step: int = 0, share: float = 1.0) -> list[Batch]:
        found = self.generator(self.prompts, self.params, range(len(self.prompts)))
        rows = zip(self.prompts, found, self.peers, strict=True)
        played = [replace(trajectory(*row), advantage=one) for row, one in zip(rows, self.advantages, strict=True)]
        return pack(played, _PLAY, n, self.shape)


class Steps:
    """One model, and steps on it at any share."""

    def __init__(self, workload: Workload, shape: Shape, device_kind: str, threads: int) -> None:
        self.device = setup_device(model_config(shape, device_kind, threads).device)
        self.config = _with_play(model_config(shape, device_kind, threads))
        self.policy = build_policy(self.config, shape.vocab_size, self.device)
        model = wrap_data_parallel(self.config, self.policy.gpt, self.device)
        objectives = {_TEXT: NextToken(), _PLAY: DAPO()}
        optimizer = Optimizer(self.config, model, self.device)
        self.step = TrainStep(self.policy, model, optimizer, objectives)
        generator = PolicyGenerator(self.policy)
        self.texts, self.play = _Texts(workload, shape), _Play(workload, shape, generator)
        self.streams = {_TEXT: Stream(objectives[_TEXT], self.texts), _PLAY: Stream(objectives[_PLAY], self.play)}
        self.generator = generator
        numbers = {_TEXT: workload.microbatches, _PLAY: workload.play_microbatches}
        ones = dict.fromkeys(numbers, 1.0)
        self.plan = StepPlan(0, numbers, ones, ones, 1e-6, 0.0)  # weights hardly move: all steps cost the same
        self.beside: dict[float, float] = {}

    def at(self, share: float) -> Callable[[], float]:
        """A step; seconds."""
        batch = self.config.batch.model_copy(update={"overlap": share})
        config = self.config.model_copy(update={"batch": batch})
        overlap = Overlap(config, self.generator, self.streams, self.step)

        def once() -> float:
            start = time.perf_counter()
            taken = overlap.take(self.plan, may_begin=True)
            self.step(taken.batches, self.plan, begun=taken.begun)
            self.beside[share] = taken.beside
            return time.perf_counter() - start

        return once

    def flops(self, shape: Shape) -> float:
        """Of a step: text and what was sampled forward and backward, each prompt once, and the sampling itself."""
        length = shape.sequence_length
        text = 3 * shape.flops((length + 1) / 2) * sum(one.tokens.numel() for one in self.texts.batches)
        rows = list(zip(self.play.prompts, self.play.lengths, strict=True))
        distinct = {tuple(prompt) for prompt in self.play.prompts}
        read = sum(len(prompt) * shape.flops((len(prompt) + 1) / 2) for prompt in distinct)
        drawn = sum(length * shape.flops(len(prompt) + length / 2) for prompt, length in rows)
        return text + read + drawn + 3 * (read + drawn)


def main(
    workload: Workload,
    shape: Shape,
    shares: Sequence[float],
    pairs: int,
    device_kind: str,
    threads: int,
    json_file: Path | None,
) -> dict[str, Any]:
    """Measures, prints a table, writes the figures to `json_file` and returns them."""
    steps = Steps(workload, shape, device_kind, threads)
    names = {0.0: AFTER} | {share: f"beside its last {share:.0%} of rows" for share in shares}
    contenders = {name: steps.at(share) for share, name in names.items()}
    contenders["the play alone"] = _alone(steps)
    for once in contenders.values():
        once()
        once()
    seconds = run_paired(contenders, pairs)
    rate, flops = matmul_rate(steps.device.torch_device, steps.device.dtype), steps.flops(shape)
    faster = {name: ratios({AFTER: seconds[AFTER], name: seconds[name]}, name)[AFTER] for name in names.values()}
    found: dict[str, Any] = {
        name: {
            "seconds": summarize(seconds[name]),
            "times_as_fast": faster[name],
            "utilisation": summarize([flops / rate / one for one in seconds[name]]),
            "passes_beside": steps.beside[share],
        }
        for share, name in names.items()
    }
    alone = summarize(seconds["the play alone"])
    _print(found, workload, shape, pairs, rate, alone.show(3))
    figures = {"contenders": found, "play_alone": alone, "flops": flops, "rate": rate, "workload": asdict(workload)}
    if json_file is not None:
        write_figures(json_file, figures | {"machine": machine(), "shape": asdict(shape), "pairs": pairs})
    return figures


def _print(found: dict[str, Any], workload: Workload, shape: Shape, pairs: int, rate: float, alone: str) -> None:
    rows = [
        [
            name,
            figure["seconds"].show(3),
            figure["times_as_fast"].show(),
            figure["utilisation"].show(3),
            f"{figure['passes_beside']:.0%}",
        ]
        for name, figure in found.items()
    ]
    print_table(
        f"overlap: {shape.describe()}, {workload.groups} x {workload.samples} samples, {workload.microbatches} x "
        f"{workload.rows} x {shape.sequence_length} tokens of text, {pairs} paired runs, median (range)",
        ["text is trained on", "seconds", "times as fast", "utilisation", "passes beside"],
        rows,
        [f"The play alone takes {alone} s. Utilisation: of {rate / 1e12:.3g} TFLOP/s."],
    )


def _alone(steps: Steps) -> Callable[[], float]:
    def once() -> float:
        start = time.perf_counter()
        steps.play.take(1)
        return time.perf_counter() - start

    return once


def _with_play(config: Config) -> Config:
    """With an objective that plays, as the loop knows them by."""
    play = ObjectiveConfig(source={"name": "episodes"}, algorithm={"name": "dapo"}, microbatches=1)
    return config.model_copy(update={"objectives": {**config.objectives, _PLAY: play}})
