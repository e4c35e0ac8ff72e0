"""The command line as a user meets it: help, errors, dry runs, launching."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from helpers.runs import SMALL, write_run

from rlpt.config_reference import describe_keys
from rlpt.errors import ConfigError
from rlpt.launcher import launch, shell_code

ROOT = Path(__file__).parents[2]
VERBS = ["train", "launch", "evaluate", "experiment", "report", "config"]
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
    ours = ["", ".__main__", ".bench", ".bench.commands", ".cluster_verbs", ".errors", ".launch", ".launch.command"]
    assert run("-c", probe).stdout.strip() == str([f"rlpt{name}" for name in ours])


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


@pytest.mark.parametrize(("code", "starts"), [(78, 1), (85, 1), (7, 2)])
def test_a_group_whose_error_would_come_back_is_not_started_again(tmp_path, code, starts):
    (tmp_path / "rank.py").write_text(
        f"import sys; open({str(tmp_path / 'starts')!r}, 'a').write('x'); sys.exit({code})"
    )
    done = run("-m", "rlpt.launcher", "--standalone", "--max-restarts=1", tmp_path / "rank.py")
    assert done.returncode == code
    assert (tmp_path / "starts").read_text() == "x" * starts


RANK = """
import os, pathlib, signal, sys, time
here, rank = pathlib.Path(sys.argv[1]), os.environ["RANK"]
def told(number, frame):
    time.sleep(float(sys.argv[2]))
    (here / f"saved-{rank}").write_text(signal.Signals(number).name)
    os._exit(int(sys.argv[3]))
for one in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT):
    signal.signal(one, told)
(here / f"up-{rank}").touch()
while True:
    time.sleep(0.05)
"""


def signalled(tmp_path, numbers, seconds, code, between=0.3):
    """(the launcher's exit code, what was saved) of two ranks that need `seconds` after a signal and end with `code`"""
    (tmp_path / "rank.py").write_text(RANK)
    command = [sys.executable, "-m", "rlpt.launcher", "--standalone", "--nproc-per-node=2", tmp_path / "rank.py"]
    process = subprocess.Popen([*command, tmp_path, str(seconds), str(code)], cwd=ROOT)
    try:
        until(lambda: len(list(tmp_path.glob("up-*"))) == 2)
        for number in numbers:
            process.send_signal(number)
            time.sleep(between)
        return process.wait(30), sorted(path.read_text() for path in tmp_path.glob("saved-*"))
    finally:
        process.kill()


def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_ranks_that_saved_give_the_job_their_exit_code_and_more_signals_cut_nothing_short(tmp_path):
    numbers = [signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM]
    assert signalled(tmp_path, numbers, 1.5, 85) == (85, ["SIGUSR1", "SIGUSR1"])


def test_a_run_that_was_over_when_the_signal_came_has_ended_well(tmp_path):
    assert signalled(tmp_path, [signal.SIGTERM], 0, 0) == (0, ["SIGTERM", "SIGTERM"])


def test_ranks_that_did_not_save_leave_the_signals_code(tmp_path):
    assert signalled(tmp_path, [signal.SIGHUP], 0, 1)[0] == 128 + signal.SIGHUP


def test_a_second_ctrl_c_ends_the_ranks_at_once(tmp_path):
    started = time.monotonic()
    assert signalled(tmp_path, [signal.SIGINT, signal.SIGINT], 60, 85, between=1.2) == (128 + signal.SIGINT, [])
    assert time.monotonic() - started < 25


def test_where_a_rank_fails_one_that_is_deaf_to_signals_does_not_hold_up_the_end(tmp_path, monkeypatch):
    (tmp_path / "rank_probe.py").write_text(
        "import os, signal, time\n"
        "if os.environ['RANK'] == '1': time.sleep(1); os._exit(7)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    started = time.monotonic()
    assert launch("rank_probe", [], 2) == 7
    assert time.monotonic() - started < 25  # torchrun alone: 30 s more
