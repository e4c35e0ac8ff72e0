"""The task that the README shows: at most 40 lines, and the contract suite covers it by itself."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN = """
import importlib.util, sys, pytest
spec = importlib.util.spec_from_file_location("complement", sys.argv[1])
sys.modules["complement"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "tests/contracts/test_tasks.py", "-k", "complement"]))
"""


def test_the_readme_s_task_meets_the_contract(tmp_path):
    text = (ROOT / "README.md").read_text()
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.S) if '@register("task"' in block]
    assert code.count("\n") <= 40
    path = tmp_path / "complement.py"
    path.write_text(code)
    run = subprocess.run([sys.executable, "-c", RUN, path], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count(".") >= 10, "the suite has met it"
    subprocess.run([sys.executable, "-m", "ruff", "check", "--line-length", "120", path], check=True)
