"""Recipes and jobs for tests of the launch targets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rlpt import registry
from rlpt.config import Config, parse_config
from rlpt.launch import targets  # noqa: F401 (registers)
from rlpt.launch.spec import LaunchSpec, make_spec

FOLDER = "/shared/project/runs/big/launch"
OPTIONS: dict[str, dict[str, Any]] = {
    "torchrun": {"python": "/shared/venv/bin/python", "workdir": "/shared/project"},
    "slurm": {"python": "/shared/venv/bin/python", "workdir": "/shared/project", "partition": "gpu"},
    "kubernetes": {"namespace": "research"},
    "jobset": {"namespace": "research"},
    "trainjob": {"namespace": "research"},
    "skypilot": {"bucket": "s3://runs"},
}


def recipe(**parallel: int) -> Config:
    """A recipe with a given mesh."""
    text = {"algorithm": {"name": "next_token"}, "source": {"name": "corpus", "blend": [{"path": "data/train"}]}}
    return parse_config(
        {
            "name": "big",
            "tokenizer": "data/tokenizer",
            "model": {"num_attention_heads": 8, "num_query_groups": 8, "hidden_size": 128, "ffn_hidden_size": 384},
            "parallel": parallel,
            "objectives": {"text": {**text, "microbatches": 24}},
        }
    )


def job(target: str, nodes: int = 4) -> LaunchSpec:
    """Tensor 8 on nodes of 8 GPUs, with a short text in place of the whole recipe."""
    image = "" if target in ("torchrun", "slurm") else "registry.example/rlpt:1"
    spec = make_spec(recipe(tensor=8), nodes, 8, image=image, time_limit=86400 + 5400, extra=["NCCL_SOCKET_IFNAME=ib0"])
    return replace(spec, recipe="name: big\nseed: 1\n")


def render(target: str, nodes: int = 4, **options: Any) -> dict[str, str]:
    """The files of `job`."""
    kind = registry.create("launch target", {"name": target, **OPTIONS[target], **options})
    files: dict[str, str] = kind.render(job(target, nodes), FOLDER)
    return files
