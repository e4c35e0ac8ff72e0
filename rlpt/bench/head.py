"""`rlpt bench head`: loss and gradients of an output layer, this project's two ways beside plain torch and torch's own.

Two losses: next-token, and a clipped policy gradient with an entropy bonus. Every contender runs forward and backward
once a round, interleaved; gradients are compared with the naive ones. `products` is the limit: the three matrix
products that no exact method goes without, over all rows at once, and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rlpt.bench.memory import nothing_kept, peak_bytes
from rlpt.bench.paired import machine, print_table, run_paired, summarize, write_figures
from rlpt.errors import UserError
from rlpt.kernels.linear_logprob import LinearLogprob, linear_logprob

_NAIVE, _LIMIT, _OURS = "naive torch", "products", "rlpt, one pass"
_CLIP, _BONUS = 0.2, 0.01
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_NOTES = (
    "share of limit: the time of the three products over the contender's, within the rounds.",
    "extra memory: the peak above what inputs take, gradients included. gradient: largest relative error to naive.",
)


@dataclass(frozen=True)
class Shape:
    """What is measured: [rows, hidden] states, [vocabulary, hidden] weights, `live` the share of rows with a loss."""

    rows: int
    hidden: int
    vocabulary: int
    live: float
    dtype: str
    device: str


@dataclass(frozen=True)
class Problem:
    """One batch. Labels, advantages and the sampler's log-probs are of the rows with a loss."""

    hidden: Tensor  # [N, H], a leaf
    weight: Tensor  # [V, H], a leaf
    at: Tensor  # [n] i64: rows with a loss
    labels: Tensor  # [n] i64
    advantages: Tensor  # [n] f32
    old_logprobs: Tensor  # [n] f32


Loss = Callable[[Problem, slice, Tensor, Tensor], Tensor]  # (problem, rows, log-probs, entropy) -> [] their sum


def next_token(problem: Problem, rows: slice, logprobs: Tensor, entropy: Tensor) -> Tensor:
    """-sum log p."""
    return -logprobs.sum()


def clipped(problem: Problem, rows: slice, logprobs: Tensor, entropy: Tensor) -> Tensor:
    """PPO's surrogate and an entropy bonus."""
    advantages = problem.advantages[rows]
    ratio = (logprobs - problem.old_logprobs[rows]).exp()
    gain = torch.minimum(ratio * advantages, ratio.clamp(1 - _CLIP, 1 + _CLIP) * advantages)
    return -(gain + _BONUS * entropy).sum()


LOSSES: dict[str, Loss] = {"next-token": next_token, "clipped policy gradient": clipped}


def make_problem(shape: Shape, seed: int = 0) -> Problem:
    """Random states and weights whose logits have a standard deviation of about 1."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    hidden = normal(shape.rows, shape.hidden).to(shape.device, _DTYPES[shape.dtype]).requires_grad_()
    weight = (normal(shape.vocabulary, shape.hidden) * shape.hidden**-0.5).to(shape.device, _DTYPES[shape.dtype])
    count = max(1, round(shape.rows * shape.live))
    at = torch.randperm(shape.rows, generator=generator)[:count].sort().values.to(shape.device)
    labels = torch.randint(shape.vocabulary, (count,), generator=generator).to(shape.device)
    advantages, drift = normal(count).to(shape.device), normal(count).to(shape.device)
    with torch.no_grad():
        logprobs = linear_logprob(
            hidden[at], weight, labels, vocab_start=0, vocab_size=shape.vocabulary
        ).logprobs  # fmt: skip
    return Problem(hidden, weight.requires_grad_(), at, labels, advantages, logprobs + 0.3 * drift)


def naive(problem: Problem, loss: Loss) -> Tensor:
    """All rows' logits in f32, log_softmax, the entropy where the loss has one; then the rows with a loss."""
    logprobs = (problem.hidden @ problem.weight.t()).float().log_softmax(1)
    entropy = logprobs[:, 0] if loss is next_token else -(logprobs.exp() * logprobs).sum(1)
    chosen = logprobs[problem.at].gather(1, problem.labels[:, None])[:, 0]
    return loss(problem, slice(None), chosen, entropy[problem.at])


def ours(problem: Problem, loss: Loss, one_pass: bool) -> Tensor:
    """The rows with a loss through `linear_logprob`."""

    def slopes(rows: slice, found: LinearLogprob) -> LinearLogprob:
        with torch.enable_grad():
            leaves = [one.detach().requires_grad_() for one in (found.logprobs, found.entropy)]
            parts = torch.autograd.grad(loss(problem, rows, *leaves), leaves, allow_unused=True)
        filled = [torch.zeros_like(leaf) if part is None else part for leaf, part in zip(leaves, parts)]
        return LinearLogprob(*filled)

    result = linear_logprob(
        problem.hidden.index_select(0, problem.at),
        problem.weight,
        problem.labels,
        vocab_start=0,
        vocab_size=problem.weight.shape[0],
        slopes=slopes if one_pass else None,
    )
    return loss(problem, slice(None), result.logprobs, result.entropy)


def torchs_own(problem: Problem) -> Tensor:
    """torch's chunked linear_cross_entropy (2.13 and later)."""
    return functional.linear_cross_entropy(  # type: ignore[attr-defined, unused-ignore]
        problem.hidden[problem.at],
        problem.weight,
        problem.labels,
        reduction="sum",
        options=torch.nn.LinearCrossEntropyOptions(),  # type: ignore[attr-defined, unused-ignore]
    )


