"""`rlpt bench step`: next-token steps of this project, of bare Megatron-Core and of a Llama of transformers.

All have the same shape, the same random tokens, gradient clipping and AdamW. Ours is the whole `TrainStep`: counts over
ranks, Megatron's schedule and data-parallel buffers, the fused log-prob head, figures, and the optimizer's update.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlpt.algorithms.next_token import NextToken
from rlpt.batch import Batch
from rlpt.bench.paired import machine, print_table, ratios, run_paired, summarize, write_figures
from rlpt.bench.step_megatron import megatron_step
from rlpt.config import Config, parse_config
from rlpt.distributed.device import Device, setup_device
from rlpt.distributed.mesh import init_mesh
from rlpt.models.gpt import build_gpt
from rlpt.models.hf import llama_config
from rlpt.models.policy import Policy
from rlpt.training.accounting import UPDATE, weights_per_token
from rlpt.training.optimizer import Optimizer, wrap_data_parallel
from rlpt.training.schedule import StepPlan
from rlpt.training.step import TrainStep

OURS, MEGATRON, LLAMA = "rlpt", "Megatron-Core, bare loop", "Llama of transformers"
Step = Callable[[Tensor, Tensor], float]  # tokens and labels [B, T] -> the loss
_NOTES = (
    "times as fast: tokens a second of that row over ours, within the rounds.",
    "GFLOP/s: of the products with weights, attention left out.",
)


def main(
    rows: int, length: int, vocabulary: int, steps: int, rounds: int, threads: int, json_file: Path | None
) -> None:
    """Measures all three, prints a table and writes the figures to `json_file`."""
    config = _config(rows, length, threads)
    device = setup_device(config.device)
    contenders = {
        OURS: our_step(config, vocabulary, device),
        MEGATRON: megatron_step(config, vocabulary, device),
        LLAMA: llama_step(config, vocabulary),
    }
    texts = torch.randint(vocabulary, (steps, rows, length + 1), generator=torch.Generator().manual_seed(1))
    for step in contenders.values():
        step(texts[0, :, :-1], texts[0, :, 1:])
    seconds = run_paired({name: _timed(step, texts) for name, step in contenders.items()}, rounds)
    tokens = steps * rows * length
    body, head = weights_per_token(config.model, vocabulary)
    faster = {name: ratios({OURS: seconds[OURS], name: seconds[name]}, name)[OURS] for name in seconds}
    figures = {
        name: {
            "tokens_per_second": summarize([tokens / value for value in seconds[name]]),
            "gflop_per_second": summarize([UPDATE * (body + head) * tokens / 1e9 / value for value in seconds[name]]),
            "times_ours": faster[name],
        }
        for name in seconds
    }
    table = [
        [name, one["tokens_per_second"].show(0), one["gflop_per_second"].show(0), one["times_ours"].show()]
        for name, one in figures.items()
    ]
    print_table(
        f"next-token steps of {rows} x {length} tokens, {rounds} paired runs of {steps}, median (range)",
        ["contender", "tokens/s", "GFLOP/s", "times as fast as ours"],
        table,
        _NOTES,
    )
    if json_file is not None:
        versions = {package: version(package) for package in ("torch", "megatron-core", "transformers")}
        write_figures(json_file, {"contenders": figures, "machine": machine(), "versions": versions, "rounds": rounds})


def our_step(config: Config, vocabulary: int, device: Device) -> Step:
    """The train step of a run on text."""
    mesh = init_mesh(config, device)
    policy = Policy(
        build_gpt(config, config.model.padded_vocabulary(vocabulary), mesh, device), mesh, device, vocabulary
    )
    model = wrap_data_parallel(config, policy.gpt, device)
    train_step = TrainStep(policy, model, Optimizer(config, model, device), {"text": NextToken()})
    settings = config.optimizer
    plan = StepPlan(0, {"text": 1}, {"text": 1.0}, {"text": 1.0}, settings.lr, settings.weight_decay)

    def step(tokens: Tensor, labels: Tensor) -> float:
        batch = Batch(
            objective="text",
            tokens=tokens.contiguous(),
            labels=labels.contiguous(),
            positions=torch.arange(tokens.shape[1]).repeat(len(tokens), 1),
            loss_mask=torch.ones_like(tokens, dtype=torch.bool),
            segments=torch.zeros_like(tokens),
        )
        return train_step({"text": [batch]}, plan).losses["text"]

    return step


def llama_step(config: Config, vocabulary: int) -> Step:
    """A loop as its users write it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    options = llama_config(config, vocabulary, 0, 1, torch.float32)
    llama = LlamaForCausalLM(LlamaConfig(**options, attn_implementation="sdpa"))  # type: ignore[call-arg]
    optimizer = torch.optim.AdamW(llama.parameters(), lr=config.optimizer.lr, fused=True)

    def step(tokens: Tensor, labels: Tensor) -> float:
        logits = llama(input_ids=tokens, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(llama.parameters(), config.optimizer.clip_grad)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss)

    return step


def _config(rows: int, length: int, threads: int) -> Config:
    model: dict[str, Any] = {"num_layers": 4, "hidden_size": 256, "num_attention_heads": 4, "num_query_groups": 4}
    return parse_config(
        {
            "tokenizer": "none",
            "device": {"kind": "cpu", "dtype": "float32", "threads": threads},
            "model": {**model, "ffn_hidden_size": 1024},
            "batch": {"sequence_length": length, "micro_batch_size": rows},
            "objectives": {
                "text": {"algorithm": {"name": "next_token"}, "source": {"name": "corpus"}, "microbatches": 1}
            },
            "schedule": {"steps": 1},
        }
    )


def _timed(step: Step, texts: Tensor) -> Callable[[], float]:
    def timed() -> float:
        start = time.perf_counter()
        for text in texts:
            step(text[:, :-1], text[:, 1:])
        return time.perf_counter() - start

    return timed
