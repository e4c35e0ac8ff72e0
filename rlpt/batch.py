"""Tensor records that cross between sources, policy and algorithms, and the BatchSource protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
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
    parents: Tensor | None = None  # [B, T] i64: the segment of the row that the token's own goes on from and attends to
    # as a whole, its positions after that one's last; -1 (or None everywhere): none
    advantages: Tensor | None = None  # [B, T] f32
    behavior_logprobs: Tensor | None = None  # [B, T] f32, the sampler's
    ref_logprobs: Tensor | None = None  # [B, T] f32, a snapshot's
    returns: Tensor | None = None  # [B, T] f32: what the scalar head should say
    values: Tensor | None = None  # [B, T] f32: what it said when the trajectory was played
    episode_rewards: Tensor | None = None  # [B, T] f32: the whole trajectory's reward, at each of its actions
    sequence_share: Tensor | None = None  # [B, T] f32: 1 / number of actions of the label's whole trajectory
    policy_steps: Tensor | None = None  # [B, T] i64: optimizer steps done by the weights that sampled the label
    candidates: Tensor | None = None  # [B, T, K] i64
    candidate_weights: Tensor | None = None  # [B, T, K] f32
    legal_table: Tensor | None = None  # [S, V] bool, row 0 all True: the sets that labels were drawn from
    legal_index: Tensor | None = None  # [B, T] i64 into legal_table
    temperature: float = 1.0
    head: str = ""  # the scalar head that `Scores.values` comes from; "": none
    head_alone: bool = False  # the gradient of those values stops at the hidden states
    silent_tokens: int = 0  # of trajectories that are not in the rows, as nothing is learned from them: they count in
    # means over loss tokens all the same
    silent_trajectories: float = 0.0  # and in those over trajectories
    turn: int = 0  # how many optimizer steps this objective has taken part in before

    @property
    def is_sampled(self) -> bool:
        """Whether its rows carry what the sampler said of them."""
        return self.behavior_logprobs is not None

    def to(self, device: torch.device) -> Batch:
        """The same batch with every tensor on `device`."""
        table = self.legal_table if self.legal_table is None else self.legal_table.to(device)
        return replace(self._by_label(lambda tensor: tensor.to(device)), legal_table=table)

    def rows(self, begin: int, stop: int) -> Batch:
        """Some of its rows."""
        return self._by_label(lambda tensor: tensor[begin:stop])

    def tokens_at(self, places: Tensor) -> Batch:
        """The n label positions `places` [n] i64, counted row by row, as one row [1, n] of tokens that aren't
        neighbours: for what looks at each token alone."""
        return self._by_label(lambda tensor: tensor.flatten(0, 1)[places][None])

    def _by_label(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch with every tensor [B, T, ...] changed: all but the table of legal sets."""
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "legal_table"}
        changed: dict[str, Any] = {name: change(one) for name, one in values.items() if isinstance(one, Tensor)}
        return replace(self, **changed)


class Rows(Protocol):
    """What the model reads of a batch, or of several that run together: all [B, T]."""

    @property
    def tokens(self) -> Tensor: ...

    @property
    def positions(self) -> Tensor: ...

    @property
    def segments(self) -> Tensor: ...

    @property
    def parents(self) -> Tensor | None: ...

    @property
    def is_sampled(self) -> bool: ...


@dataclass(frozen=True)
class Scores:
    """All that an objective sees of the model."""

    logprobs: Tensor  # [B, T] f32 of the labels, at the batch's temperature and within its legal sets
    entropy: Tensor  # [B, T] f32 of the same distribution
    candidate_logprobs: Tensor | None = None  # [B, T, K] f32
    values: Tensor | None = None  # [B, T] f32: the batch's scalar head, of the state before each label


@dataclass(frozen=True)
class SourceContext:
    """What the trainer hands to a source when it is opened."""

    objective: str  # this source's name in the configuration
    tokenizer: Any  # types.Tokenizer
    sequence_length: int
    micro_batch_size: int  # rows of text, or their positions in one row of trajectories that are scored
    data_rank: int
    data_size: int
    seed: int
    gather: Callable[[Any], list[Any]]  # all_gather_object over data-parallel ranks, in rank order
    agree: Callable[[Any], Any] = lambda value: value  # the first tensor-parallel rank's value, on all of them
    row_multiple: int = 1  # rows' lengths are multiples of it
    scores_silent: bool = False  # something looks at the scores of episodes that nothing is learned from
    algorithm: Any = None  # the objective's algorithm (its `advantages`)
    generator: Any = None  # types.Generator on the training weights
    chooser: Any = None  # types.Chooser on the training weights
    past: Callable[[], Mapping[str, Any]] = dict  # the copies of the weights that there are now -> types.Generator
    steps: int = 0  # optimizer steps of the whole run that this source takes part in
    run_steps: int = 0  # optimizer steps of the whole run
    microbatches_at: Callable[[int], int] = lambda step: 0  # of this source at a step, over all data-parallel ranks
    score: Callable[[Batch, str], Scores] | None = None  # no gradients; by the weights of a named snapshot, "": the
    # training weights
    reference: str = ""  # the snapshot that the algorithm's KL term refers to
    snapshots: Sequence[str] = ()  # names that `score` knows besides ""
    heads: Sequence[str] = ()  # scalar heads of the model
    sources: Mapping[str, BatchSource] = field(default_factory=dict)  # by objective, of those opened before this one
    directory: Path | None = None  # the run's folder on the one rank that writes to it; None on the others


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

    def cursor(self) -> dict[str, Any]:
        """The part of `state_dict` that says how far it has read: what a rollback keeps. No collective."""
        ...
