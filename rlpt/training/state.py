"""Everything that a restart needs and that is neither weights nor optimizer, as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlpt.errors import CheckpointError


@dataclass
class Best:
    """The best value of `checkpoint.keep_best` so far and the step that had it."""

    figure: float
    step: int


@dataclass
class TrainState:
    """Counters of a run and the states of its parts; equal on all ranks. Mutable: the loop moves it on."""

    step: int = 0  # optimizer steps done
    text_tokens: int = 0  # label tokens of text, over all ranks
    rollout_tokens: int = 0  # sampled tokens, over all ranks
    episodes: int = 0
    seconds: float = 0.0  # wall clock, all attempts together
    signal: dict[str, float] = field(default_factory=dict)  # objective -> running share of groups with signal
    skipped_steps: int = 0  # non-finite steps in a row
    genuine_steps: int = 0  # non-finite steps that were so twice, all together
    transient_steps: int = 0  # those that weren't when they were run again
    rollbacks: int = 0
    best: Best | None = None
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)  # objective -> its source's state
    snapshots: list[str] = field(default_factory=list)  # names of the weight copies in the checkpoint
    shadow: dict[str, Any] = field(default_factory=dict)  # state of a bilevel run's shadow
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)  # objective -> accounting.Account
    wandb_id: str = ""
    evaluations: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """A value that `json` writes and reads back exactly (floats too). Raises TypeError naming what is not so."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self), "state")
        return plain

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrainState:
        """The state that `to_json` gave. Raises CheckpointError unless exactly its keys are there."""
        fields = {one.name for one in dataclasses.fields(cls)}
        if set(value) != fields:
            missing, unknown = sorted(fields - set(value)), sorted(set(value) - fields)
            raise CheckpointError(
                f"state.json: written by another version of rlpt: missing {missing or 'nothing'}, "
                f"unknown {unknown or 'nothing'}; resume with the version that wrote it"
            )
        best = value["best"]
        return cls(**{**value, "best": None if best is None else Best(**best)})


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, (bool, str)) or type(value) in (int, float):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}.{index}") for index, item in enumerate(value)]
    if not isinstance(value, Mapping):
        raise TypeError(f"{where}: {type(value).__name__} can't be kept in JSON")
    for key in value:
        if not isinstance(key, str):
            raise TypeError(f"{where}: key {key!r} is not a string; JSON would change it")
    return {key: _plain(item, f"{where}.{key}") for key, item in value.items()}
