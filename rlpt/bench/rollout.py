"""`rlpt bench rollout`: groups of samples that end at different lengths, by this project and by transformers.

transformers runs one batch until its longest row ends. Nobody is told the lengths beforehand: our rows are cut by their
own limits, theirs by a stopping criterion.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlpt.bench.generation import OURS, Limits, Models, Shape, compare, geometric_lengths, random_prompts, show, timed
from rlpt.bench.paired import machine, write_figures
from rlpt.rollout.generator import PolicyGenerator
from rlpt.types import SamplingParams


def main(
    groups: int,
    samples: int,
    prompt: int,
    mean: float,
    longest: int,
    slots: int,
    pairs: int,
    device: str,
    threads: int,
    json_file: Path | None,
    shape: Shape | None = None,
) -> dict[str, Any]:
    """Measures, prints a table, writes the figures to `json_file` and returns them."""
    models = Models(shape or Shape(), device, threads)
    distinct = random_prompts(groups, max(1, prompt // 2), prompt, models.shape.vocab_size)
    prompts = [one for one in distinct for _ in range(samples)]
    lengths = geometric_lengths(len(prompts), mean, longest)
    params = [SamplingParams(max_new_tokens=length) for length in lengths]

    def ours(max_rows: int) -> Any:
        return PolicyGenerator(models.policy, max_rows)(prompts, params, range(len(prompts)))

    contenders = {
        OURS: timed(lambda: ours(slots)),
        "rlpt, a slot a row": timed(lambda: ours(len(prompts))),
        "transformers": timed(lambda: models.generate(prompts, lengths, None)),
        "transformers, static cache": timed(lambda: models.generate(prompts, lengths, "static")),
    }
    flops = sum(len(one) * models.shape.flops((len(one) + 1) / 2) for one in distinct)
    for one, length in zip(prompts, lengths, strict=True):
        flops += sum(models.shape.flops(len(one) + at) for at in range(1, length))
    useful, limits = sum(lengths), Limits.of(models)
    found = compare(contenders, pairs, useful, flops / limits.flops)
    drawn = ours(slots)
    off = models.largest_difference(prompts[:4], drawn[:4])
    apart = models.packed_difference(prompts, drawn, [row // samples for row in range(len(prompts))])
    computed = len(prompts) * longest
    show(
        f"rollout: {groups} prompts x {samples} samples, geometric lengths, {pairs} paired runs, median (range)",
        found,
        [
            f"{useful} useful tokens, mean {useful / len(prompts):.1f}, longest {longest}; a static batch computes "
            f"{computed / useful:.1f} times as many. {slots} slots.",
            f"{flops / useful / 1e6:.2f} MFLOP a useful token, each prompt once; {limits.flops / 1e9:.0f} GFLOP/s.",
            f"Largest difference of a log-prob from transformers': {off:.1e}. In the mean, sampler and trainer are "
            f"{apart['score']:.1e} apart on packed trees, {apart['update']:.1e} by an update's own forward.",
        ],
    )
    figures = {
        "machine": machine(),
        "limits": asdict(limits),
        "pairs": pairs,
        "useful_tokens": useful,
        "slots": slots,
        "flops_per_token": flops / useful,
        "largest_difference": off,
        "trainer_difference": apart["score"],
        "trainer_difference_of_an_update": apart["update"],
        "contenders": found,
    }
    if json_file is not None:
        write_figures(json_file, figures)
    return figures
