"""Preparing a corpus by Slurm jobs: on two nodes, with tasks that fail and tasks that are killed, the same bytes."""

import hashlib
import re
import shlex
import sys

import pytest
from helpers.corpora import SECTIONS, many_parts, spoilt, tree
from helpers.launches import ROOT
from helpers.slurm import MISSING, REASON, local_slurm

from data_prep.config import load_prep_config
from data_prep.pipeline import run

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(bool(MISSING), reason=REASON)]
PATIENCE = 1200  # seconds


@pytest.fixture(scope="module")
def slurm():
    with local_slurm() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """(configuration, the tree that one process makes of it)."""
    folder = tmp_path_factory.mktemp("corpus")
    path = many_parts(folder, **SECTIONS)
    run("all", load_prep_config(path, [f"output={folder / 'one'}"]), 1)
    return path, tree(folder / "one")


@pytest.fixture(scope="module")
def launch(slurm, tmp_path_factory):
    """The launch script, in an environment that needs no installation; the ids of the jobs by phase."""
    venv = tmp_path_factory.mktemp("venv")
    (venv / "bin").mkdir()
    (venv / "bin" / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    (venv / "bin" / "python").chmod(0o755)
    installed = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    (venv / "rlpt-install.sha256").write_text(installed + "\n")

    def submit(*arguments):
        done = slurm.run("bash", "launch/data_prep.sbatch", *arguments, environment={"RLPT_VENV": str(venv)})
        return dict(re.findall(r"^(\w+): job (\d+), ", done.stdout, re.MULTILINE))

    return submit


def states(tasks):
    return {task.state for task in tasks.values()}


def logs(out):
    """What the tasks have printed."""
    found = sorted(out.with_name(f"{out.name}-logs").rglob("*"))
    return "\n".join(path.read_text() for path in found if path.suffix in (".log", ".out"))


def test_the_launch_script_gives_the_bytes_of_one_process(slurm, corpus, launch, tmp_path):
    path, wanted = corpus
    jobs = launch(path, 3, f"output={tmp_path / 'out'}", "name=tiny")
    done = slurm.wait(*jobs.values(), timeout=PATIENCE)
    assert states(done) == {"COMPLETED"}, logs(tmp_path / "out")
    assert {task.node for task in done.values()} == {"n0", "n1"}
    assert [*jobs][:2] == ["ingest", "synthesize"]
    assert sum(name.startswith(f"{jobs['encode']}_") for name in done) == 3
    assert sum(name.startswith(f"{jobs['tokenizer']}_") for name in done) == 1
    assert tree(tmp_path / "out") == wanted
    assert "encode 2/3: done" in logs(tmp_path / "out")


def test_a_task_that_is_cancelled_ends_the_chain_and_a_second_submission_goes_on(slurm, corpus, launch, tmp_path):
    path, wanted = corpus
    arguments = path, 3, f"output={tmp_path / 'out'}"
    jobs = launch(*arguments)
    victim = f"{jobs['split']}_1"

    def running():
        found = slurm.tasks(jobs["split"])
        return victim in found and found[victim].state == "RUNNING"

    slurm.until(running, f"{victim} runs", PATIENCE)
    slurm.run("scancel", "--signal=KILL", "--full", victim)
    done = slurm.wait(*jobs.values(), timeout=PATIENCE)
    assert done[victim].state != "COMPLETED"
    assert states({name: task for name, task in done.items() if name.startswith(f"{jobs['merge']}_")}) == {"CANCELLED"}
    assert not (tmp_path / "out" / "manifest.json").exists()
    again = launch(*arguments)
    assert states(slurm.wait(*again.values(), timeout=PATIENCE)) == {"COMPLETED"}, logs(tmp_path / "out")
    assert tree(tmp_path / "out") == wanted
    assert "ingest 0/3: up to date" in logs(tmp_path / "out")


def test_datatrove_gives_the_same_bytes_once_a_bad_file_is_mended(slurm, corpus, tmp_path):
    pytest.importorskip("datatrove")
    path, wanted = corpus
    command = [sys.executable, "-m", "data_prep", "all", path, f"output={tmp_path / 'out'}", "--executor", "slurm"]
    command += ["--tasks", "3", "--option", "partition=main", "--option", "time=1:00:00"]
    with spoilt(path.parent / "text" / "30.txt") as bad:
        shown = slurm.run(*command).stdout
        jobs = re.findall(r"^(\w+): job (\d+), ", shown, re.MULTILINE)
        done = slurm.wait(timeout=PATIENCE)
    ingest = {name: task for name, task in done.items() if name.startswith(f"{jobs[0][1]}_")}
    assert sorted((task.state, task.exit_code) for task in ingest.values()) == [
        ("COMPLETED", 0),
        ("COMPLETED", 0),
        ("FAILED", 3),
    ]
    told = logs(tmp_path / "out")
    assert re.search(rf"ERROR.*ingest \d/3: {re.escape(str(bad))}:2: ", told)
    assert "Traceback" not in told
    assert {slurm.tasks(job)[name].state for _, job in jobs[1:] for name in slurm.tasks(job)} == {"CANCELLED"}
    again = re.findall(r": job (\d+), ", slurm.run(*command).stdout)
    assert states(slurm.wait(*again, timeout=PATIENCE)) == {"COMPLETED"}, logs(tmp_path / "out")
    assert tree(tmp_path / "out") == wanted
