"""Named copies of the weights, sharded as the model is: KL references now, past selves and averages later."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Snapshots:
    """Copies of a module's parameters. Memory: one more set of weights each."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._copies: dict[str, dict[str, Tensor]] = {}

    @torch.no_grad()
    def take(self, name: str) -> None:
        """Copies the present weights under `name`."""
        self._copies[name] = {key: value.detach().clone() for key, value in self.module.named_parameters()}

    def __contains__(self, name: str) -> bool:
        return name in self._copies

    def names(self) -> list[str]:
        """Names of the copies, sorted."""
        return sorted(self._copies)

    @contextlib.contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Inside, the module computes with the copy; the present weights come back at the end."""
        copies, present = self._copies[name], {}
        for key, parameter in self.module.named_parameters():
            present[key], parameter.data = parameter.data, copies[key]
        try:
            yield
        finally:
            for key, parameter in self.module.named_parameters():
                parameter.data = present[key]

    def sharded_state_dict(self) -> dict[str, Any]:
        """For dist_checkpointing: name -> the copy under `snapshots.NAME.`, loadable at any layout."""
        state: dict[str, Any] = {}
        for name in self.names():
            with self.using(name):
                shards = self.module.sharded_state_dict(prefix=_prefix(name))  # type: ignore[operator]
                for shard in shards.values():
                    if isinstance(shard.data, Tensor):  # the parameter itself, which leaves the copy with `using`
                        shard.data = shard.data.detach()
                state[name] = shards
        return state

    @torch.no_grad()
    def load(self, name: str, state: Mapping[str, Any]) -> None:
        """Fills an existing copy from what dist_checkpointing loaded."""
        for key, copy in self._copies[name].items():
            copy.copy_(state[_prefix(name) + key])


def _prefix(name: str) -> str:
    return f"snapshots.{name}."
