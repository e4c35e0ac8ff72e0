"""The Triton backend: parity in its interpreter, and what the shipped shapes compile to for an H100 or H200."""

import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
WORKER = Path(__file__).parent / "interpreted_head.py"
LAYERS = Path(__file__).parent / "interpreted_layers.py"
FAST = [
    *(f"vocabulary of {v}, logits shifted by {s}" for v in (1, 300, 5000) for s in (0.0, -20.0, 20.0)),
    *("legal sets", "one pass", "one pass with legal sets", "half precision", "no rows"),
    *("two uneven shards", "three shards, one of padding alone"),
]
SLOW = ["vocabulary of 151936", "vocabulary of 262144"]


def interpreted(folder, *words, worker=WORKER):
    """{check: what went wrong}, from a process of its own: the interpreter is chosen when triton is imported."""
    root = Path(__file__).parents[3]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", str(worker), str(folder / "found.json"), *words]
    subprocess.run(command, env=environment, check=True, timeout=600)
    return json.loads((folder / "found.json").read_text())


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return interpreted(tmp_path_factory.mktemp("interpreted"))


@pytest.mark.parametrize("name", FAST)
def test_the_kernels_equal_log_softmax(found, name):
    assert not found[name], found[name]


def test_every_check_has_a_test(found):
    assert sorted(found) == sorted(FAST)


def test_the_kernels_of_a_layer_equal_torch(tmp_path):
    found = interpreted(tmp_path, worker=LAYERS)
    assert len(found) == 17
    assert not {name: error for name, error in found.items() if error}


@pytest.mark.slow
def test_the_kernels_equal_log_softmax_on_the_widest_vocabularies(tmp_path):
    assert interpreted(tmp_path, "slow") == dict.fromkeys(SLOW, "")


POINTERS = {
    "chosen": "*i64", "legal_index": "*i64", "illegal": "*u8", "logits": "*fp32", "parts": "*fp32", "slopes": "*fp32",
    "log_sum": "*fp32", "level": "*fp32", "bend": "*fp32", "inverse_temperature": "fp32",
}  # fmt: skip


def compiled(kernel, types, constants, warps, stages, folder):
    """Of a kernel for compute capability 9.0, without a GPU: what was made, its registers, stack and local bytes."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, attributes = {}, {}
    for place, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
            continue
        signature[name] = types.get(name, "i32")
        if signature[name].startswith("*") or name.endswith(("hidden", "width", "_row", "_at", "_head", "_stride")):
            attributes[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constexprs=constants, attrs=attributes)
    options = {"num_warps": warps, "num_stages": stages}
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    (folder / "kernel.cubin").write_bytes(made.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    command = [tool, "-res-usage", folder / "kernel.cubin"]
    usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return made, *(int(re.search(rf"{key}:(\d+)", usage)[1]) for key in ("REG", "STACK", "LOCAL"))


TYPES = {torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32", None: "*bf16"}


@pytest.mark.parametrize(
    ("dtype", "legal"),
    [
        (torch.bfloat16, False),
        *(pytest.param(*key, marks=pytest.mark.slow) for key in itertools.product(TYPES, (False, True))),
    ],
)
def test_shipped_shapes_compile_for_hopper_without_spills(dtype, legal, tmp_path):
    from rlpt.kernels import triton_head

    tiles, kept = triton_head.SHIPPED[dtype, legal], dtype is None
    types = POINTERS | dict.fromkeys(("x", "w", "out"), TYPES[dtype])
    constants = {"BLOCK_N": tiles.rows, "BLOCK_V": tiles.columns, "BLOCK_H": tiles.inner}
    constants |= {"J": 1, "LEGAL": legal, "KEPT": kept}
    for kernel in (triton_head._statistics_kernel, triton_head._gradient_kernel):
        made, registers, stack, local = compiled(kernel, types, constants, tiles.warps, tiles.stages, tmp_path)
        assert (stack, local) == (0, 0), f"{kernel.__name__} {dtype} legal={legal}: {stack} and {local} bytes spilled"
        assert 0 < registers <= 255
        assert ("wgmma" in made.asm["ptx"]) == (not kept and dtype != torch.float32)
        assert made.metadata.shared <= 227 * 1024


@pytest.mark.slow
@pytest.mark.parametrize("narrow", ["*bf16", "*fp32"])
def test_the_kernels_of_a_layer_compile_for_hopper_without_spills(narrow, tmp_path):
    from rlpt.kernels import decode_attention, layers_triton

    types = dict.fromkeys(("both", "grad", "out", "cos", "sin", "qkv", "keys", "values", "weight"), narrow)
    types |= {"scale": "*fp32", "parts": "*fp32", "x": "*fp32", "epsilon": "fp32"}
    turn = {"HEADS": 16, "PADDED": 16, "HALF": 32, "PADDED_HALF": 32, "ROWS": 16}
    cases = [
        (layers_triton._gate_kernel, {"BLOCK": 1024}, 4),
        (layers_triton._gate_backward_kernel, {"BLOCK": 1024}, 4),
        (layers_triton._turn_kernel, turn, 4),
        *((layers_triton._norm_kernel, shape, shape["num_warps"]) for shape in map(layers_triton._shape, (768, 4096))),
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
        assert registers <= 255


@pytest.mark.slow
@pytest.mark.parametrize("channels", [32, 64, 128])
@pytest.mark.parametrize("count", [64, 1024])
def test_attention_of_whole_texts_compiles_for_hopper_without_spills(channels, count, tmp_path):
    from rlpt.kernels import causal_attention

    types = dict.fromkeys(("query", "key", "value", "out"), "*bf16")
    types |= {"log_sums": "*fp32", "starts": "*i64", "unit": "fp32", "scale": "fp32"}
    constants = causal_attention.shape(count, channels, 2)
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
