"""Shares by datatrove's executors, on this machine: the same bytes, errors in one line, options that are checked."""

import os
import subprocess
import sys

import pytest
from helpers.corpora import SECTIONS, many_parts, spoilt, tree, write_config
from typer.testing import CliRunner

from data_prep import __main__ as command_line
from data_prep.config import load_prep_config
from data_prep.folder_lock import locked
from data_prep.pipeline import STAGES, Share, phases_to_do, run, run_stages
from data_prep.plan import Plan
from data_prep.work import Workers
from rlpt.errors import DataError


def invoke(*arguments):
    return CliRunner().invoke(command_line.app, [str(argument) for argument in arguments])


def local(stage, path, *options):
    """By datatrove, in processes that are forked: spawned ones import everything anew for each phase."""
    pytest.importorskip("datatrove")
    command = [sys.executable, "-m", "data_prep", stage, str(path), "--executor", "local", "--tasks", "3", *options]
    return subprocess.run([*command, "--option", "start_method=fork"], capture_output=True, text=True, timeout=600)


def test_local_tasks_give_the_bytes_of_one_process_once_a_bad_file_is_mended(tmp_path):
    path = many_parts(tmp_path)
    run("all", load_prep_config(path, [f"output={tmp_path / 'one'}"]), 1)
    with spoilt(tmp_path / "text" / "30.txt") as bad:
        failed = local("all", path)
    assert failed.returncode == 3
    assert failed.stderr.splitlines()[-1].startswith(f"error: {bad}:2: ")
    assert "Traceback" not in failed.stderr
    done = local("all", path)
    assert done.returncode == 0, done.stderr
    assert "ingest 0/3: done" in failed.stderr + done.stderr
    assert "encode 2/3: done" in done.stderr
    assert "datatrove" not in done.stderr
    assert tree(tmp_path / "out") == tree(tmp_path / "one")
    assert len(list((tmp_path / "out-logs").iterdir())) == 2
    assert [*(tmp_path / "out-logs").rglob("task_00000.log")]


def test_wrong_options_are_named(tmp_path, monkeypatch):
    pytest.importorskip("datatrove")
    path = write_config(tmp_path)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    for executor, options, message in [
        ("slrum", [], "--executor slrum: unknown; did you mean 'slurm'?"),
        ("local", ["wrokers=2"], "--option wrokers: unknown to --executor local; did you mean 'workers'?"),
        ("local", ["pipeline=x"], "--option pipeline: unknown to --executor local"),
        ("local", ["workers"], "--option workers: write KEY=VALUE, e.g. partition=cpu"),
        ("slurm", ["partition=cpu"], "--executor slurm needs --option time=..."),
        ("slurm", ["partition=cpu", "time=1:00:00", "memory=2"], "--option memory: unknown to --executor slurm"),
    ]:
        result = invoke("all", path, "--executor", executor, *(word for one in options for word in ("--option", one)))
        assert (result.exit_code, message in result.output) == (2, True), result.output
    assert not (tmp_path / "out").exists()


def test_sbatch_is_given_what_the_options_say(tmp_path):
    """A time is text, not YAML's number of base 60; a script in place of sbatch shows what it would have been given."""
    pytest.importorskip("datatrove")
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "sbatch"
    fake.write_text(
        f'#!/bin/sh\nfor script; do :; done\ncat "$script" >> {tmp_path}/scripts\n'
        f'echo "$*" >> {tmp_path}/arguments\necho Submitted batch job 7\n'
    )
    fake.chmod(0o755)
    command = [sys.executable, "-m", "data_prep", "dedup", str(many_parts(tmp_path, **SECTIONS)), "--executor", "slurm"]
    for option in ("partition=cpu", "time=4:00:00", "mem_per_cpu_gb=3", "sbatch_args.account=us"):
        command += ["--option", option]
    environment = os.environ | {"PATH": f"{fake.parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["sign: job 7, 16 tasks", "dedup: job 7, 16 tasks"]
    script = (tmp_path / "scripts").read_text()
    lines = "time=4:00:00 partition=cpu mem-per-cpu=3G account=us array=0-15 kill-on-invalid-dep=yes"
    for line in lines.split():
        assert f"#SBATCH --{line}\n" in script
    assert "--qos" not in script
    assert "--dependency=afterok:7" in (tmp_path / "arguments").read_text()
    fake.write_text("#!/bin/sh\necho sbatch: error: invalid partition specified >&2\nexit 1\n")
    refused = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert refused.returncode == 2
    assert "invalid partition specified\nerror: --executor slurm: sbatch refused sign" in refused.stderr


def test_without_datatrove_the_extra_is_named(tmp_path, monkeypatch):
    path = write_config(tmp_path)
    monkeypatch.setitem(sys.modules, "datatrove.executor.local", None)
    monkeypatch.setitem(sys.modules, "ray", None)
    for executor, extra in (("local", "cluster"), ("ray", "ray")):
        result = invoke("all", path, "--executor", executor)
        assert (result.exit_code, f"pip install 'rlpt[{extra}]'" in result.output) == (3, True), result.output


def test_what_can_be_seen_to_be_wrong_is_told_before_anything_is_submitted(tmp_path):
    path = write_config(tmp_path)
    for override, code, message in [
        ("sources.0.paths=[nowhere]", 3, "'nowhere' matches no"),
        ("synthesize.tasks.0.levels=[99]", 2, "99 is outside"),
    ]:
        result = invoke("phases", path, override)
        assert (result.exit_code, message in result.output) == (code, True), result.output


def test_phases_are_those_that_have_work(tmp_path):
    path = many_parts(tmp_path)
    for sections in ([], ["clean.unicode=NFC", "dedup.near=true"], ["synthesize.tasks=[]"]):
        config = load_prep_config(path, sections)
        plan = Plan(config, config.directory)
        with Workers(1) as workers:
            run_stages(plan, tuple(STAGES), workers, Share())
        counts = {name: len(stage.units(plan)) for name, stage in STAGES.items()}
        phases = phases_to_do("all", config, 5)
        assert [name for name, _ in phases] == [name for name, count in counts.items() if count]
        assert {counts[name] for name, tasks in phases if tasks == 1} == {1}
    shown = invoke("phases", path, "--tasks", "5")
    assert shown.output.splitlines()[0] == f"ingest 5 {tmp_path}/out-logs/ingest"
    assert shown.output.splitlines()[-1] == f"manifest 1 {tmp_path}/out-logs/manifest"


def test_shares_of_two_configurations_do_not_meet_in_a_folder(tmp_path):
    with locked(tmp_path, "first"), locked(tmp_path, "first"):
        with pytest.raises(DataError, match="at work here with another configuration"), locked(tmp_path, "second"):
            pass
        with pytest.raises(DataError, match="another data_prep is at work here"), locked(tmp_path):
            pass
    (tmp_path / "half.tmp").write_text("")
    with locked(tmp_path, "second"):
        assert (tmp_path / "half.tmp").exists()
    with locked(tmp_path):
        assert not (tmp_path / "half.tmp").exists()
