"""The job that is made of a recipe: ranks against the mesh, environment, times, names."""

import os
import subprocess
from pathlib import Path

import pytest
from helpers.launch_specs import OPTIONS, recipe, render

from rlpt.errors import ConfigError
from rlpt.launch.spec import default_environment, job_name, make_spec, seconds

ROOT = Path(__file__).parents[3]


def test_ranks_a_node_follow_from_the_mesh():
    assert make_spec(recipe(tensor=8, data=4), 4).processes == 8
    assert make_spec(recipe(tensor=4), 3, 8).world_size == 24


@pytest.mark.parametrize(
    ("parallel", "nodes", "ranks", "said"),
    [
        (
            {"tensor": 8, "data": 4},
            2,
            8,
            r"2 nodes x 8 ranks = 16, but .*tensor 8.*data 4.* 32: set parallel.data=2, or --nodes 4",
        ),
        ({"tensor": 8}, 1, 4, r"asks for a multiple of 8: --nodes 2, or change parallel"),
        ({"tensor": 8, "data": 3}, 2, 5, r"asks for 24: --gpus-per-node 12"),
        ({"tensor": 8}, 2, None, r"--gpus-per-node is missing: parallel.data is not set"),
        ({"tensor": 8, "data": 3}, 5, None, r"--nodes 5 does not divide the 24 ranks"),
        ({"tensor": 1}, 5, 1, r"objectives.text.microbatches=24 is not divisible"),
    ],
)
def test_ranks_that_do_not_fit_the_mesh_are_refused_with_the_remedy(parallel, nodes, ranks, said):
    with pytest.raises(ConfigError, match=said):
        make_spec(recipe(**parallel), nodes, ranks)


def test_secrets_are_handed_on_by_name_and_never_written(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "hunter2hunter2")
    for target in OPTIONS:
        assert "hunter2" not in "".join(render(target).values())
    for name in ("WANDB_API_KEY", "HF_TOKEN", "MY_SECRET", "AWS_SECRET_ACCESS_KEY", "db_password"):
        with pytest.raises(ConfigError, match=f"{name}: a secret's value"):
            make_spec(recipe(), 1, 1, extra=[f"{name}=hunter2"])
    assert ("TOKENIZERS_PARALLELISM", "true") in make_spec(
        recipe(), 1, 1, extra=["TOKENIZERS_PARALLELISM=true"]
    ).environment


def test_the_mode_of_wandb_is_passed_on():
    environ = {"WANDB_MODE": "offline", "WANDB_API_KEY": "hunter2", "HOME": "/root"}
    names = dict(make_spec(recipe(), 1, 1, environ=environ).environment)
    assert names["WANDB_MODE"] == "offline"
    assert not {"WANDB_API_KEY", "HOME"} & set(names)


def test_environment_is_that_of_the_hardware():
    gpu = dict(make_spec(recipe(tensor=8), 1, 8).environment)
    assert gpu["TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC"] == "600"
    assert gpu["TORCH_FR_DUMP_TEMP_FILE"] == "runs/big/collectives-rank"
    assert gpu["CUDA_DEVICE_MAX_CONNECTIONS"] == "1"
    assert "CUDA_DEVICE_MAX_CONNECTIONS" not in dict(make_spec(recipe(), 1, 8).environment)
    config = recipe()
    cpu = config.model_copy(update={"device": config.device.model_copy(update={"kind": "cpu"})})
    spec = make_spec(cpu, 1, 8)
    assert spec.gpus == 0
    assert dict(spec.environment) == default_environment()["all"]


def test_scripts_of_the_checkout_set_the_same_environment():
    clean = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    done = subprocess.run(
        ["bash", "-c", f"source {ROOT}/launch/env.sh && env"], env=clean, capture_output=True, text=True, check=True
    )
    assert set(default_environment()["all"].items()) <= {tuple(line.split("=", 1)) for line in done.stdout.splitlines()}


def test_durations():
    assert [seconds(text) for text in ("90s", "30m", "12h", "7d")] == [90, 1800, 43200, 604800]
    assert seconds("1-01:30:00") == 91800
    assert seconds("23:30:00") == 84600
    for text in ("90", "1:2", "soon", ""):
        with pytest.raises(ConfigError, match="--time"):
            seconds(text)


def test_names_are_dns_labels():
    assert job_name("GRPO_7B/seed 1") == "grpo-7b-seed-1"
    assert job_name("7b") == "run-7b"
    assert job_name("a" * 80) == "a" * 40
    assert job_name("-_-") == "run"