def products(problem: Problem) -> None:
    """The three products of the rows with a loss."""
    hidden, weight = problem.hidden.detach()[problem.at], problem.weight.detach()
    logits = hidden @ weight.t()
    torch.mm(logits, weight)
    torch.mm(logits.t(), hidden)


def contenders(loss: Loss) -> dict[str, Callable[[Problem], Tensor | None]]:
    """Each makes the loss, whose backward is run; the limit makes nothing to run backward from."""
    found: dict[str, Callable[[Problem], Tensor | None]] = {
        _NAIVE: lambda problem: naive(problem, loss),
        "rlpt, recompute": lambda problem: ours(problem, loss, one_pass=False),
        _OURS: lambda problem: ours(problem, loss, one_pass=True),
        _LIMIT: products,
    }
    if loss is next_token and hasattr(torch.nn, "LinearCrossEntropyOptions"):
        found["torch linear_cross_entropy"] = torchs_own
    return found


def main(shape: Shape, pairs: int, threads: int, json_file: Path | None) -> None:
    """Measures both losses, prints a table of each, and writes the figures to `json_file`."""
    if shape.dtype not in _DTYPES:
        raise UserError(f"--dtype {shape.dtype}: known are {', '.join(_DTYPES)}")
    torch.set_num_threads(threads)
    problem = make_problem(shape)
    figures: dict[str, Any] = {"machine": machine(), "shape": shape, "pairs": pairs, "threads": threads}
    figures |= {"torch": torch.__version__, "losses": {}}
    for title, loss in LOSSES.items():
        figures["losses"][title] = measure(problem, contenders(loss), shape, pairs)
        _print(title, figures["losses"][title], shape, pairs)
    if json_file is not None:
        write_figures(json_file, figures)


def measure(
    problem: Problem, made: Mapping[str, Callable[[Problem], Tensor | None]], shape: Shape, pairs: int
) -> dict[str, Any]:
    """{contender: figures}. The run that memory and gradients are taken from comes first and is not timed."""
    memory, error = {}, {}
    expected = _gradients(problem, made[_NAIVE])
    for name, contender in made.items():
        problem.hidden.grad = problem.weight.grad = None
        with nothing_kept():
            memory[name] = peak_bytes(partial(run, problem, contender), problem.weight.device)
        error[name] = None if name == _LIMIT else _difference(_gradients(problem, contender), expected)
    seconds = run_paired({name: _timed(problem, contender, shape.device) for name, contender in made.items()}, pairs)
    operations = 6 * len(problem.at) * shape.hidden * shape.vocabulary
    return {
        name: {
            "seconds": summarize(seconds[name]),
            "naive_over_this": summarize([a / b for a, b in zip(seconds[_NAIVE], seconds[name], strict=True)]),
            "share_of_limit": summarize([a / b for a, b in zip(seconds[_LIMIT], seconds[name], strict=True)]),
            "gflops_per_second": summarize([operations / 1e9 / value for value in seconds[name]]),
            "extra_bytes": memory[name],
            "gradient_error": error[name],
        }
        for name in made
    }


def run(problem: Problem, contender: Callable[[Problem], Tensor | None]) -> None:
    """Forward and backward once; the gradients are those of the leaves."""
    problem.hidden.grad = problem.weight.grad = None
    loss = contender(problem)
    if loss is not None:
        loss.backward()  # type: ignore[no-untyped-call]


def _gradients(problem: Problem, contender: Callable[[Problem], Tensor | None]) -> list[Tensor]:
    run(problem, contender)
    assert problem.hidden.grad is not None
    assert problem.weight.grad is not None
    return [problem.hidden.grad, problem.weight.grad]


def _difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """The larger of both gradients' relative errors in the 2-norm."""
    pairs = zip(found, expected, strict=True)
    return max(float((one.float() - other.float()).norm() / other.float().norm()) for one, other in pairs)


def _timed(problem: Problem, contender: Callable[[Problem], Tensor | None], device: str) -> Callable[[], float]:
    def once() -> float:
        _synchronize(device)
        start = time.perf_counter()
        run(problem, contender)
        _synchronize(device)
        return time.perf_counter() - start

    return once


def _synchronize(device: str) -> None:
    if device != "cpu":
        torch.get_device_module(device).synchronize()


def _print(title: str, figures: Mapping[str, Any], shape: Shape, pairs: int) -> None:
    naive_bytes = max(1, figures[_NAIVE]["extra_bytes"])
    rows = [
        [
            name,
            figure["seconds"].show(3),
            figure["naive_over_this"].show(),
            figure["share_of_limit"].show(),
            figure["gflops_per_second"].show(0),
            f"{figure['extra_bytes'] / 2**20:.0f} MiB ({figure['extra_bytes'] / naive_bytes:.0%})",
            "limit" if figure["gradient_error"] is None else f"{figure['gradient_error']:.0e}",
        ]
        for name, figure in figures.items()
    ]
    size = f"{shape.rows} x {shape.hidden} x {shape.vocabulary} {shape.dtype}, {shape.live:.0%} of the rows with a loss"
    print_table(
        f"{title}: {size}, {pairs} paired runs, median (range)",
        ["contender", "seconds", "naive / this", "share of limit", "GFLOP/s", "extra memory", "gradient"],
        rows,
        _NOTES,
    )
