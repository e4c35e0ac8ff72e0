"""Attention over trees by Triton: parity in its interpreter, the tiles, and what the kernels compile to for an H100."""

import importlib.util
from pathlib import Path

import pytest
import torch
from helpers.hopper import compiled
from helpers.interpreter import interpreted

from rlpt.kernels.compiled_attention import Run, Trees
from rlpt.kernels.tree_tiles import TreeTiles

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
WORKER = Path(__file__).parent / "interpreted_trees.py"
CPU = torch.device("cpu")


@needs_triton
def test_trees_equal_the_formula_and_decode_steps(tmp_path):
    found = interpreted(WORKER, tmp_path)
    assert len(found) == 11
    assert not {name: error for name, error in found.items() if error}


def test_tiles_cover_each_query_and_each_key_once_the_most_work_first():
    runs = [Run(0, 0, 70), Run(0, 70, 75, 0), Run(0, 75, 175, 0), Run(1, 2, 9)]
    tiles = TreeTiles.of(Trees.of(runs, 350), CPU)
    assert tiles.queries.dtype == tiles.keys.dtype == torch.int32
    assert tiles.queries.tolist() == [
        [0, 0, 70, 75, 100, 64],
        [0, 0, 70, 70, 5, 0],
        [0, 0, 70, 75, 100, 0],
        [0, 0, 0, 0, 70, 64],
        [0, 0, 0, 0, 70, 0],
        [1, 0, 0, 2, 7, 0],
    ]
    assert tiles.keys.tolist() == [
        [0, 0, 70, 175],
        [0, 64, 70, 175],
        [0, 75, 175, 175],
        [0, 139, 175, 175],
        [1, 2, 9, 9],
        [0, 70, 75, 75],
    ]
    assert not tiles.covers_all
    nothing = TreeTiles.of(Trees.of([], 4), CPU)
    assert nothing.queries.shape == (0, 6)
    assert nothing.keys.shape == (0, 4)


@pytest.mark.parametrize(
    "runs",
    [
        [Run(0, 0, 3), Run(0, 5, 7, 0)],  # a gap
        [Run(0, 0, 3), Run(1, 3, 5, 0)],  # another row
    ],
)
def test_branches_that_do_not_stand_behind_their_stem_are_refused(runs):
    with pytest.raises(AssertionError, match="stem"):
        TreeTiles.of(Trees.of(runs, 20), CPU)


@needs_triton
@pytest.mark.parametrize(
    ("channels", "heads"),
    [(64, 1), *(pytest.param(*key, marks=pytest.mark.slow) for key in ((32, 1), (64, 4), (128, 4)))],
)
def test_the_kernels_compile_for_hopper_without_spills(channels, heads, tmp_path):
    from rlpt.kernels import tree_attention, tree_gradient

    types = dict.fromkeys(("query", "key", "value", "out", "grad", "of_query", "of_key", "of_value"), "*bf16")
    types |= dict.fromkeys(("log_sums", "products"), "*fp32") | {"tiles": "*i32", "unit": "fp32", "scale": "fp32"}
    shapes = {
        tree_attention._tree_attention_kernel: tree_attention.shape(channels, 2),
        tree_gradient._of_queries_kernel: tree_gradient.shape(channels),
        tree_gradient._of_keys_kernel: tree_gradient.shape(channels),
    }
    for kernel, shape in shapes.items():
        constants = {**shape, "HEADS": heads, "D": channels}
        warps, stages = constants.pop("num_warps"), constants.pop("num_stages")
        made, registers, stack, local = compiled(kernel, types, constants, warps, stages, tmp_path)
        assert (stack, local) == (0, 0), f"{kernel.__name__}: {stack} and {local} bytes spilled"
        assert 0 < registers <= 255
        assert "wgmma" in made.asm["ptx"]
        assert made.metadata.shared <= 227 * 1024
