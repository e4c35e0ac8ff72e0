"""The Triton backend: parity in its interpreter, and what the shipped shapes compile to for an H100 or H200."""

import importlib.util
import itertools
from pathlib import Path

import pytest
import torch
from helpers.hopper import compiled
from helpers.interpreter import interpreted

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
WORKER = Path(__file__).parent / "interpreted_head.py"
LAYERS = Path(__file__).parent / "interpreted_layers.py"
DRAW = Path(__file__).parent / "interpreted_draw.py"
DECODING = Path(__file__).parent / "interpreted_decoding.py"
FAST = [
    *(f"vocabulary of {v}, logits shifted by {s}" for v in (1, 300, 5000) for s in (0.0, -20.0, 20.0)),
    *("legal sets", "one pass", "one pass with legal sets", "half precision", "no rows", "one pass without rows"),
    *("one pass waits for nothing", "one pass foretold wrongly, or used twice", "one pass of splits"),
    *("one pass, loss times a factor", "one pass in half precision"),
    *("one buffer", "one buffer in half precision", "several buffers", "several buffers in half precision"),
    *("a buffer for each chunk, legal sets", "several buffers, hidden alone", "several buffers, weight alone"),
    *("two uneven shards", "three shards, one of padding alone", "two ranks and one of padding alone"),
]
SLOW = [f"vocabulary of {size}{way}" for size in (151_936, 262_144) for way in ("", ", one pass")]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return interpreted(WORKER, tmp_path_factory.mktemp("interpreted"))


@pytest.mark.parametrize("name", FAST)
def test_the_kernels_equal_log_softmax(found, name):
    assert not found[name], found[name]


def test_every_check_has_a_test(found):
    assert sorted(found) == sorted(FAST)


def test_the_kernels_of_a_layer_equal_torch(tmp_path):
    found = interpreted(LAYERS, tmp_path)
    assert len(found) == 17
    assert not {name: error for name, error in found.items() if error}


def test_the_kernels_that_draw_do_as_torch_does(tmp_path):
    found = interpreted(DRAW, tmp_path)
    assert len(found) == 11
    assert not {name: error for name, error in found.items() if error}


def test_a_generator_of_kernels_draws_what_torchs_draws(tmp_path):
    """Slots that are filled again, and sessions, which go on from texts at rest."""
    found = interpreted(DECODING, tmp_path)
    assert found == {"all slots": "", "three slots": "", "a session": ""}


@pytest.mark.slow
def test_the_kernels_equal_log_softmax_on_the_widest_vocabularies(tmp_path):
    assert interpreted(WORKER, tmp_path, "slow") == dict.fromkeys(SLOW, "")


POINTERS = {
    "chosen": "*i64", "legal_index": "*i64", "illegal": "*u8", "logits": "*fp32", "parts": "*fp32", "slopes": "*fp32",
    "log_sum": "*fp32", "level": "*fp32", "bend": "*fp32", "inverse_temperature": "fp32",
}  # fmt: skip


