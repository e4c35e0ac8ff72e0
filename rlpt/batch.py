"""Tensor records that cross between sources, policy and algorithms, and the BatchSource protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One microbatch of one objective: B rows of T tokens. `labels[b, t]` is the token after `tokens[b, t]`."""

    objective: str
    tokens: Tensor  # [B, T] i64
    labels: Tensor  # [B, T] i64
    positions: Tensor  # [B, T] i64, from 0 in each segment
    loss_mask: Tensor  # [B, T] bool, over labels
    segments: Tensor  # [B, T] i64, tokens attend within their segment; padding is -1
    advantages: Tensor | None = None  # [B, T] f32
    behavior_logprobs: Tensor | None = None  # [B, T] f32, the sampler's
    ref_logprobs: Tensor | None = None  # [B, T] f32, a snapshot's
    returns: Tensor | None = None  # [B, T] f32
    candidates: Tensor | None = None  # [B, T, K] i64
    candidate_weights: Tensor | None = None  # [B, T, K] f32
    legal_table: Tensor | None = None  # [S, V] bool, row 0 all True: the sets that labels were drawn from
    legal_index: Tensor | None = None  # [B, T] i64 into legal_table
    temperature: float = 1.0

    def to(self, device: torch.device) -> Batch:
        """The same batch with every tensor on `device`."""
        moved = {
            field.name: getattr(self, field.name).to(device)
            for field in fields(self)
            if isinstance(getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Scores:
    """All that an objective sees of the model."""

    logprobs: Tensor  # [B, T] f32 of the labels, at the batch's temperature and within its legal sets
    entropy: Tensor  # [B, T] f32 of the same distribution
    candidate_logprobs: Tensor | None = None  # [B, T, K] f32
    values: Tensor | None = None  # [B, T] f32


@dataclass(frozen=True)
class SourceContext:
    """What the trainer hands to a source when it is opened."""

    objective: str  # this source's name in the configuration
    tokenizer: Any  # types.Tokenizer
    sequence_length: int
    micro_batch_size: int
    data_rank: int
    data_size: int
    seed: int
    gather: Callable[[Any], list[Any]]  # all_gather_object over data-parallel ranks, in rank order
    agree: Callable[[Any], Any] = lambda value: value  # the first tensor-parallel rank's value, on all of them
    algorithm: Any = None  # the objective's algorithm (its `advantages`)
    generator: Any = None  # types.Generator on the training weights
    steps: int = 0  # optimizer steps of the whole run that this source takes part in
    reference: Any = None  # Batch -> [B, T] log-probs of the reference snapshot, or None


class BatchSource(Protocol):
    """A resumable stream of microbatches. All data-parallel ranks call it in step; each gets its own rows."""

    def take(self, n: int, step: int = 0, share: float = 1.0) -> list[Batch]:
        """Exactly `n` microbatches for this rank (all-masked rows where there is too little).

        `step` is the optimizer step that they are for; a source that plays episodes plays `share` of its groups.
        """
        ...

    def metrics(self) -> dict[str, float]:
        """Figures of the last `take`, equal on all ranks."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """JSON-able, equal on all ranks, and independent of the data-parallel size."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
