"""What follows the thoughts of another objective's episodes, as next-token rows: prediction is learned with thoughts in
the context too.

Reinforcement by information gain gives the scorer p(text | context, thought) no gradient (RLP, 2510.01265, section
2); from random weights nobody would learn to read a thought. This source shows the text behind the thoughts that were
just sampled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rlpt.batch import Batch, SourceContext
from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.rollout.packing import pack
from rlpt.rollout.scoring import row_shape
from rlpt.rollout.source import EpisodeSource
from rlpt.types import Trajectory


@register("source", "evidence")
@dataclass(frozen=True)
class EvidenceOptions:
    """Reads the episodes that objective `of` learns from in the same step; it must stand before this one."""

    of: str

    def open(self, context: SourceContext) -> EvidenceSource:
        """The running source. Raises ConfigError where `of` plays no episodes or stands later."""
        return EvidenceSource(self, context)


class EvidenceSource:
    """Evidence rows of this rank."""

    def __init__(self, options: EvidenceOptions, context: SourceContext) -> None:
        source = context.sources.get(options.of)
        if not isinstance(source, EpisodeSource):
            raise ConfigError(
                f"objectives.{context.objective}.source.of: '{options.of}' is no objective of episodes that stands "
                f"before this one; there are: {', '.join(context.sources) or 'none'}"
            )
        self.context, self.episodes = context, source

    def take(self, n: int, step: int = 0, share: float = 1.0) -> list[Batch]:
        """The evidence of what the other objective learns from in this step, in `n` microbatches; masked rows where it
        takes no part. Raises ConfigError where its episodes have no evidence."""
        thoughts = self.episodes.last_trajectories if self.episodes.last_step == step else []
        shown = [self._shown(one) for one in thoughts]
        return pack(shown, self.context.objective, n, row_shape(self.context), columns=("sequence_share",))

    def _shown(self, thought: Trajectory) -> Trajectory:
        if thought.evidence_mask is None:
            raise ConfigError(
                f"objectives.{self.context.objective}.source.of: its episodes hold no evidence; let that objective "
                "play `selfplay: {name: think}` on passages"
            )
        return replace(thought, action_mask=thought.evidence_mask, kept_ids=None, windows=None, temperature=1.0)

    def metrics(self) -> dict[str, float]:
        """None: they are text."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """JSON-able; the same on every rank."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore: it follows the other source."""

    def cursor(self) -> dict[str, Any]:
        """See `BatchSource`."""
        return {}
