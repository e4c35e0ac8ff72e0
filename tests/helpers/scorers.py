"""A Scorer that needs no model: a table of next-token distributions."""

import hashlib

import numpy as np


class TabularScorer:
    """Every prefix has its own distribution over the vocabulary, keyed by (`seed`, prefix). Keeps what it was asked."""

    def __init__(self, seed: int, vocab_size: int) -> None:
        self.seed, self.vocab_size = seed, vocab_size
        self.calls: list[list[list[int]]] = []

    def distribution(self, prefix) -> np.ndarray:
        """[V] f64."""
        digest = hashlib.blake2b(repr((self.seed, list(map(int, prefix)))).encode(), digest_size=8).digest()
        weights = np.exp(np.random.default_rng(int.from_bytes(digest, "big")).normal(size=self.vocab_size))
        return weights / weights.sum()

    def logprob(self, prefix, token) -> float:
        return float(np.log(self.distribution(prefix)[token]))

    def __call__(self, token_ids, masks) -> list[np.ndarray]:
        self.calls.append([ids.tolist() for ids in token_ids])
        found = []
        for ids, mask in zip(token_ids, masks, strict=True):
            assert not mask[:1].any(), "the first token can't be scored"
            found.append(np.zeros(len(ids), np.float32))
            for at in np.flatnonzero(mask):
                found[-1][at] = self.logprob(ids[:at], ids[at])
        return found
