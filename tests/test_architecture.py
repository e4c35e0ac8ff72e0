"""The shape of the tree, enforced: who imports whom, walls, sizes. It holds for any part of the tree that exists."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROW0 = {"rlpt", "errors", "registry", "types", "template", "config", "config_files", "config_objectives", "batch"}
TASKS = {"tasks", "rewards", "search", "selfplay"}
ROW2 = ROW0 | TASKS | {"kernels", "distributed"}
ROW3 = ROW2 | {"models", "data", "algorithms"}
ROW4 = ROW3 | {"rollout", "evaluation"}
ROW5 = ROW4 | {"training"}
MAY_IMPORT = {  # unit -> units beyond its own
    **dict.fromkeys(ROW0, ROW0),
    "tasks": ROW0,
    "rewards": ROW0 | {"tasks"},
    "search": ROW0 | {"tasks", "rewards"},
    "selfplay": ROW0 | {"tasks", "rewards", "search"},
    **dict.fromkeys(("kernels", "distributed"), ROW0),
    **dict.fromkeys(("models", "data", "algorithms"), ROW2),
    **dict.fromkeys(("rollout", "evaluation"), ROW3),
    "training": ROW4,
    **dict.fromkeys(("report", "planning"), ROW5),
    "bench": ROW5 | {"report"},
    "launch": ROW0,
    "entries": ROW5 | {"report", "bench", "launch", "planning", "doctor"},
    "doctor": ROW5 | {"entries"},
    "data_prep": ROW0 | TASKS | {"data"},
}
TORCH_FREE = (ROW0 - {"batch"}) | TASKS
WALL = re.compile(
    r"rlpt/(distributed/|models/|data/indexed\.py|training/(step|optimizer|checkpoint_weights)\.py|bench/(step|decode)_megatron\.py)"
)
DOOR = {"rlpt/distributed/device.py", "rlpt/kernels/hardware.py"}
# Upstream's own spelling at upstream's border.
UPSTREAM = re.compile("model_parallel_cuda_manual_seed|(create|use)_gloo_process_groups")

FILES = sorted(p for top in ("rlpt", "data_prep") for p in (ROOT / top).rglob("*.py"))
PATHS = [str(p.relative_to(ROOT)) for p in FILES]
MODULES = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in PATHS}
TREES = {path: ast.parse((ROOT / path).read_text(encoding="utf-8")) for path in PATHS}


def unit(module: str) -> str:
    """The row-table name of a module of ours."""
    top, *rest = module.split(".")
    if top == "data_prep" or not rest:
        return top
    return rest[0] if rest[0] in MAY_IMPORT or (ROOT / top / rest[0]).is_dir() else "entries"


def imports(module: str) -> set[str]:
    """Dotted names that a module imports anywhere, also inside functions; submodules as such."""
    path, found = MODULES[module], set()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".") if path.endswith("__init__.py") else module.split(".")[:-1]
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found |= {sub if (sub := f"{name}.{alias.name}") in MODULES else name for alias in node.names}
    return found - {module}


@pytest.mark.parametrize("module", MODULES)
def test_imports_come_from_rows_above(module):
    mine = unit(module)
    assert mine in MAY_IMPORT, f"{module}: package '{mine}' is in no row"
    ours = {name for name in imports(module) if name.split(".")[0] in ("rlpt", "data_prep")}
    wrong = sorted(name for name in ours if unit(name) != mine and unit(name) not in MAY_IMPORT[mine])
    assert not wrong, f"{module} ({mine}) must not import {wrong}"
    outside = {name.split(".")[0] for name in imports(module)}
    assert "megatron" not in outside or WALL.match(MODULES[module]), f"{module}: megatron is behind a wall"
    if mine in TORCH_FREE:
        assert not outside & {"torch", "megatron", "transformers"}, f"{module} must stay free of torch"


def test_no_import_cycle():
    try:
        list(TopologicalSorter({module: imports(module) for module in MODULES}).static_order())
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("path", PATHS)
def test_file_is_small_documented_and_device_blind(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    assert ast.get_docstring(TREES[path]), f"{path}: no module docstring"
    assert text.count("\n") <= 400, f"{path}: over 400 lines"
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= 80, f"{path}:{node.lineno}: {node.name} has {lines} lines, over 80"
    if path not in DOOR:
        ours = UPSTREAM.sub("", text) if WALL.match(path) else text
        words = [
            f"{path}:{n}" for n, line in enumerate(ours.splitlines(), 1) if re.search("cuda|nccl|gloo", line, re.I)
        ]
        assert not words, f"hardware words outside the door: {words}"


def test_torch_free_half_loads_without_torch():
    present = sorted(m for m in MODULES if unit(m) in TORCH_FREE)
    code = (
        f"import sys, importlib; [importlib.import_module(m) for m in {present!r}]; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
