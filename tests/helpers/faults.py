"""The short run of the fault tests: six steps of text and play, a checkpoint every two, an evaluation every three."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from helpers.runs import SMALL, metric_rows
from helpers.shards import SENTENCES, write_shards, write_tokenizer

from rlpt.config import dump_config, load_config

SHORT = (  # an epoch of its corpus ends within the third step
    *("schedule.steps=6", "checkpoint.interval=2", "checkpoint.keep_last=1", "evaluation.interval=3"),
    *("tracking.episode_interval=3", "evaluation.problems=2", "objectives.text.source.blend=[{path: %s}]"),
)
ALONE = (  # points at which faulty.py kills one rank that is all there is
    *("rollout", "after backward", "after update", "half a row", "while pruning", "evaluation", "epoch"),
    *("after resume", "before summary"),
)
TOGETHER = ("half a save", "before manifest", "before latest")  # two tensor ranks

FLIPS = {"flipped bit": False, "flipped bit while it plays": True}  # point -> whether the optimizer is distributed

SERVICE = ("service killed", "service without disk")  # of Weights & Biases


def write_short_run(config: Path, *overrides: str) -> Path:
    """Beside the tiny run at `config`: a configuration of the short one."""
    folder = config.parent / "short"
    if not folder.exists():
        tokenizer = write_tokenizer(folder / "tokenizer")
        documents = [[*tokenizer.encode(text), tokenizer.eos_id] for text in SENTENCES[:56]]
        write_shards(folder / "data", tokenizer, {"train": documents})
    kept = load_config(config).evaluation.model_dump_json()
    evaluation = f"evaluation={kept}"
    changes = [*SMALL, evaluation, *(one.replace("%s", str(folder / "data" / "train")) for one in SHORT), *overrides]
    path = folder / f"{len(list(folder.glob('*.yaml')))}.yaml"
    path.write_text(dump_config(load_config(config, changes)))
    return path


def remains(run: Path) -> dict[str, Any]:
    """All that two runs must have alike, bit for bit: figures, evaluations, episodes, weights, optimizer, state."""
    (last,) = run.glob("checkpoints/step-????????")
    state = yaml.safe_load((last / "state.json").read_text())
    return {
        "figures": metric_rows(run),
        "evaluation": (run / "evaluation.json").read_bytes(),
        "episodes": (run / "play_episodes.jsonl").read_bytes(),
        "checkpoint": last.name,
        "state": {key: value for key, value in state.items() if key not in ("seconds", "wandb_id")},
        "weights": {path.name: path.read_bytes() for path in (last / "weights").glob("__*")},
        "summary": (run / "summary.json").exists(),
    }
