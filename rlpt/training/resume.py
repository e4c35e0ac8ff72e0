"""A run's folder: one trainer at a time, the configuration and versions beside the results, checkpoints in and out."""

from __future__ import annotations

import fcntl
import importlib.metadata
import logging
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlpt.config import dump_config, load_config
from rlpt.errors import CheckpointError, ConfigError, UserError
from rlpt.evaluation.summary import write_json
from rlpt.models.lora import is_adapter
from rlpt.models.snapshots import Snapshots
from rlpt.training.checkpoint import CheckpointStore, find_latest, good_checkpoints
from rlpt.training.checkpoint_files import CheckpointMeta, fault, read_meta
from rlpt.training.checkpoint_weights import load_weights, plan_weights, stored_names
from rlpt.training.optimizer import Optimizer
from rlpt.training.runtime import Runtime

log = logging.getLogger(__name__)
PACKAGES = ("rlpt", "torch", "megatron-core", "numpy", "sentencepiece", "transformers", "datasets", "wandb")
BYTES_PER_PARAMETER = 16  # weights and AdamW's two moments in float32, and the master weights


class RunFolder:
    """Saves and loads everything of a run, on all ranks together."""

    def __init__(self, runtime: Runtime, optimizer: Optimizer, snapshots: Snapshots) -> None:
        self.runtime, self.optimizer, self.snapshots = runtime, optimizer, snapshots
        config, mesh = runtime.config, runtime.mesh
        self.path = config.directory
        layout = {"tensor": mesh.tensor.size, "pipeline": mesh.pipeline.size, "data": mesh.data.size}
        tokenizer = runtime.tokenizer
        self.meta = CheckpointMeta.of(config, tokenizer.vocab_size, tokenizer.sha256, layout, runtime.heads)
        together = (mesh.barrier, mesh.agree, mesh.world.gather_objects)
        self.store = CheckpointStore(self.path, config.checkpoint, mesh.is_primary, *together)
        self.saved_at = time.monotonic()  # when the last save began, or the run
        self._lock: Any = None

    def load(self, resume: bool | None) -> dict[str, Any] | None:
        """Weights, optimizer and snapshots of the newest good checkpoint; its state, or None for a fresh run.

        `resume`: True must find one, False must find none, None takes what is there. Raises ConfigError or
        CheckpointError on all ranks.
        """
        found: str | None = self.runtime.on_primary(lambda: self._open(resume))
        if found is None:
            return None
        return self._read(Path(found))

    def load_last_good(self) -> dict[str, Any] | None:
        """The same in the midst of a run, of the newest good checkpoint that is not itself of a row of non-finite
        steps; None where there is none, and nothing has changed."""
        found: str | None = self.runtime.on_primary(self._last_good)
        return None if found is None else self._read(Path(found))

    def _last_good(self) -> str | None:
        for folder in good_checkpoints(self.path):
            if not self.store.load_state(folder, self.meta)["skipped_steps"]:
                return str(folder)
        return None

    def _read(self, folder: Path) -> dict[str, Any]:
        state: dict[str, Any] = self.runtime.on_primary(lambda: self.store.load_state(folder, self.meta))
        for name in set(self.snapshots.names()) - set(state["snapshots"]):
            self.snapshots.drop(name)
        for name in state["snapshots"]:
            self.snapshots.take(name)  # makes room; filled below
        loaded = load_weights(folder / "weights", self._sharded_state(is_loading=True))
        self.runtime.policy.gpt.load_state_dict(loaded["model"])
        self.optimizer.load_state_dict(loaded["optimizer"])
        for name in state["snapshots"]:
            self.snapshots.load(name, loaded["snapshots"][name])
        if self.runtime.mesh.is_primary:
            print(f"resumed from {folder} at step {state['step']}")
        return state

    def warm_start(self) -> None:
        """Weights from `config.warm_start`, where that is given; adapters and heads begin anew where that checkpoint
        has none. Raises ConfigError or CheckpointError on all ranks."""
        given = self.runtime.config.warm_start
        if given is None:
            return
        folder = Path(self.runtime.on_primary(lambda: str(_checkpoint_at(given))))
        stored: set[str] = self.runtime.on_primary(lambda: _fitting_names(folder, self.meta))
        with self.runtime.device.megatron():
            model = self.runtime.policy.gpt.sharded_state_dict()
        kept = {
            key: shard
            for key, shard in model.items()
            if not (is_adapter(key) or key.startswith("heads.")) or shard.key in stored
        }
        loaded = load_weights(folder / "weights", {"model": kept})
        self.runtime.policy.gpt.load_state_dict(loaded["model"], strict=False)
        self.optimizer.reload_weights()
        if self.runtime.mesh.is_primary:
            print(f"weights from {folder}")

    def save(self, step: int, state: Mapping[str, Any], best_step: int | None, in_background: bool = False) -> Path:
        """Writes the checkpoint of `step`. Raises CheckpointError on all ranks together.

        `in_background`: from a copy, while training goes on; it is there after `store.finish`."""
        self.saved_at = time.monotonic()
        parameters = sum(parameter.numel() for parameter in self.runtime.policy.gpt.parameters())
        names = self.snapshots.names()
        copies = sum(tensor.nbytes for name in names for tensor in self.snapshots.tensors(name).values())
        size = (parameters * BYTES_PER_PARAMETER + copies) * self.runtime.mesh.model.size
        return self.store.save(
            step,
            lambda folder: plan_weights(folder, self._sharded_state(is_loading=False), copies=in_background),
            state,
            self.meta,
            weights_bytes=size,
            best_step=best_step,
            in_background=in_background,
        )

    def _sharded_state(self, is_loading: bool) -> dict[str, Any]:
        with self.runtime.device.megatron():
            model = self.runtime.policy.gpt.sharded_state_dict()
            return {
                "model": model,
                "optimizer": self.optimizer.sharded_state_dict(model, is_loading),
                "snapshots": self.snapshots.sharded_state_dict(),
            }

    def _open(self, resume: bool | None) -> str | None:
        """On the primary: locks the folder, notes the configuration, finds the checkpoint to go on from."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / ".lock", "w")  # noqa: SIM115 - held open as long as the process lives
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{self.path}: another run is training there; give this one another name") from None
        except OSError as error:
            raise ConfigError(f"{self.path}: not a folder that can be written: {error}; set run_dir") from None
        latest = find_latest(self.path)
        if resume is False and latest is not None:
            raise ConfigError(f"{self.path} has checkpoints (newest {latest.name}); to start anew, change the name")
        if resume is True and latest is None:
            raise ConfigError(f"{self.path} has no checkpoint to resume from; leave --resume out to start at step 0")
        if latest is not None:
            self.store.load_state(latest, self.meta)  # refuses another model before config.yaml says so
            self._report_changes()
        (self.path / "config.yaml").write_text(dump_config(self.runtime.config), encoding="utf-8")
        write_json(self.path / "environment.json", _environment())
        return None if latest is None else str(latest)

    def _report_changes(self) -> None:
        """Says which keys differ from the run's last attempt; what must not differ is refused elsewhere."""
        path = self.path / "config.yaml"
        try:
            before = _leaves(load_config(path).model_dump(mode="json")) if path.exists() else {}
        except UserError as error:
            log.warning("the configuration of the last attempt can't be compared: %s", error)
            return
        now = _leaves(self.runtime.config.model_dump(mode="json"))
        for key in sorted(before.keys() | now.keys()):
            if before and before.get(key) != now.get(key):
                print(f"changed since the last attempt: {key}: {before.get(key)} -> {now.get(key)}")


