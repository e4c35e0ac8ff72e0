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
FAST = [
    *(f"vocabulary of {v}, logits shifted by {s}" for v in (1, 300, 5000) for s in (0.0, -20.0, 20.0)),
    *("legal sets", "one pass", "one pass with legal sets", "half precision", "no rows"),
    *("two uneven shards", "three shards, one of padding alone"),
]
SLOW = ["vocabulary of 151936", "vocabulary of 262144"]


def interpreted(folder, *words):
    """{check: what went wrong}, from a process of its own: the interpreter is chosen when triton is imported."""
    root = Path(__file__).parents[3]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", str(WORKER), str(folder / "found.json"), *words]
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


@pytest.mark.slow
def test_the_kernels_equal_log_softmax_on_the_widest_vocabularies(tmp_path):
    assert interpreted(tmp_path, "slow") == dict.fromkeys(SLOW, "")


POINTERS = {
    "chosen": "*i64", "legal_index": "*i64", "illegal": "*u8", "logits": "*fp32", "parts": "*fp32", "slopes": "*fp32",
    "log_sum": "*fp32", "level": "*fp32", "bend": "*fp32", "inverse_temperature": "fp32",
}  # fmt: skip


def compiled(kernel, dtype, tiles, **constants):
    """(registers, stack bytes, PTX) of a kernel for compute capability 9.0, without a GPU."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants |= {"BLOCK_N": tiles.rows, "BLOCK_V": tiles.columns, "BLOCK_H": tiles.inner}
    signature, attributes = {}, {}
    for place, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
            continue
        signature[name] = dtype if name in ("x", "w", "out") else POINTERS.get(name, "i32")
        if signature[name].startswith("*") or name == "hidden":
            attributes[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constexprs=constants, attrs=attributes)
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    folder = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    return made, folder / "cuobjdump"


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
    for kernel in (triton_head._statistics_kernel, triton_head._gradient_kernel):
        made, tool = compiled(kernel, TYPES[dtype], tiles, J=1, LEGAL=legal, KEPT=kept)
        path = tmp_path / "kernel.cubin"
        path.write_bytes(made.asm["cubin"])
        usage = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True, check=True).stdout
        registers, stack, local = (int(re.search(rf"{key}:(\d+)", usage)[1]) for key in ("REG", "STACK", "LOCAL"))
        assert (stack, local) == (0, 0), f"{kernel.__name__} {dtype} legal={legal}: {usage}"
        assert 0 < registers <= 255
        assert ("wgmma" in made.asm["ptx"]) == (not kept and dtype != torch.float32)
        assert made.metadata.shared <= 227 * 1024
