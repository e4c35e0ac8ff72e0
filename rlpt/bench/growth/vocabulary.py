"""The output layer with a loss of RL against the vocabulary: this project's one pass, and plain torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from torch import Tensor

from rlpt.bench.growth.curves import Axis, Way
from rlpt.bench.growth.laws import head_flops
from rlpt.bench.head import naive, ours, run
from rlpt.bench.head_problem import Problem, Shape, clipped_with_entropy, make_problem
from rlpt.kernels.backend import choose_head
from rlpt.kernels.vocabulary_shard import Shard, sum_dtype

NAIVE_TABLES = 5  # float32 [rows, vocabulary] at its peak: log-probs, exponentials, three gradients


@dataclass(frozen=True)
class Heads:
    """What is measured: a shape whose vocabulary grows."""

    shape: Shape
    sizes: Sequence[int]


def vocabulary(heads: Heads) -> Axis:
    """Forward and backward of a clipped policy gradient with an entropy bonus."""
    rows, hidden = heads.shape.rows, heads.shape.hidden

    @cache
    def problem(size: int) -> Problem:
        return make_problem(replace(heads.shape, vocabulary=size))

    def gradients(size: int) -> float:
        given = problem(size)
        return float(given.weight.nbytes + given.hidden.nbytes)

    def one_pass(size: int) -> float:
        weight = problem(size).weight
        head = choose_head("auto", weight, Shard(0, size, 1.0, None), None)
        return gradients(size) + min(rows, head.chunk_size) * size * sum_dtype(weight).itemsize

    def way(name: str, loss: Callable[[Problem], Tensor], held: Callable[[int], float]) -> Way:
        return Way(
            name,
            lambda size: _layer(problem(size), loss),
            lambda size: head_flops(rows, hidden, size),
            held,
        )

    ways = (
        way("rlpt, one pass", lambda given: ours(given, clipped_with_entropy, one_pass=True), one_pass),
        way(
            "naive torch",
            lambda given: naive(given, clipped_with_entropy),
            lambda size: NAIVE_TABLES * 4.0 * rows * size,
        ),
    )
    return Axis(
        "vocabulary",
        "Vocabulary",
        "ids",
        f"output layer and clipped policy gradient, {rows} rows, width {hidden}, {heads.shape.dtype}",
        (
            "time: three products. memory: gradients and a chunk of logits; naive torch holds "
            f"{NAIVE_TABLES} tables [rows, ids].",
        ),
        ways,
        heads.sizes,
    )


@contextmanager
def _layer(problem: Problem, loss: Callable[[Problem], Tensor]) -> Iterator[Callable[[], Any]]:
    problem.hidden.grad = problem.weight.grad = None

    def work() -> None:
        run(problem, loss)
        assert problem.hidden.grad is not None
        problem.hidden.grad[0, 0].item()  # waits for it

    yield work
    problem.hidden.grad = problem.weight.grad = None
