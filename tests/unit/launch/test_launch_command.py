"""`rlpt launch` as a user meets it."""

import dataclasses

import pytest
import yaml
from helpers.launch_specs import OPTIONS
from helpers.runs import write_run
from typer.testing import CliRunner

from rlpt import registry
from rlpt.__main__ import app
from rlpt.config import load_config
from rlpt.errors import ConfigError
from rlpt.launch import targets  # noqa: F401 (registers)

RUNNER = CliRunner(env={"COLUMNS": "120", "TERM": "dumb"})


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("tiny"))


def launch(*arguments):
    done = RUNNER.invoke(app, ["launch", *map(str, arguments)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_dry_run_writes_files_and_says_what_starts_them(config, tmp_path):
    folder = tmp_path / "it"
    done = launch(
        "slurm", config, "schedule.steps=7", "--nodes", 2, "-g", 1, "--dry-run", "--out", folder, "--time", "2h"
    )
    assert done.exit_code == 0, done.output
    assert f"sbatch {folder}/job.sbatch" in done.stdout.replace("\n", "")
    assert {path.name for path in folder.iterdir()} == {"job.sbatch", "node.sh", "config.yaml"}
    assert load_config(folder / "config.yaml") == load_config(config, ["schedule.steps=7"])
    assert "#SBATCH --time=02:00:00" in (folder / "job.sbatch").read_text()
    assert "gres" not in (folder / "job.sbatch").read_text()  # device.kind=cpu


def test_files_go_into_the_runs_folder_by_default(config):
    assert launch("torchrun", config, "-g", 2, "--dry-run").exit_code == 0
    run = load_config(config).directory
    assert (run / "launch" / "torchrun" / "node.sh").exists()


def test_kubernetes_says_what_to_apply_and_speaks_to_no_cluster(config, tmp_path):
    done = launch("kubernetes", config, "-g", 2, "--image", "r/i:1", "--out", tmp_path)
    assert f"kubectl apply -f {tmp_path}/job.yaml" in done.stdout.replace("\n", "")
    recipe = yaml.safe_load(next(yaml.safe_load_all((tmp_path / "job.yaml").read_text()))["data"]["config.yaml"])
    assert recipe["name"] == "tiny"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["slrum"], "did you mean 'slurm'"),
        (["slurm", "-o", "partitoin=gpu"], "did you mean 'partition'"),
        (["kubernetes", "--partition", "gpu"], "partition: unknown key"),
        (["kubernetes"], "--image is missing"),
        (["torchrun", "--image", "r/i:1"], "--image: torchrun starts processes"),
        (["torchrun", "--nodes", "2", "-g", "1"], "NODE_RANK and MASTER_ADDR: not set"),
        (["slurm"], "sbatch: not found"),
        (["slurm", "--out", "/dev/null/x"], "can't be written"),
    ],
)
def test_errors_name_what_is_wrong_and_what_to_do(config, tmp_path, monkeypatch, arguments, said):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("NODE_RANK", raising=False)
    target, *rest = arguments
    where = [] if "--out" in rest else ["--out", tmp_path / "files"]
    ranks = [] if "-g" in rest else ["-g", "2"]
    with pytest.raises(ConfigError, match=said):
        launch(target, config, *rest, *ranks, *where)


def test_help_names_every_target_with_all_its_options():
    text = " ".join(RUNNER.invoke(app, ["launch", "--help"]).stdout.split())
    assert registry.names("launch target") == sorted(OPTIONS)
    for name in OPTIONS:
        assert name in text
        for field in dataclasses.fields(registry.lookup("launch target", name)):
            assert field.name in text, f"{name}: {field.name}"
