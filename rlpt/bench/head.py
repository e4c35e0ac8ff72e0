"""`rlpt bench head`: loss and gradients of an output layer, this project's two ways beside plain torch and peers.

Three losses: next-token, and a clipped policy gradient without and with an entropy bonus. Every contender runs forward
and backward once a round, interleaved; gradients are compared with the naive ones. `products` is the limit: the three
matrix products that no exact method goes without, over all rows at once, and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlpt.bench.head_peers import peers
from rlpt.bench.head_problem import DTYPES, LOSSES, Loss, Problem, Shape, clipped, clipped_with_entropy, make_problem
from rlpt.bench.memory import nothing_kept, peak_bytes
from rlpt.bench.paired import machine, print_table, run_paired, summarize, write_figures
from rlpt.errors import UserError
from rlpt.kernels.linear_logprob import LinearLogprob, linear_logprob

_NAIVE, _LIMIT, _OURS = "naive torch", "products", "rlpt, one pass"
_NOTES = (
    "share of limit: the time of the three products over the contender's, within the rounds.",
    "extra memory: the peak above what inputs take, gradients included. gradient: largest relative error to naive.",
)
_CLIPPED = "Clipped rows have no gradient; rlpt leaves them out of its products: its share of the limit may exceed 1."


def naive(problem: Problem, loss: Loss) -> Tensor:
    """All rows' logits in f32, log_softmax, the entropy where the loss has one; then the rows with a loss."""
    logprobs = (problem.hidden @ problem.weight.t()).float().log_softmax(1)
    entropy = -(logprobs.exp() * logprobs).sum(1) if loss is clipped_with_entropy else logprobs[:, 0]
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


def products(problem: Problem) -> None:
    """The three products of the rows with a loss."""
    hidden, weight = problem.hidden.detach()[problem.at], problem.weight.detach()
    logits = hidden @ weight.t()
    torch.mm(logits, weight)
    torch.mm(logits.t(), hidden)


def contenders(loss: Loss) -> dict[str, Callable[[Problem], Tensor | None]]:
    """Each makes the loss, whose backward is run; the limit makes nothing to run backward from."""
    return {
        _NAIVE: lambda problem: naive(problem, loss),
        "rlpt, recompute": lambda problem: ours(problem, loss, one_pass=False),
        _OURS: lambda problem: ours(problem, loss, one_pass=True),
        _LIMIT: products,
    }


def main(shape: Shape, pairs: int, threads: int, json_file: Path | None) -> None:
    """Measures every loss, prints a table of each, and writes the figures to `json_file`."""
    if shape.dtype not in DTYPES:
        raise UserError(f"--dtype {shape.dtype}: known are {', '.join(DTYPES)}")
    torch.set_num_threads(threads)
    problem = make_problem(shape)
    figures: dict[str, Any] = {"machine": machine(), "shape": shape, "pairs": pairs, "threads": threads}
    figures |= {"torch": torch.__version__, "losses": {}}
    for title, loss in LOSSES.items():
        theirs, notes = peers(loss, problem.weight)
        notes = [_CLIPPED, *notes] if loss is clipped else notes
        figures["losses"][title] = measure(problem, contenders(loss) | theirs, shape, pairs)
        _print(title, figures["losses"][title], shape, pairs, notes)
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


def _print(title: str, figures: Mapping[str, Any], shape: Shape, pairs: int, notes: Sequence[str]) -> None:
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
        [*_NOTES, *notes],
    )
