"""`rlpt bench decode`: rows of equal lengths, sampled by this project and by peers with the same weights.

The peers: transformers' `generate`, and a loop over Megatron-Core's GPT with its static inference context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rlpt.bench.decode_megatron import MegatronDecoder
from rlpt.bench.generation import OURS, Limits, Models, Shape, compare, random_prompts, show, timed
from rlpt.bench.paired import machine, write_figures
from rlpt.rollout.generator import PolicyGenerator
from rlpt.types import SamplingParams


def main(
    batches: Sequence[int],
    prompt: int,
    new: int,
    pairs: int,
    device: str,
    threads: int,
    json_file: Path | None,
    shape: Shape | None = None,
) -> dict[str, Any]:
    """Measures every batch size, prints a table of each, writes the figures to `json_file` and returns them."""
    models = Models(shape or Shape(), device, threads)
    megatron = MegatronDecoder(models.policy.gpt, models.config, models.shape.vocab_size, models.device)
    limits = Limits.of(models)
    figures: dict[str, Any] = {"machine": machine(), "limits": asdict(limits), "pairs": pairs, "batches": {}}
    for batch in batches:
        figures["batches"][str(batch)] = measure(models, megatron, batch, prompt, new, pairs, limits)
    if json_file is not None:
        write_figures(json_file, figures)
    return figures


def measure(
    models: Models, megatron: MegatronDecoder, batch: int, prompt: int, new: int, pairs: int, limits: Limits
) -> dict[str, Any]:
    """One batch size: `batch` different prompts of `prompt` tokens, `new` tokens for each."""
    prompts = random_prompts(batch, prompt, prompt, models.shape.vocab_size)
    generator = PolicyGenerator(models.policy, max_rows=batch)
    params = [SamplingParams(max_new_tokens=new)] * batch

    def ours() -> Any:
        return generator(prompts, params, range(batch))

    contenders = {OURS: timed(ours)}
    peers: dict[str, tuple[str | None, bool]] = {
        "transformers": (None, True),
        "transformers, static cache": ("static", True),
    }
    if models.device.kind == "gpu":
        peers["transformers, static cache, not compiled"] = ("static", False)
    for name, (cache, compiled) in peers.items():
        contenders[name] = timed(partial(models.generate, prompts, [new] * batch, cache, compiled))
    contenders["Megatron-Core, static context"] = timed(partial(megatron.generate, prompts, new))
    shape, width = models.shape, models.device.dtype.itemsize
    read = prompt * shape.flops((prompt + 1) / 2)
    flops = read + sum(shape.flops(prompt + at) for at in range(1, new))
    moved = sum(shape.weights + batch * shape.cache_elements(prompt + at) for at in range(new)) * width
    least = max(batch * flops / limits.flops, moved / limits.bytes)
    found = compare(contenders, pairs, batch * new, least)
    some = list(zip(prompts[:4], ours()[:4]))
    off, apart = models.largest_difference(*zip(*some)), models.trainer_difference(*zip(*some))
    from_megatron = megatron.largest_difference(*zip(*some))
    title = (
        f"decode, batch {batch}: prompts of {prompt}, {new} sampled tokens each, {pairs} paired runs, median (range)"
    )
    notes = [
        f"{flops / new / 1e6:.2f} MFLOP a token, prompt included, at {limits.flops / 1e9:.0f} GFLOP/s; a step moves "
        f"{moved / new / 1e6:.0f} MB at {limits.bytes / 1e9:.0f} GB/s: at least {least / new * 1e3:.3f} ms.",
        f"Log-probs: at most {off:.1e} from transformers', {from_megatron:.1e} from Megatron-Core's; in the mean "
        f"{apart:.1e} from those of training.",
    ]
    show(title, found, notes)
    return {
        "contenders": found,
        "flops_per_token": flops / new,
        "bytes_per_step": moved / new,
        "least_seconds": least,
        "largest_difference": off,
        "largest_difference_from_megatron": from_megatron,
        "trainer_difference": apart,
    }
