"""What a thought is worth to whoever reads on: the log-prob that it adds to the text that truly follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.rewards.base import RewardContext
from rlpt.template import SPECIAL_TOKENS
from rlpt.types import Episode, Trajectory

POLICY = "policy"  # the scorer by the training weights


@register("reward", "information_gain")
@dataclass(frozen=True)
class InformationGain:
    """log p(evidence | context, thought) by the training weights, less log p(evidence | context) by `baseline`.

    RLP (Hatamizadeh et al. 2025, arXiv:2510.01265, section 2; there one token of evidence, and an EMA of the weights as
    the baseline). The evidence is what `Trajectory.evidence_mask` marks; the context is all before the mark that opens
    the thought. What the baseline reads, `without` says:

        marks      the context and then the evidence, with nothing between them: RLP's. Equal weights give exactly 0
                   where the trajectory holds nothing between them either; an empty thought is worth what its two
                   marks are worth.
        thought    the context, the two marks of an empty thought, the evidence. Equal weights give exactly 0 to a
                   thought that is closed at once.

    Peers share the baseline, so advantages within a group are the same either way. Scorers are asked once each a play,
    and every text once.
    """

    baseline: str  # a snapshot's name, or policy
    measure: Literal["mean", "sum"] = "mean"  # over the tokens of evidence
    without: Literal["marks", "thought"] = "marks"

    def over(self, episodes: Sequence[Episode], context: RewardContext) -> list[list[float | np.ndarray]]:
        """Nats. Raises ConfigError for a baseline that is no scorer and for episodes without evidence."""
        if self.baseline not in context.scorers:
            raise ConfigError(
                f"reward 'information_gain': baseline={self.baseline}: no such snapshot; "
                f"known: {', '.join(context.scorers)}"
            )
        trajectories = [trajectory for episode in episodes for trajectory in episode.trajectories]
        texts = [(one.token_ids, _evidence(one)) for one in trajectories]
        plain = [self._plain(one, context.tokenizer) for one in trajectories]
        after_thought, before = self._score(texts, POLICY, context), self._score(plain, self.baseline, context)
        gains = iter(with_thought - without for with_thought, without in zip(after_thought, before, strict=True))
        return [[next(gains) for _ in episode.trajectories] for episode in episodes]

    def _plain(self, trajectory: Trajectory, tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
        """The text that the baseline reads, and the mask of its evidence."""
        ids, evidence = trajectory.token_ids, _evidence(trajectory)
        first = int(np.argmax(evidence))
        actions = np.flatnonzero(trajectory.action_mask)
        assert not len(actions) or actions[-1] < first, "a thought stands before its evidence"
        opening = int(actions[0]) - 1 if len(actions) else first
        if opening < 1:
            raise ConfigError("reward 'information_gain': nothing stands before the thought, so nothing can be scored")
        kept = np.ones(len(ids), bool)
        kept[opening:first] = False
        if self.without == "thought" and len(actions):
            marks = [tokenizer.mark_id(mark) for mark in SPECIAL_TOKENS]
            kept[[opening, first - 1]] = np.isin(ids[[opening, first - 1]], marks)
        return ids[kept], evidence[kept]

    def _score(self, texts: Sequence[tuple[np.ndarray, np.ndarray]], name: str, context: RewardContext) -> list[float]:
        keys = [(ids.tobytes(), mask.tobytes()) for ids, mask in texts]
        unique = dict(zip(keys, texts))
        found = context.scorers[name]([ids for ids, _ in unique.values()], [mask for _, mask in unique.values()])
        reduce = np.mean if self.measure == "mean" else np.sum
        scores = {
            key: float(reduce(np.asarray(logprobs, np.float64)[mask]))
            for (key, (_, mask)), logprobs in zip(unique.items(), found, strict=True)
        }
        return [scores[key] for key in keys]


def _evidence(trajectory: Trajectory) -> np.ndarray:
    mask = trajectory.evidence_mask
    if mask is None or not mask.any():
        raise ConfigError(
            "reward 'information_gain': an episode has no evidence to judge a thought by; play with selfplay "
            "{name: think}, or take it out of the rubric"
        )
    return mask
