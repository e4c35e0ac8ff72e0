"""Rows of an output layer with a padded vocabulary, and what log_softmax says of them."""

from dataclasses import dataclass

import pytest
import torch

from rlpt.kernels import compiler
from rlpt.kernels.backend import Backend
from rlpt.kernels.linear_logprob import LinearLogprob

VOCAB, PADDED, HIDDEN, ROWS = 11, 14, 5, 7


@dataclass(frozen=True)
class Exactness:
    """How far a backend's figures and gradients may be from float64's: rounding of sums of logits up to 10."""

    backend: Backend
    dtype: torch.dtype
    figures: float
    gradients: float

    def figures_close(self, got, want):
        torch.testing.assert_close(got.double(), want.double(), rtol=self.figures, atol=self.figures)

    def gradients_close(self, got, want):
        torch.testing.assert_close(got.double(), want.double(), rtol=self.gradients, atol=self.gradients)


TORCH = Exactness("torch", torch.float64, 1e-12, 1e-11)
COMPILED = Exactness("compiled", torch.float32, 4e-6, 2e-5)
with_compiler = pytest.mark.skipif(compiler.compiler() is None, reason="no C++ compiler on this machine")
exact_heads = pytest.mark.parametrize(
    "exact", [TORCH, pytest.param(COMPILED, marks=with_compiler)], ids=["torch", "compiled"]
)
cpu_backends = pytest.mark.parametrize("backend", ["torch", pytest.param("compiled", marks=with_compiler)])


def inputs(rows=ROWS, padded=PADDED, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, HIDDEN, dtype=dtype, generator=generator)
    weight = torch.randn(padded, HIDDEN, dtype=dtype, generator=generator)
    labels = torch.arange(rows) * 3 % VOCAB
    candidates = torch.stack([(labels + 1) % VOCAB, labels], 1)
    return hidden, weight, labels, candidates


def legal_sets(labels, width=PADDED):
    """Row 0: everything; row 1 + n: the label of row n and the two lowest ids (so that high shards go empty)."""
    table = torch.zeros(1 + len(labels), width, dtype=torch.bool)
    table[0] = True
    for row, label in enumerate(labels.tolist()):
        table[1 + row, [0, 1, label]] = True
    index = torch.arange(1, 1 + len(labels))
    index[0] = 0
    return table, index


def naive(hidden, weight, labels, candidates=None, temperature=1.0, legal=None):
    logits = (hidden @ weight.t() / temperature)[:, :VOCAB]
    if legal is not None:
        logits = logits.masked_fill(~legal[0][legal[1]][:, :VOCAB], -torch.inf)
    logprobs = logits.log_softmax(1)
    entropy = -(logprobs.exp() * logprobs.masked_fill(logprobs == -torch.inf, 0)).sum(1)
    chosen = logprobs.gather(1, labels[:, None])[:, 0]
    return chosen, entropy, None if candidates is None else logprobs.gather(1, candidates)


def weighted(logprobs, entropy, chosen=None):
    """A scalar in which every output has its own weight."""
    total = (logprobs * torch.linspace(-1, 2, len(logprobs))).sum() + (
        entropy * torch.linspace(1, 3, len(entropy))
    ).sum()
    if chosen is None:
        return total
    finite = chosen.masked_fill(chosen == -torch.inf, 0)
    return total + (finite * torch.linspace(-2, 1, chosen.numel()).view_as(chosen)).sum()


def slopes_of_weighted(rows, seen=None):
    """The derivative of `weighted` (times 2) as a caller foretells it, for `rows` rows in all."""

    def slopes(at, figures):
        if seen is not None:
            seen.append((at, figures))
        few = figures.candidate_logprobs
        return LinearLogprob(
            2 * torch.linspace(-1, 2, rows)[at],
            2 * torch.linspace(1, 3, rows)[at],
            None
            if few is None
            else 2 * torch.linspace(-2, 1, rows * few.shape[1]).view(rows, -1)[at].masked_fill(few.isinf(), 0),
        )

    return slopes
