"""Named copies of the weights, sharded as the model is: KL references, averages, past selves, shadows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rlpt.config_objectives import SnapshotConfig


class Snapshots:
    """Copies of a module's parameters. Memory: one more set of weights each; those in `moving`, in which small changes
    add up, are kept in float32 or better whatever the weights are."""

    def __init__(self, module: nn.Module, moving: Collection[str] = ()) -> None:
        self.module, self.moving = module, frozenset(moving)
        self._copies: dict[str, dict[str, Tensor]] = {}

    @torch.no_grad()
    def take(self, name: str) -> None:
        """Copies the present weights under `name`."""
        self._copies[name] = {
            key: value.detach().to(_wide(value) if name in self.moving else value.dtype, copy=True)
            for key, value in self.module.named_parameters()
        }

    @torch.no_grad()
    def average(self, name: str, decay: float) -> None:
        """copy <- decay x copy + (1 - decay) x weights, for a copy that is there."""
        for key, value in self.module.named_parameters():
            copy = self._copies[name][key]
            copy.lerp_(value.detach().to(copy.dtype), 1 - decay)

    def drop(self, name: str) -> None:
        """Forgets a copy."""
        del self._copies[name]

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The copy itself, by parameter name; changes to it are changes to the snapshot."""
        return self._copies[name]

    def __contains__(self, name: str) -> bool:
        return name in self._copies

    def names(self) -> list[str]:
        """Names of the copies, sorted."""
        return sorted(self._copies)

    @contextlib.contextmanager
    def using(self, name: str, only: Callable[[str], bool] = lambda key: True) -> Iterator[None]:
        """Inside, the module computes with the copy of the parameters whose names `only` picks; the present weights
        come back at the end. Raises KeyError for a copy that is not there."""
        copies, present = self._copies[name], {}
        for key, parameter in self.module.named_parameters():
            if only(key):
                present[key], parameter.data = parameter.data, copies[key].to(parameter.dtype)
        try:
            yield
        finally:
            for key, parameter in self.module.named_parameters():
                if key in present:
                    parameter.data = present[key]

    def sharded_state_dict(self) -> dict[str, Any]:
        """For dist_checkpointing: name -> the copy under `snapshots.NAME.`, loadable at any layout; in the order of the
        names, so that a resumed run writes the same files."""
        state: dict[str, Any] = {}
        for name, copies in sorted(self._copies.items()):
            shards = self.module.sharded_state_dict(prefix=_prefix(name))  # type: ignore[operator]
            for key, copy in copies.items():
                shard = shards[_prefix(name) + key]
                shard.data = copy
                if hasattr(shard, "dtype"):
                    shard.dtype = copy.dtype
            for shard in shards.values():
                if isinstance(shard.data, Tensor):
                    shard.data = shard.data.detach()
            state[name] = shards
        return state

    @torch.no_grad()
    def load(self, name: str, state: Mapping[str, Any]) -> None:
        """Fills an existing copy from what dist_checkpointing loaded."""
        for key, copy in self._copies[name].items():
            copy.copy_(state[_prefix(name) + key])


class SnapshotKeeper:
    """Takes, moves and drops the copies that a configuration names, step by step."""

    def __init__(self, snapshots: Snapshots, configs: Mapping[str, SnapshotConfig]) -> None:
        self.snapshots, self.configs = snapshots, configs

    def before_step(self, step: int) -> None:
        """To be called before each optimizer step: takes what is due."""
        for name, config in self.configs.items():
            age = step - config.start_step
            if age < 0:
                continue
            if config.update == "pool":
                if age % config.interval == 0:
                    self.snapshots.take(f"{name}@{step}")
                    for old in self.pool(name)[: -config.keep]:
                        self.snapshots.drop(old)
            elif name not in self.snapshots or (config.update == "interval" and age % config.interval == 0):
                self.snapshots.take(name)

    def after_step(self) -> None:
        """To be called after each optimizer step: moves the averages."""
        for name, config in self.configs.items():
            if config.update == "ema" and name in self.snapshots:
                self.snapshots.average(name, config.decay)

    def drop_others(self, kept: Collection[str]) -> None:
        """To be called after a resume: drops the copies that the configuration does not name any more, but `kept`."""
        for name in self.snapshots.names():
            if name.partition("@")[0] not in self.configs and name not in kept:
                self.snapshots.drop(name)

    def pool(self, name: str) -> list[str]:
        """Copies of a pool, oldest first."""
        members = [one for one in self.snapshots.names() if one.startswith(f"{name}@")]
        return sorted(members, key=lambda one: int(one.rpartition("@")[2]))


def _wide(value: Tensor) -> torch.dtype:
    return torch.promote_types(value.dtype, torch.float32)


def _prefix(name: str) -> str:
    return f"snapshots.{name}."
