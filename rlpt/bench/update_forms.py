"""The same update in several forms: padded rows as TRL makes them, packed rows, and rows that share a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from rlpt.batch import Batch
from rlpt.rollout.packing import RowShape, counts_of, has_signal, pack
from rlpt.types import Trajectory

PADDED, PACKED = "padded", "packed"
SHARED = "packed, prompt shared"
SKIPPED = "packed, prompt shared, silent skipped"
FORMS = (PADDED, PACKED, SHARED, SKIPPED)


@dataclass(frozen=True)
class Workload:
    """Groups of ragged lengths: drawn from a geometric distribution and cut, prompts of a uniform one."""

    groups: int = 16
    samples: int = 16
    prompt: tuple[int, int] = (64, 192)
    mean: float = 34.0
    longest: int = 192
    vocabulary: int = 512
    seed: int = 1


def draw_trajectories(workload: Workload, silent_share: float = 0.0) -> list[Trajectory]:
    """Random tokens with standardised rewards as advantages; of `silent_share` of the groups these are 0. Id 0 is left
    to padding: transformers learns nothing of what it looks up there."""
    rng = np.random.default_rng(workload.seed)
    trajectories = []
    for group in range(workload.groups):
        prompt = rng.integers(1, workload.vocabulary, int(rng.integers(workload.prompt[0], workload.prompt[1] + 1)))
        lengths = np.minimum(rng.geometric(1 / workload.mean, workload.samples), workload.longest)
        rewards = rng.standard_normal(workload.samples)
        advantages = (rewards - rewards.mean()) / rewards.std()
        is_silent = group < round(silent_share * workload.groups)
        for length, advantage in zip(lengths, advantages):
            total = len(prompt) + int(length)
            actions = np.arange(total) >= len(prompt)
            logprobs = np.where(actions, -np.log(workload.vocabulary) + 0.1 * rng.standard_normal(total), 0)
            trajectories.append(
                Trajectory(
                    role="solver",
                    peers=group,
                    token_ids=np.concatenate([prompt, rng.integers(1, workload.vocabulary, int(length))]),
                    action_mask=actions,
                    logprobs=logprobs.astype(np.float32),
                    advantage=0.0 if is_silent else float(advantage),
                )
            )
    return trajectories


def make_form(
    form: str, trajectories: Sequence[Trajectory], objective: str, num_microbatches: int, shape: RowShape
) -> list[Batch]:
    """The trajectories in one of `FORMS`. Raises ValueError for another."""
    if form not in FORMS:
        raise ValueError(f"{form!r}: must be one of {', '.join(FORMS)}")
    if form == PADDED:
        return pad(trajectories, objective, num_microbatches, shape)
    silent = [one for one in trajectories if form == SKIPPED and not has_signal(one)]
    scored = [one for one in trajectories if form != SKIPPED or has_signal(one)]
    batches = pack(scored, objective, num_microbatches, shape, share_prompt=form in (SHARED, SKIPPED))
    tokens, number = counts_of(silent)
    return [replace(batches[0], silent_tokens=tokens, silent_trajectories=number), *batches[1:]]


def pad(trajectories: Sequence[Trajectory], objective: str, num_microbatches: int, shape: RowShape) -> list[Batch]:
    """Rows of one trajectory, each as long as the longest prompt and the longest completion together: TRL pads prompts
    on the left and completions on the right of one border. No trajectory may have kept ids."""
    prompt = max(int(one.action_mask.argmax()) for one in trajectories)
    drawn = max(int(one.action_mask.sum()) for one in trajectories)
    width = -(-(prompt + drawn) // shape.multiple) * shape.multiple
    own = replace(shape, sequence_length=width, multiple=width)
    rows = []
    for one in trajectories:
        (row,) = pack([one], objective, 1, own, share_prompt=False)
        shift = prompt - int(one.action_mask.argmax())
        rows.append(_mapped([row], lambda parts, shift=shift: parts[0].roll(shift, 1)))  # type: ignore[misc]
    each = -(-len(rows) // num_microbatches)
    return [_mapped(rows[index * each : (index + 1) * each], torch.cat) for index in range(num_microbatches)]


def _mapped(rows: Sequence[Batch], make: Callable[[list[torch.Tensor]], torch.Tensor]) -> Batch:
    """One batch of the tensors that `make` makes of each field's."""
    tensors: dict[str, Any] = {}
    for one in fields(rows[0]):
        values = [getattr(row, one.name) for row in rows]
        if isinstance(values[0], torch.Tensor):
            tensors[one.name] = make(values)
    return replace(rows[0], **tensors)
