"""The policy as a Chooser: log-probs of given next tokens and the value head's word, one forward for many texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


class PolicyChooser:
    """Asks a `models.policy.Policy`. `max_rows` bounds the memory of a forward; `head` names a scalar head or none.

    Texts of a call are sorted by length, so that a forward holds little padding. Every tensor-parallel rank must call
    it, and all get the same answer.
    """

    def __init__(self, policy: Any, head: str = "", max_rows: int = 512) -> None:
        self.policy, self.head, self.max_rows = policy, head, max_rows

    @torch.no_grad()
    def __call__(
        self, texts: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]]
    ) -> tuple[list[np.ndarray], np.ndarray | None]:
        """See `types.Chooser`. Equal texts are run once."""
        unique: dict[tuple[int, ...], int] = {}
        owner = [unique.setdefault(tuple(text), len(unique)) for text in texts]
        logits, values = self._run(list(unique))
        found = []
        for row, ids in zip(owner, candidates, strict=True):
            chosen = logits[row][list(ids)]
            found.append((chosen - _logsumexp(chosen)).astype(np.float32))
        return found, None if values is None else values[owner]

    def _run(self, texts: list[tuple[int, ...]]) -> tuple[np.ndarray, np.ndarray | None]:
        """Logits [N, V] f32 after each text, and values [N]."""
        device = self.policy.device.torch_device
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        logits = np.zeros((len(texts), self.policy.vocab_size), np.float32)
        values = np.zeros(len(texts), np.float32) if self.head else None
        decoder = self.policy.decoder()
        for start in range(0, len(order), self.max_rows):
            rows = order[start : start + self.max_rows]
            width = len(texts[rows[-1]])
            tokens = torch.zeros(len(rows), width, dtype=torch.int64)
            for at, row in enumerate(rows):
                tokens[at, : len(texts[row])] = torch.tensor(texts[row])
            lengths = torch.tensor([len(texts[row]) for row in rows])
            state, said = decoder.prefill(tokens.to(device), lengths.to(device))
            logits[rows] = decoder.gather(said).float().cpu().numpy()
            if values is not None:
                values[rows] = self.policy.gpt.heads[self.head](state.hidden).float().cpu().numpy()
        return logits, values


def _logsumexp(values: np.ndarray) -> np.floating:
    top = values.max()
    return top + np.log(np.exp(values - top).sum())
