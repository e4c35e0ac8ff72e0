"""`rlpt bench step`: next-token steps of this project, of bare Megatron-Core and of a Llama of transformers.

All have the same shape, the same random tokens, gradient clipping and AdamW. Ours is the whole `TrainStep`: counts over
ranks, Megatron's schedule and data-parallel buffers, the fused log-prob head, figures, and the optimizer's update.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlpt.algorithms.next_token import NextToken
from rlpt.batch import Batch
from rlpt.bench.generation import Shape, build_policy, model_config
from rlpt.bench.limits import matmul_rate
from rlpt.bench.paired import machine, print_table, ratios, run_paired, summarize, write_figures
from rlpt.bench.step_megatron import megatron_step
from rlpt.config import Config
from rlpt.distributed.device import Device, setup_device
from rlpt.models.hf import llama_config
from rlpt.training.optimizer import Optimizer, wrap_data_parallel
from rlpt.training.schedule import StepPlan
from rlpt.training.step import TrainStep

OURS, MEGATRON, LLAMA = "rlpt", "Megatron-Core, bare loop", "Llama of transformers"
Step = Callable[[Tensor], float]  # texts [microbatches, B, T + 1] -> the loss, after one update
_NOTES = ("times as fast: tokens a second of that row over ours, within the rounds.",)


def main(
    shape: Shape,
    rows: int,
    microbatches: int,
    steps: int,
    rounds: int,
    device_kind: str,
    threads: int,
    json_file: Path | None,
) -> dict[str, Any]:
    """Measures all, prints a table, writes the figures to `json_file` and returns them."""
    config = model_config(shape, device_kind, threads)
    device = setup_device(config.device)
    wanted = {OURS: our_step, MEGATRON: megatron_step}
    if device.kind == "cpu":  # on a GPU it would train bfloat16 weights without float32 masters, which is less work
        wanted[LLAMA] = llama_step
    contenders = {name: make(config, shape.vocab_size, device) for name, make in wanted.items()}
    size = (steps, microbatches, rows, shape.sequence_length + 1)
    texts = torch.randint(shape.vocab_size, size, generator=torch.Generator().manual_seed(1)).to(device.torch_device)
    for step in contenders.values():
        step(texts[0])
    seconds = run_paired({name: _timed(step, texts) for name, step in contenders.items()}, rounds)
    tokens = steps * microbatches * rows * shape.sequence_length
    flops = 3 * shape.flops((shape.sequence_length + 1) / 2) * tokens
    limit = matmul_rate(device.torch_device, device.dtype)
    faster = {name: ratios({OURS: seconds[OURS], name: seconds[name]}, name)[OURS] for name in seconds}
    figures = {
        name: {
            "tokens_per_second": summarize([tokens / value for value in seconds[name]]),
            "share_of_limit": summarize([flops / limit / value for value in seconds[name]]),
            "times_ours": faster[name],
        }
        for name in seconds
    }
    table = [
        [name, one["tokens_per_second"].show(0), one["share_of_limit"].show(3), one["times_ours"].show()]
        for name, one in figures.items()
    ]
    print_table(
        f"next-token steps of {microbatches} x {rows} x {shape.sequence_length} tokens, {shape.parameters / 1e6:.1f} M "
        f"parameters, {str(device.dtype).removeprefix('torch.')}, {rounds} paired runs of {steps}, median (range)",
        ["contender", "tokens/s", "share of limit", "times as fast as ours"],
        table,
        (f"limit: {flops / tokens / 1e6:.1f} MFLOP a token, attention included, {limit / 1e9:.0f} GFLOP/s.", *_NOTES),
    )
    whole = {"contenders": figures, "machine": machine(), "rounds": rounds, "matmul_flops_per_second": limit}
    if json_file is not None:
        versions = {package: version(package) for package in ("torch", "megatron-core", "transformers")}
        write_figures(json_file, whole | {"versions": versions, "shape": asdict(shape)})
    return whole


def our_step(config: Config, vocabulary: int, device: Device) -> Step:
    """The train step of a run on text."""
    policy = build_policy(config, vocabulary, device)
    model = wrap_data_parallel(config, policy.gpt, device)
    train_step = TrainStep(policy, model, Optimizer(config, model, device), {"text": NextToken()})
    settings = config.optimizer
    plan = StepPlan(0, {"text": 1}, {"text": 1.0}, {"text": 1.0}, settings.lr, settings.weight_decay)

    def step(texts: Tensor) -> float:
        return train_step({"text": [text_batch(text) for text in texts]}, plan).losses["text"]

    return step


def text_batch(text: Tensor) -> Batch:
    """Rows [B, T + 1] as a microbatch of the objective `text`, with a loss at every label."""
    tokens = text[:, :-1].contiguous()
    return Batch(
        objective="text",
        tokens=tokens,
        labels=text[:, 1:].contiguous(),
        positions=torch.arange(tokens.shape[1], device=text.device).repeat(len(tokens), 1),
        loss_mask=torch.ones_like(tokens, dtype=torch.bool),
        segments=torch.zeros_like(tokens),
    )


def llama_step(config: Config, vocabulary: int, device: Device) -> Step:
    """A loop as its users write it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    options = llama_config(config, vocabulary, 0, 1, device.dtype)
    llama = LlamaForCausalLM(LlamaConfig(**options, attn_implementation="sdpa"))  # type: ignore[call-arg]
    optimizer = torch.optim.AdamW(llama.parameters(), lr=config.optimizer.lr, fused=True)

    def step(texts: Tensor) -> float:
        total = 0.0
        for text in texts:
            logits = llama(input_ids=text[:, :-1], use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten()) / len(texts)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(llama.parameters(), config.optimizer.clip_grad)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total

    return step


def _timed(step: Step, texts: Tensor) -> Callable[[], float]:
    def timed() -> float:
        start = time.perf_counter()
        for text in texts:
            step(text)
        return time.perf_counter() - start

    return timed
