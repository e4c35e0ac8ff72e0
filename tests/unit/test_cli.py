"""The command line as a user meets it: help, errors, dry runs, launching."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from helpers.runs import SMALL, write_run

from rlpt.config_reference import describe_keys
from rlpt.errors import ConfigError
from rlpt.launcher import launch, shell_code

ROOT = Path(__file__).parents[2]
VERBS = ["train", "evaluate", "experiment", "report", "config"]
HEAVY = ("torch", "megatron", "transformers", "datasets", "wandb", "triton", "matplotlib", "sentencepiece")

# Runs the command line with an import hook that refuses every heavy package.
BLOCKED = textwrap.dedent(f"""
    import sys
    class Refuse:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in {HEAVY!r}:
                raise ImportError(f"{{name}} must not be imported here")
    sys.meta_path.insert(0, Refuse())
    from rlpt.__main__ import main
    for command in sys.argv[1:]:
        try:
            main(command.split())
        except SystemExit as error:
            assert not error.code, (command, error.code)
""")


def run(*command, **environment):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", **environment}
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)


def rlpt(*arguments, **environment):
    return run("-m", "rlpt", *arguments, **environment)


def test_help_docs_and_lists_work_without_heavy_packages():
    helps = ["--help", *(f"{verb} --help" for verb in VERBS), "config show --help", "config docs --help"]
    done = run("-c", BLOCKED, *helps, "config docs optimizer.lr", "experiment --list")
    assert done.returncode == 0, done.stderr
    assert all(f"rlpt {verb}" in done.stdout for verb in VERBS)
    assert "default 0.001" in done.stdout
    assert "quickstart_control" in done.stdout


def test_help_needs_little_of_our_own():
    """What makes `--help` slow is imports: of ours only the errors and more verbs may come along."""
    probe = "import sys, rlpt.__main__; print(sorted(name for name in sys.modules if name.startswith('rlpt')))"
    ours = ["rlpt", "rlpt.__main__", "rlpt.bench", "rlpt.bench.commands", "rlpt.errors"]
    assert run("-c", probe).stdout.strip() == str(ours)


def test_unknown_verb_suggests_the_near_one():
    done = rlpt("trian")
    assert done.returncode == 2
    assert "train" in done.stderr.replace("trian", "")


def test_user_error_is_one_line_and_its_exit_code():
    done = rlpt("train", "configs/quickstart.yaml", "schedule.stepps=50", "--dry-run")
    assert done.returncode == ConfigError.exit_code
    assert done.stderr.startswith("error: ")
    assert "schedule.steps" in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback_wherever_it_stands():
    done = rlpt("config", "show", "configs/no_such.yaml", "--debug")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_config_show_resolves_overrides():
    done = rlpt("config", "show", "configs/quickstart.yaml", "optimizer.lr=3e-3", "objectives.play=null")
    assert "lr: 0.003" in done.stdout
    assert "episodes" not in done.stdout


def test_dry_run_names_a_misspelt_component_and_stops_before_training(tmp_path):
    key = "objectives.play.algorithm.name"
    done = rlpt("train", "configs/quickstart.yaml", "--dry-run", f"{key}=gropo", f"run_dir={tmp_path / 'run'}")
    assert done.returncode == 2
    assert key in done.stderr
    assert "did you mean 'grpo'" in done.stderr
    assert not (tmp_path / "run").exists()


def test_dry_run_shows_what_is_read_of_each_shard(tmp_path):
    config, data = write_run(tmp_path), tmp_path / "data"
    blend = f"[{{path: {data}/train, weight: 3}}, {{path: {data}/valid}}]"
    phases = "[{begin: 0.5, weights: {valid: 3}}]"
    source = f"objectives.text.source={{name: corpus, blend: {blend}, phases: {phases}}}"
    done = rlpt("train", str(config), source, *SMALL, "schedule.steps=40", "--dry-run")
    assert done.returncode == 0, done.stderr
    train, valid = (line.split()[1::2] for line in done.stdout.splitlines() if line.startswith("│ data/"))
    assert (train[0], *train[2:5]) == ("data/train", "75.0%", "50.0%", "200")
    assert (valid[0], *valid[2:5]) == ("data/valid", "25.0%", "50.0%", "120")
    assert float(valid[5]) > 4
    assert f"warning: data/valid is read {float(valid[5]):.1f} times" in done.stdout
    assert done.stdout.count("warning") == 1


def test_train_without_data_says_how_to_prepare_it(tmp_path):
    done = rlpt("train", "configs/quickstart.yaml", f"tokenizer={tmp_path / 'none'}", f"run_dir={tmp_path / 'run'}")
    assert done.returncode == 3
    assert "data_prep" in done.stderr


def test_reference_reaches_nested_keys_by_any_name():
    assert {key.key for key in describe_keys("objectives.play.gate")} == {
        "objectives.NAME.gate.full",
        "objectives.NAME.gate.floor",
        "objectives.NAME.gate.decay",
    }
    assert [key.default for key in describe_keys("tokenizer")] == ["required"]
    assert len(describe_keys()) > 50
    with pytest.raises(ConfigError, match=r"did you mean 'optimizer\.beta1'"):
        describe_keys("optimizer.betta1")


def test_launch_runs_every_rank_and_hands_on_the_exit_code(tmp_path, monkeypatch, capfd):
    (tmp_path / "rank_probe.py").write_text(
        "import os, pathlib, sys, time\n"
        "here, rank = pathlib.Path(sys.argv[1]), int(os.environ['RANK'])\n"
        "(here / str(rank)).write_text(os.environ['WORLD_SIZE'])\n"
        "while not (here / '0').exists(): time.sleep(0.01)\n"
        "sys.exit(78 * rank)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert launch("rank_probe", [str(tmp_path)], 2) == 78
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["2", "2"]
    shown = capfd.readouterr().err
    assert "rank 1" in shown
    assert "exit code 78" in shown
    assert "Traceback" not in shown


def test_shell_code_counts_signals_as_a_shell_does():
    assert [shell_code(code) for code in (0, 3, -9, -15)] == [0, 3, 137, 143]