TYPES = {torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32"}


@pytest.mark.parametrize(
    ("dtype", "legal"),
    [
        (torch.bfloat16, False),
        *(pytest.param(*key, marks=pytest.mark.slow) for key in itertools.product(TYPES, (False, True))),
    ],
)
def test_shipped_shapes_compile_for_hopper_without_spills(dtype, legal, tmp_path):
    from rlpt.kernels import triton_head

    tiles = triton_head.SHIPPED[dtype, legal]
    types = POINTERS | dict.fromkeys(("x", "w", "out"), TYPES[dtype])
    constants = {"BLOCK_N": tiles.rows, "BLOCK_V": tiles.columns, "BLOCK_H": tiles.inner}
    constants |= {"J": 1, "LEGAL": legal}
    for kernel in (triton_head._statistics_kernel, triton_head._gradient_kernel):
        made, registers, stack, local = compiled(kernel, types, constants, tiles.warps, tiles.stages, tmp_path)
        assert (stack, local) == (0, 0), f"{kernel.__name__} {dtype} legal={legal}: {stack} and {local} bytes spilled"
        assert 0 < registers <= 255
        assert ("wgmma" in made.asm["ptx"]) == (dtype != torch.float32)
        assert made.metadata.shared <= 227 * 1024


@pytest.mark.parametrize("legal", [False, True])
def test_the_passes_of_one_pass_compile_for_hopper_without_spills(legal, tmp_path):
    """Each load of logits is of 16 bytes a thread, and the statistics' lanes do not meet in their loop."""
    from rlpt.kernels import triton_one_pass

    shipped = triton_one_pass.SHIPPED
    types = POINTERS | {"held": "*bf16", "entropy": "*fp32", "merged": "*fp32", "ids": "*i64"}
    shapes = {
        triton_one_pass._statistics_kernel: {"R": shipped.repeats, "LANES": shipped.lanes},
        triton_one_pass._gradient_kernel: {"COLUMNS": shipped.columns},
    }
    for kernel, shape in shapes.items():
        constants = {"J": 1, "LEGAL": legal} | shape
        made, registers, stack, local = compiled(kernel, types, constants, shipped.warps, 3, tmp_path)
        assert (stack, local) == (0, 0), f"{kernel.__name__} legal={legal}: {stack} and {local} bytes spilled"
        assert 0 < registers <= 128, "fewer than four programs on a multiprocessor"
        assert "ld.global.v4.b32" in made.asm["ptx"]
    types["chosen"] = "*fp32"
    for whole in (False, True):
        merge = {"J": 1, "PARTS": 4, "ROWS": 32, "FIGURES": whole}
        _, _, stack, local = compiled(triton_one_pass._finish_kernel, types, merge, 1, 3, tmp_path)
        assert (stack, local) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("narrow", ["*bf16", "*fp32"])
def test_the_kernels_of_a_layer_compile_for_hopper_without_spills(narrow, tmp_path):
    from rlpt.kernels import decode_attention, layers_triton

    types = dict.fromkeys(("both", "grad", "out", "cos", "sin", "qkv", "keys", "values", "weight"), narrow)
    types |= {"scale": "*fp32", "parts": "*fp32", "x": "*fp32", "epsilon": "fp32", "total": "*fp32", "more": narrow}
    turn = {"HEADS": 16, "PADDED": 16, "HALF": 32, "PADDED_HALF": 32, "ROWS": 16}
    cases = [
        (layers_triton._gate_kernel, {"BLOCK": 1024}, 4),
        (layers_triton._gate_backward_kernel, {"BLOCK": 1024}, 4),
        (layers_triton._turn_kernel, turn, 4),
        *(
            (kernel, shape, shape["num_warps"])
            for kernel in (layers_triton._norm_kernel, layers_triton._add_norm_kernel)
            for shape in map(layers_triton._shape, (768, 4096))
        ),
        *(
            (layers_triton._norm_backward_kernel, one, one["num_warps"])
            for one in map(layers_triton._shape, (768, 4096))
        ),
    ]
    for kernel, constants, warps in cases:
        constants = {name: value for name, value in constants.items() if name != "num_warps"}
        _, registers, stack, local = compiled(kernel, types, constants, warps, 3, tmp_path)
        assert (stack, local) == (0, 0), f"{kernel.__name__} {constants}"
    types |= {"lengths": "*i64", "slot_stride": "i64", "unit": "fp32"}
    for heads, channels in ((1, 64), (4, 64), (8, 128)):
        constants = {"GROUPS": 12, "HEADS": heads, "PADDED_HEADS": 16, "D": channels}
        constants |= decode_attention.shape(channels, 2 if narrow == "*bf16" else 4)
        warps, stages = constants.pop("num_warps"), constants.pop("num_stages")
        _, registers, stack, local = compiled(
            decode_attention._decode_attention_kernel, types, constants, warps, stages, tmp_path
        )
        assert (stack, local) == (0, 0), f"{heads} heads, {channels} channels"
        four = narrow == "*bf16" and channels == 64  # programs on a multiprocessor
        assert registers <= (128 if four else 255)


@pytest.mark.parametrize("legal", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_kernels_that_draw_compile_for_hopper_without_spills(legal, tmp_path):
    from rlpt.kernels import token_draw

    types = dict.fromkeys(("places", "words", "tokens", "lengths"), "*i64") | {"logits": "*fp32", "legal": "*u8"}
    types |= {"temperature": "*fp32", "parts": "*fp64", "told": "*fp64"}
    for columns in (512, 50304):
        shape = token_draw.tile_shape(columns)
        warps, tiles = shape.pop("num_warps"), -(-columns // shape["TILE"])
        constants = shape | {"WORDS": token_draw.WORDS, "LEGAL": legal}
        more = {"TILES": 1 << (tiles - 1).bit_length()}
        for kernel, own in ((token_draw._tiles_kernel, {}), (token_draw._draw_kernel, more)):
            _, registers, stack, local = compiled(kernel, types, constants | own, warps, 3, tmp_path)
            assert (stack, local) == (0, 0), f"{kernel.__name__} of {columns} columns"
            assert 0 < registers <= 255


@pytest.mark.slow
@pytest.mark.parametrize("channels", [32, 64, 128])
def test_attention_of_whole_texts_compiles_for_hopper_without_spills(channels, tmp_path):
    from rlpt.kernels import causal_attention

    types = dict.fromkeys(("query", "key", "value", "out"), "*bf16")
    types |= {"starts": "*i64", "unit": "fp32"}
    constants = causal_attention.shape(channels, 2)
    warps, stages = constants.pop("num_warps"), constants.pop("num_stages")
    for starts in (False, True):
        made, _, stack, local = compiled(
            causal_attention._causal_attention_kernel,
            types,
            {**constants, "HEADS": 1, "STARTS": starts, "D": channels},
            warps,
            stages,
            tmp_path,
        )
        assert (stack, local) == (0, 0), f"{channels} channels: {stack} and {local} bytes spilled"
        assert "wgmma" in made.asm["ptx"]
        assert made.metadata.shared <= 227 * 1024
