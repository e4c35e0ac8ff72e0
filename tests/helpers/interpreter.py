"""Runs checks of Triton kernels without a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def interpreted(worker, folder, *words):
    """{check: what went wrong} that `worker` writes into the file which it is given, from a process of its own: the
    interpreter is chosen when triton is imported."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (TESTS.parent, TESTS)))
    command = [sys.executable, "-W", "ignore", str(worker), str(folder / "found.json"), *words]
    subprocess.run(command, env=environment, check=True, timeout=600)
    return json.loads((folder / "found.json").read_text())


def write_errors(checks, path):
    """A worker's end: `checks` are {name: (what gives an error, its bound)}."""
    import torch  # here: what starts a worker needs none

    found = {}
    for name, (check, bound) in checks.items():
        torch.manual_seed(0)
        error = check()
        found[name] = "" if error <= bound else f"off by {error:.1e}, bound {bound:.0e}"
    Path(path).write_text(json.dumps(found))
