"""The files of each target against those in tests/golden/launch, and what their shell says to a shell and a linter.

After a change on purpose: `python tests/unit/launch/test_targets.py --write`, and look at the difference.
"""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

GOLDEN = Path(__file__).parents[2] / "golden" / "launch"
sys.path.insert(0, str(GOLDEN.parents[1]))

from helpers.launch_specs import FOLDER, OPTIONS, job, render  # noqa: E402

from rlpt.launch.torchrun import Torchrun  # noqa: E402

TARGETS = sorted(OPTIONS)


@pytest.mark.parametrize("target", TARGETS)
def test_files_are_those_that_a_person_has_read(target):
    expected = {path.name: path.read_text() for path in (GOLDEN / target).iterdir()}
    assert render(target) == expected


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("nodes", [1, 2])
def test_shell_parses_and_has_no_lint(target, nodes, tmp_path):
    files = render(target, nodes)
    if "sky.yaml" in files:
        task = yaml.safe_load(files["sky.yaml"])
        files["run.sh"] = f"#!/usr/bin/env bash\n{task['run']}"
    for name, text in files.items():
        if name.endswith((".sh", ".sbatch")):
            path = tmp_path / name
            path.write_text(text)
            subprocess.run(["bash", "-n", path], check=True)
            if shutil.which("shellcheck"):
                subprocess.run(["shellcheck", "--shell=bash", path], check=True)


def test_words_of_a_recipe_reach_the_ranks_as_they_are(tmp_path):
    """Quotes, blanks and dollars of folders and values are no shell."""
    python = tmp_path / "it's $HOME"
    python.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$NCCL_SOCKET_IFNAME" "$@"\n')
    python.chmod(0o755)
    spec = replace(job("torchrun", 1), environment=(("NCCL_SOCKET_IFNAME", "$(id) 'x"),))
    text = Torchrun(python=str(python), workdir=str(tmp_path)).render(spec, FOLDER)["node.sh"]
    (tmp_path / "node.sh").write_text(text)
    done = subprocess.run(["bash", tmp_path / "node.sh"], capture_output=True, text=True, check=True)
    words = done.stdout.splitlines()
    assert words[:4] == ["$(id) 'x", "-m", "rlpt.launcher", "--standalone"]
    assert words[-1] == f"{FOLDER}/config.yaml"


if __name__ == "__main__" and "--write" in sys.argv:
    for name in TARGETS:
        shutil.rmtree(GOLDEN / name, ignore_errors=True)
        (GOLDEN / name).mkdir(parents=True)
        for file, content in render(name).items():
            (GOLDEN / name / file).write_text(content)
