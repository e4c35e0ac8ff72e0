"""Log-probs and head values of trajectories and texts, by the training weights or a snapshot: the model's second
opinion on tokens that exist already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlpt.batch import SourceContext
from rlpt.rollout.packing import RowShape, fill, one_temperature, spread
from rlpt.rollout.trees import Tree, arrange
from rlpt.types import Trajectory

POLICY = "policy"  # what rewards call the training weights


@dataclass(frozen=True)
class TokenScores:
    """Of one trajectory's actions, 0 elsewhere."""

    logprobs: np.ndarray  # [L] f32, at the trajectory's temperature and within its kept sets
    values: np.ndarray | None  # [L] f32, the head's, of the state before each action


def row_shape(context: SourceContext) -> RowShape:
    """The shape of a source's rows."""
    tokenizer = context.tokenizer
    return RowShape(context.sequence_length, tokenizer.vocab_size, tokenizer.pad_id, context.row_multiple)


def score_trajectories(
    trajectories: Sequence[Trajectory], context: SourceContext, weights: str = "", head: str = ""
) -> list[TokenScores]:
    """Scores every action under the named snapshot ("": the training weights); `head` names a scalar head or none.

    All tensor-parallel ranks must call it with the same trajectories; data-parallel ranks need not agree.
    """
    assert context.score is not None, f"{context.objective}: the trainer gave this source no scorer"
    trees = arrange(trajectories, context.sequence_length)
    temperature = one_temperature(trajectories)
    logprobs = {id(one): np.zeros(len(one.token_ids), np.float32) for one in trajectories}
    values = {key: np.zeros_like(array) for key, array in logprobs.items()}
    for part in _parts(trees, context.micro_batch_size * context.sequence_length):
        batch = fill(part, context.objective, row_shape(context), temperature)
        scores = context.score(replace(batch, head=head), weights)
        spread(part, scores.logprobs, logprobs)
        if head:
            assert scores.values is not None
            spread(part, scores.values, values)
    return [TokenScores(logprobs[id(one)], values[id(one)] if head else None) for one in trajectories]


def _parts(trees: Sequence[Tree], most: int) -> list[list[Tree]]:
    """Trees in order, at most `most` positions a part."""
    parts: list[list[Tree]] = []
    room = 0
    for tree in trees:
        if not parts or room < tree.size:
            parts.append([])
            room = most
        parts[-1].append(tree)
        room -= tree.size
    return parts


@dataclass(frozen=True)
class TextScorer:
    """A `types.Scorer` by the named weights; with `head`, a scorer of states: the head's value before each token."""

    context: SourceContext
    weights: str = ""
    head: str = ""

    def __call__(self, token_ids: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> list[np.ndarray]:
        texts = [
            Trajectory("text", peers=index, token_ids=ids, action_mask=mask, logprobs=np.zeros(len(ids), np.float32))
            for index, (ids, mask) in enumerate(zip(token_ids, masks, strict=True))
        ]
        found = score_trajectories(texts, self.context, self.weights, self.head)
        return [one.logprobs if one.values is None else one.values for one in found]
