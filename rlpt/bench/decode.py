"""`rlpt bench decode`: rows of equal lengths, sampled by this project and by transformers' `generate`, same weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rlpt.bench.generation import OURS, Models, Shape, compare, random_prompts, show, timed
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
    limit = models.matmul_limit()
    figures: dict[str, Any] = {"machine": machine(), "matmul_flops_per_second": limit, "pairs": pairs, "batches": {}}
    for batch in batches:
        figures["batches"][str(batch)] = measure(models, batch, prompt, new, pairs, limit)
    if json_file is not None:
        write_figures(json_file, figures)
    return figures


def measure(models: Models, batch: int, prompt: int, new: int, pairs: int, limit: float) -> dict[str, Any]:
    """One batch size: `batch` different prompts of `prompt` tokens, `new` tokens for each."""
    prompts = random_prompts(batch, prompt, prompt, models.shape.vocab_size)
    generator = PolicyGenerator(models.policy, max_rows=batch)
    params = [SamplingParams(max_new_tokens=new)] * batch

    def ours() -> Any:
        return generator(prompts, params, range(batch))

    contenders = {OURS: timed(ours)}
    for name, cache in (("transformers", None), ("transformers, static cache", "static")):
        contenders[name] = timed(partial(models.generate, prompts, [new] * batch, cache))
    read = prompt * models.shape.flops((prompt + 1) / 2)
    flops = read + sum(models.shape.flops(prompt + at) for at in range(1, new))
    found = compare(contenders, pairs, batch * new, batch * flops, limit)
    off = models.largest_difference(prompts[:4], ours()[:4])
    title = (
        f"decode, batch {batch}: prompts of {prompt}, {new} sampled tokens each, {pairs} paired runs, median (range)"
    )
    notes = [
        f"{flops / new / 1e6:.2f} MFLOP a token, prompt included; limit {limit / 1e9:.0f} GFLOP/s.",
        f"Largest difference of a log-prob from transformers': {off:.1e}.",
    ]
    show(title, found, notes)
    return {"contenders": found, "flops_per_token": flops / new, "largest_difference": off}
