"""`rlpt bench update`: one RL update on ragged groups, as padded rows and without what it need not compute.

The peer is a Hugging Face Llama with our weights, trained as TRL trains it: every sample a row, all rows as long as the
longest prompt and the longest completion, logits of completions only, and a pass without gradients for the old
log-probs. Ours is the whole `TrainStep` but the optimizer's update, which all have alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlpt.algorithms.dapo import DAPO
from rlpt.batch import Batch
from rlpt.bench.paired import machine, print_table, ratios, run_paired, summarize, write_figures
from rlpt.bench.update_forms import FORMS, PADDED, SKIPPED, Workload, draw_trajectories, make_form
from rlpt.config import Config, parse_config
from rlpt.distributed.device import setup_device
from rlpt.distributed.mesh import init_mesh
from rlpt.models.gpt import build_gpt
from rlpt.models.hf import llama_config, llama_weights
from rlpt.models.policy import Policy
from rlpt.rollout.packing import RowShape
from rlpt.training.accounting import UPDATE, weights_per_token
from rlpt.training.optimizer import wrap_data_parallel
from rlpt.training.step import TrainStep
from rlpt.types import Trajectory

TRL, PADDED_TRL = "padded, as TRL (Llama of transformers)", "padded, no old-log-prob pass (Llama)"
_OBJECTIVE = "play"
_NOTES = (
    "times as fast: within the rounds. In the last row half of the groups are silent, and TRL's computes them too.",
    "difference: norm of the gradient's difference to the same samples as padded rows in transformers, over its norm.",
    "GFLOP: of the products with weights, attention left out. The optimizer's own update is not in the figures.",
)


def main(
    microbatches: int, rows_each: int, rounds: int, threads: int, workload: Workload, json_file: Path | None
) -> None:
    """Measures all forms, prints a table and writes the figures to `json_file`."""
    config = _config(workload, threads)
    bench = UpdateBench(config, workload, microbatches, rows_each)
    runs = bench.runs()
    gradients = {name: run() for name, run in runs.items()}  # warms up, too
    seconds = run_paired({name: _timed(run) for name, run in runs.items()}, rounds)
    figures = bench.figures(seconds, gradients)
    _print(figures, workload, rounds)
    if json_file is not None:
        write_figures(json_file, {**figures, "machine": machine(), "workload": asdict(workload), "rounds": rounds})


class UpdateBench:
    """One model, one workload, every way to update on it."""

    def __init__(self, config: Config, workload: Workload, microbatches: int, rows_each: int) -> None:
        device = setup_device(config.device)
        mesh = init_mesh(config, device)
        padded = config.model.padded_vocabulary(workload.vocabulary)
        self.policy = Policy(build_gpt(config, padded, mesh, device), mesh, device, workload.vocabulary)
        self.model = wrap_data_parallel(config, self.policy.gpt, device)
        self.step = TrainStep(self.policy, self.model, None, {_OBJECTIVE: DAPO()})
        self.config, self.workload = config, workload
        self.microbatches, self.rows_each = microbatches, rows_each
        self.llama = self._llama()
        self.everything = draw_trajectories(workload)
        self.half = draw_trajectories(workload, silent_share=0.5)

    def runs(self) -> dict[str, Callable[[], dict[str, Tensor]]]:
        """Name -> an update that returns its gradient by the names of transformers."""
        found: dict[str, Callable[[], dict[str, Tensor]]] = {
            TRL: lambda: self._by_llama(self.everything, old_pass=True),
            PADDED_TRL: lambda: self._by_llama(self.everything, old_pass=False),
        }
        for form in FORMS:
            given = self.half if form == SKIPPED else self.everything
            found[form] = lambda form=form, given=given: self._by_ours(form, given)  # type: ignore[misc]
        return found

    def figures(
        self, seconds: Mapping[str, Sequence[float]], gradients: Mapping[str, dict[str, Tensor]]
    ) -> dict[str, Any]:
        """{form: seconds, how much longer TRL's takes, positions, difference of gradients}. Where half the groups are
        silent, the padded form computes them all the same: its time is that of the other episodes."""
        silent = self._by_llama(self.half, old_pass=False)
        wanted = {name: silent if name == SKIPPED else gradients[PADDED_TRL] for name in gradients}
        slower = {name: ratios({TRL: seconds[TRL], name: seconds[name]}, name)[TRL] for name in seconds}
        body, head = weights_per_token(self.config.model, self.workload.vocabulary)
        forms = {}
        for name in seconds:
            positions, labels = self._work(name)
            flops = UPDATE * (body * positions + head * labels) * (4 / 3 if name == TRL else 1)
            forms[name] = {
                "seconds": summarize(seconds[name]),
                "times": slower[name],
                "positions": positions,
                "gflop": flops / 1e9,
                "gflop_per_second": summarize([flops / 1e9 / value for value in seconds[name]]),
                "gradient_difference": _difference(gradients[name], wanted[name]),
            }
        return {"forms": forms, "transformers": version("transformers"), "torch": version("torch")}

    def _work(self, name: str) -> tuple[int, int]:
        """(positions, labels with a loss) that are computed."""
        form = name if name in FORMS else PADDED
        batches = self._batches(form, self.half if form == SKIPPED else self.everything)
        return sum(one.tokens.numel() for one in batches), sum(int(one.loss_mask.sum()) for one in batches)

    def _batches(self, form: str, trajectories: Sequence[Trajectory]) -> list[Batch]:
        shape = RowShape(self.config.batch.sequence_length, self.workload.vocabulary, 0, multiple=8)
        count = -(-len(trajectories) // self.rows_each) if form == PADDED else self.microbatches
        return make_form(form, trajectories, _OBJECTIVE, count, shape)

    def _by_ours(self, form: str, trajectories: Sequence[Trajectory]) -> dict[str, Tensor]:
        self.model.zero_grad_buffer()
        batches = {_OBJECTIVE: self._batches(form, trajectories)}
        self.step.forward_backward(batches, {_OBJECTIVE: 1.0}, self.step.global_counts(batches))
        return self._gradient()

    @torch.no_grad()
    def _gradient(self) -> dict[str, Tensor]:
        """By the names of transformers: what exports weights is given the gradients in their place."""
        parameters = list(self.policy.gpt.parameters())
        kept = [parameter.data for parameter in parameters]
        for parameter in parameters:
            parameter.data = parameter.main_grad  # type: ignore[attr-defined]
        found = llama_weights(self.policy.gpt, self.workload.vocabulary)
        for parameter, data in zip(parameters, kept):
            parameter.data = data
        return found

    def _by_llama(self, trajectories: Sequence[Trajectory], old_pass: bool) -> dict[str, Tensor]:
        """TRL's way: `rows_each` rows a microbatch, logits of the completions' columns only."""
        self.llama.zero_grad()
        batches = self._batches(PADDED, trajectories)
        count = sum(int(batch.loss_mask.sum()) for batch in batches)
        if old_pass:
            with torch.no_grad():
                for batch in batches:
                    self._llama_logprobs(batch)
        algorithm = DAPO()
        for batch in batches:
            logprobs = self._llama_logprobs(batch)
            assert batch.behavior_logprobs is not None
            assert batch.advantages is not None
            ratio = (torch.where(batch.loss_mask, logprobs - batch.behavior_logprobs, 0)).exp()
            loss = -algorithm.surrogate(logprobs, ratio, batch.advantages)
            (torch.where(batch.loss_mask, loss, 0).sum() / count).backward()
        return {name: parameter.grad.clone() for name, parameter in self.llama.named_parameters()}

    def _llama_logprobs(self, batch: Batch) -> Tensor:
        drawn = batch.tokens.shape[1] - int(batch.loss_mask.any(0).long().argmax())
        logits = self.llama(
            input_ids=batch.tokens,
            attention_mask=(batch.segments >= 0).long(),
            position_ids=batch.positions,
            logits_to_keep=drawn,
            use_cache=False,
        ).logits
        found = logits.log_softmax(-1).gather(-1, batch.labels[:, -drawn:, None])[..., 0]
        return torch.nn.functional.pad(found, (batch.tokens.shape[1] - drawn, 0))

    def _llama(self) -> Any:
        from transformers import LlamaConfig, LlamaForCausalLM

        options = llama_config(self.config, self.workload.vocabulary, 0, 1, torch.float32)
        llama = LlamaForCausalLM(LlamaConfig(**options, attn_implementation="sdpa"))  # type: ignore[call-arg]
        weights = llama_weights(self.policy.gpt, self.workload.vocabulary)
        llama.load_state_dict(weights, strict=False)
        return llama


def _config(workload: Workload, threads: int) -> Config:
    model = {"num_layers": 4, "hidden_size": 256, "num_attention_heads": 4, "num_query_groups": 4}
    return parse_config(
        {
            "tokenizer": "none",
            "device": {"kind": "cpu", "dtype": "float32", "threads": threads},
            "parallel": {"distributed_optimizer": False},
            "model": {**model, "ffn_hidden_size": 1024, "init_std": 0.05},
            "batch": {"sequence_length": 2 * (workload.prompt[1] + workload.longest), "micro_batch_size": 1},
            "objectives": {
                _OBJECTIVE: {"algorithm": {"name": "dapo"}, "source": {"name": "corpus"}, "microbatches": 1}
            },
            "schedule": {"steps": 1},
        }
    )


def _timed(run: Callable[[], Any]) -> Callable[[], float]:
    def timed() -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    return timed


def _difference(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    """The norm of the difference over that of the gradient."""
    off = sum(float((theirs[name] - ours[name]).double().square().sum()) for name in theirs)
    return (off / sum(float(value.double().square().sum()) for value in theirs.values())) ** 0.5


def _print(figures: Mapping[str, Any], workload: Workload, rounds: int) -> None:
    rows = [
        [
            name,
            one["seconds"].show(),
            one["times"].show(1),
            f"{one['positions']:,}",
            f"{one['gflop']:.0f}",
            one["gflop_per_second"].show(0),
            f"{one['gradient_difference']:.1e}",
        ]
        for name, one in figures["forms"].items()
    ]
    print_table(
        f"one update of {workload.groups} x {workload.samples} samples, {rounds} paired runs, median (range)",
        ["form", "seconds", "times as fast as TRL's", "positions", "GFLOP", "GFLOP/s", "difference"],
        rows,
        _NOTES,
    )
