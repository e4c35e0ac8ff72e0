"""Compiled attention of packed rows against the formula in float64, values and gradients."""

import pytest
import torch
from helpers.runs_of_trees import allowed_in

from rlpt.kernels import compiler
from rlpt.kernels.compiled_attention import Run, Trees, can_compile, compiled_attention
from rlpt.models.attention import Layout

pytestmark = pytest.mark.skipif(compiler.compiler() is None, reason="no C++ compiler on this machine")

# Rows of 240 positions: a stem with branches of 1 to 130 tokens, a run alone, a stem with one branch, padding; and one
# run with padding before and behind it.
FOREST = [
    *(Run(0, 0, 9), Run(0, 9, 13, 0), Run(0, 13, 143, 0), Run(0, 143, 144, 0), Run(0, 144, 176, 0)),
    *(Run(0, 176, 178), Run(0, 178, 211), Run(0, 211, 235, 6)),
    Run(1, 3, 237),
]


def turned(x, cos, sin):
    """x [T, B, G, h, d] by the angles of [T, B, 1, d / 2]."""
    first, second = x.chunk(2, -1)
    cos, sin = cos[:, :, None], sin[:, :, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def by_formula(mixed, cos, sin, runs):
    length, rows, _, _, head = mixed.shape
    queries, keys = turned(mixed[..., :-2, :], cos, sin), turned(mixed[..., -2:-1, :], cos, sin)[..., 0, :]
    scores = torch.einsum("qbghd,kbgd->bghqk", queries, keys) / head**0.5
    allowed = allowed_in(runs, rows, length)[:, None, None]
    weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1).nan_to_num()
    return torch.einsum("bghqk,kbgd->qbghd", weights, mixed[..., -1, :]).flatten(2)


def drawn(length, rows, groups, heads, head, seed=0):
    """mixed, with gradient, cos and sin in float64."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(length, rows, groups, heads + 2, head, generator=generator, dtype=torch.float64)
    angles = torch.rand(length, rows, 1, head // 2, generator=generator, dtype=torch.float64) * 6
    return mixed.requires_grad_(), angles.cos(), angles.sin()


@pytest.mark.parametrize("scale", [1, 30], ids=["plain", "peaked"])
@pytest.mark.parametrize(("groups", "heads", "head"), [(2, 2, 32), (1, 4, 64), (3, 1, 40), (1, 2, 6), (4, 3, 80)])
def test_branches_attend_to_their_stem_and_themselves(groups, heads, head, scale):
    mixed, cos, sin = drawn(240, 2, groups, heads, head)
    mixed = (mixed.detach() * scale**0.5).requires_grad_()
    wanted = by_formula(mixed, cos, sin, FOREST)
    seed = torch.randn(wanted.shape, dtype=torch.float64)  # where padding stands too: nothing comes of it
    (wanted_grad,) = torch.autograd.grad((wanted * seed).sum(), mixed)
    narrow = mixed.detach().float().requires_grad_()
    assert can_compile(narrow)
    trees = Trees.of(FOREST, 2 * 240)
    assert trees.starts.tolist() == [0, 5, 6, 8, 9]
    found = compiled_attention(narrow, cos.float(), sin.float(), trees)
    (grad,) = torch.autograd.grad((found * seed.float()).sum(), narrow)
    assert (found - wanted).abs().max() < 2e-6 * scale * wanted.abs().max()
    assert (grad - wanted_grad).abs().max() < 2e-6 * scale * wanted_grad.abs().max()


def test_a_run_longer_than_the_scores_that_are_kept():
    runs = [Run(0, 0, 2500), Run(0, 2500, 2600, 0)]
    mixed, cos, sin = drawn(2600, 1, 1, 1, 4)
    wanted = by_formula(mixed, cos, sin, runs)
    (wanted_grad,) = torch.autograd.grad(wanted.square().sum(), mixed)
    narrow = mixed.detach().float().requires_grad_()
    found = compiled_attention(narrow, cos.float(), sin.float(), Trees.of(runs, 2600))
    (grad,) = torch.autograd.grad(found.square().sum(), narrow)
    assert (found - wanted).abs().max() < 1e-5
    assert (grad - wanted_grad).abs().max() < 1e-5 * wanted_grad.abs().max()


def test_a_branch_is_the_same_to_the_last_bit_whatever_stands_beside_it():
    mixed, cos, sin = (x.detach().float() for x in drawn(240, 2, 2, 2, 32))
    whole = compiled_attention(mixed, cos, sin, Trees.of(FOREST, 480))
    pair = [Run(0, 178, 211), Run(0, 211, 235, 0)]
    alone = compiled_attention(mixed[:, :1], cos[:, :1].contiguous(), sin[:, :1].contiguous(), Trees.of(pair, 240))
    assert torch.equal(alone[178:235, 0], whole[178:235, 0])
    assert not alone[:178].any()
    assert not alone[235:].any()


def test_a_layout_names_the_runs_of_its_segments():
    segments = torch.tensor([[0, 0, 1, 1, 2, -1], [5, 5, 5, 5, 6, 6]])
    parents = torch.tensor([[-1, -1, 0, 0, 0, -1], [-1, -1, -1, -1, 5, 5]])
    frequencies, positions = torch.ones(2), torch.zeros(2, 6, dtype=torch.int64)
    trees = Layout.of(frequencies, positions, segments, parents, torch.float32).trees
    runs = [Run(0, 0, 2), Run(0, 2, 4, 0), Run(0, 4, 5, 0), Run(1, 0, 4), Run(1, 4, 6, 3)]
    assert trees is not None
    assert trees.runs.tolist() == [list(run) for run in runs]
    assert trees.starts.tolist() == [0, 3, 5]
    assert not trees.covers_all
    whole = Layout.of(frequencies, positions, None, None, torch.float32).trees
    assert whole is not None
    assert whole.runs.tolist() == [[0, 0, 6, -1], [1, 0, 6, -1]]
    assert whole.covers_all
    assert Layout.of(frequencies, positions, None, None, torch.float64).trees is None
    assert Layout.of(frequencies, positions, segments, parents, torch.float32, may_compile=False).trees is None


def test_a_run_goes_on_from_its_own_tree_only():
    apart = [Run(0, 0, 2), Run(0, 2, 4), Run(0, 4, 6, 0)]
    for runs in (apart, [Run(0, 0, 2, 0)], [Run(0, 0, 2), Run(0, 2, 4, 1)]):
        with pytest.raises(AssertionError, match="another tree"):
            Trees.of(runs, 6)
