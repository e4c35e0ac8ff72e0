"""A whole tiny run on disk: tokenizer, shards, configuration. Two tensor ranks, text and played episodes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from helpers.shards import SENTENCES, write_shards, write_tokenizer
from helpers.tiny_model import one_rank

from rlpt.config import load_config

STEPS, INTERVAL = 14, 5
SMALL = [  # overrides: one rank, two objectives, no evaluation
    *("parallel.tensor=1", "parallel.distributed_optimizer=false", "tracking.wandb=disabled"),
    *("evaluation.tasks=[]", "evaluation.text=[]", "objectives.values=null", "objectives.roles=null"),
    *("objectives.games=null", "objectives.proposals=null"),
    *("objectives.play.source.groups=2", "objectives.play.source.unreachable=ignore", "schedule.decay=constant"),
]
TIMING = {"seconds", "seconds_per_step", "tokens_per_second", "episodes_per_second", "eta_seconds"}


def write_run(folder: Path) -> Path:
    """Writes everything into `folder` and returns the path of the configuration."""
    tokenizer = write_tokenizer(folder / "tokenizer")
    documents = [[*tokenizer.encode(text), tokenizer.eos_id] for text in SENTENCES]
    write_shards(folder / "data", tokenizer, {"train": documents[:-20], "valid": documents[-20:]})
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(configuration(folder), sort_keys=False))
    return path


def configuration(folder: Path) -> dict[str, Any]:
    """Two layers, width 32, adapters. Between them the objectives have all the state that there is: copies of the
    weights that lag, average and pool, plays that wait, a value head, running baselines, turns, games against past
    selves, what searches of them found, and a buffer of proposals."""
    data = folder / "data"
    curriculum = {"target_level": 2, "min_count": 8, "promote_at": 0.05, "demote_at": 0.01}
    tasks = [{"task": {"name": name}, "curriculum": curriculum} for name in ("reverse", "sort")]
    return {
        "name": "tiny",
        "run_dir": str(folder / "run"),
        "tokenizer": str(folder / "tokenizer"),
        "model": {
            "num_layers": 2,
            "hidden_size": 32,
            "num_attention_heads": 4,
            "num_query_groups": 2,
            "ffn_hidden_size": 48,
            "vocab_divisor": 32,
            "adapter": {"rank": 2, "lr_scale": 0.5},
        },
        "device": {"kind": "cpu", "threads": 1, "timeout_seconds": 120},
        "parallel": {"tensor": 2},
        "batch": {"sequence_length": 48, "micro_batch_size": 4},
        "objectives": {
            "text": {
                "algorithm": {"name": "next_token"},
                "source": {"name": "corpus", "blend": [{"path": str(data / "train")}]},
                "microbatches": 2,
            },
            "play": {
                "algorithm": {"name": "grpo", "kl_coefficient": 0.05, "entropy_bonus": 0.003},
                "source": {
                    "name": "episodes",
                    "groups": 4,
                    "selfplay": {"name": "solve", "group_size": 6},
                    "tasks": tasks,
                    "inner_epochs": 2,
                    "staleness": 1,
                },
                "microbatches": 2,
                "gate": {},
                "reference": "lagged",
            },
            "values": {
                "algorithm": {"name": "ppo", "critic_warmup": 3},
                "source": {
                    "name": "episodes",
                    "groups": 2,
                    "selfplay": {"name": "solve", "group_size": 2},
                    "tasks": tasks,
                    "unreachable": "ignore",
                },
                "microbatches": 2,
                "reference": "average",
            },
            "roles": {
                "algorithm": {"name": "rae"},
                "source": {
                    "name": "episodes",
                    "groups": 2,
                    "selfplay": {"name": "solve", "group_size": 2},
                    "tasks": tasks,
                    "unreachable": "ignore",
                },
                "microbatches": 2,
                "turns": {"period": 2, "active": 1, "offset": 1},
                "coefficient": {"start": 0.2, "end": 1.0, "steps": 8},
            },
            "games": {
                "algorithm": {"name": "alpha_zero"},
                "source": {
                    "name": "episodes",
                    "groups": 4,
                    "selfplay": {
                        "name": "duel",
                        "group_size": 2,
                        "random_moves": 4,
                        "opponents": {"self": 1, "past": 2, "bots": 1},
                        "search": {"simulations": 3, "rule": {"name": "puct", "noise_share": 0.25, "temperature": 1}},
                        "search_share": 0.6,
                    },
                    "rubric": [{"name": "game_return"}],
                    "tasks": [{"task": {"name": "tic_tac_toe"}, "curriculum": {"target_level": 0}}],
                    "staleness": 1,
                },
                "microbatches": 2,
            },
            "proposals": {
                "algorithm": {"name": "task_role"},
                "source": {
                    "name": "episodes",
                    "groups": 4,
                    "selfplay": {"name": "propose", "group_size": 20, "attempts": 2, "references": 1},
                    "rubric": [{"name": "learnability", "malformed": -0.5}, {"name": "correct", "role": "solver"}],
                    "tasks": [
                        {"task": {"name": name}, "curriculum": {"start_level": 3, "target_level": 3, "floor_level": 3}}
                        for name in ("deduction", "abduction")
                    ],
                },
                "microbatches": 2,
                "turns": {"period": 2, "active": 1},
            },
        },
        "snapshots": {
            "lagged": {"update": "interval", "interval": 4},
            "average": {"update": "ema", "decay": 0.9},
            "past": {"update": "pool", "interval": 3, "keep": 2},
        },
        "optimizer": {"lr": 3e-3},
        "schedule": {"steps": STEPS, "warmup_steps": 3, "decay": "wsd"},
        "checkpoint": {"interval": INTERVAL, "keep_last": 2},
        "evaluation": {
            "text": [str(data / "valid")],
            "unigram": [str(data / "train")],
            "text_tokens": 500,
            "tasks": [{"task": {"name": "sort"}, "level": 0}],
            "problems": 4,
            "samples": 2,
            "pass_at": [1, 2],
        },
        "tracking": {"wandb": "offline", "gradient_interval": 4, "episode_interval": 5},
    }


def metric_rows(run_dir: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl without the figures that depend on the clock."""
    path = run_dir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    for row in rows:
        row.get("summary", {}).pop("seconds", None)
    return [{key: value for key, value in row.items() if key not in TIMING} for row in rows]


def steps(rows: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Step -> the row of its figures (evaluations, alerts and the summary left out)."""
    return {row["step"]: row for row in rows if "lr" in row}


@contextmanager
def trainer(config: Path, name: str, *overrides: str, resume: bool | None = None) -> Iterator[Any]:
    """A Trainer on one rank in this process, of the run at `config` with its folder called `name`."""
    from rlpt.training.loop import Trainer
    from rlpt.training.runtime import build_runtime

    with one_rank():
        made = Trainer(build_runtime(load_config(config, [f"run_dir={config.parent / name}", *overrides])), resume)
        yield made
        made.folder._lock.close()  # what the end of the process does


def weights(made: Any) -> dict[str, Any]:
    """Clones of a trainer's weights by name."""
    return {name: one.detach().clone() for name, one in made.runtime.policy.gpt.named_parameters()}