def _checkpoint_at(path: Path) -> Path:
    """A checkpoint folder, or the newest good one of a run's folder. Raises ConfigError or CheckpointError."""
    if (path / "weights").is_dir():
        damage = fault(path)
        if damage is not None:
            raise CheckpointError(f"warm_start={path}: {damage}")
        return path
    found = find_latest(path) if path.is_dir() else None
    if found is None:
        raise ConfigError(f"warm_start={path}: neither a run with checkpoints nor a checkpoint")
    return found


def _fitting_names(folder: Path, meta: CheckpointMeta) -> set[str]:
    """Names of the tensors of a checkpoint to start from. Raises CheckpointError unless it is of the same model and
    tokenizer, adapters aside: those may be new, but what it has can't be left out."""
    saved = read_meta(folder)
    ours, theirs = meta.model["adapter"], saved.model.get("adapter")
    bare = [
        replace(one, model={k: v for k, v in one.model.items() if k != "adapter"}, optimizer={})
        for one in (meta, saved)
    ]
    differences = bare[0].differences(bare[1])
    if theirs is not None:
        fixed = ("rank", "alpha")
        was, now = ({key: one[key] for key in fixed} if one else None for one in (theirs, ours))
        differences += [f"model.adapter: was {was}, is {now}"] if was != now else []
    if differences:
        listed = "\n  ".join(differences)
        raise CheckpointError(
            f"warm_start={folder}: another model or tokenizer:\n  {listed}\nset these keys as they are there"
        )
    return stored_names(folder / "weights")


def _environment() -> dict[str, Any]:
    """Versions that a run was made with."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {"python": platform.python_version(), "ranks": int(os.environ.get("WORLD_SIZE", 1)), "packages": versions}


def _leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= _leaves(item, f"{prefix}.{key}" if prefix else str(key))
    return found
